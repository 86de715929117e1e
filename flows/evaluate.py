"""Held-out prompts, answered by the model before and after training and scored by the judge that made the labels.

Every model answers the same prompts under the same sampler and seeds. Figures have intervals bootstrapped over prompts;
the difference to the base is taken prompt by prompt, so what makes a prompt hard cancels out.
"""

import json
import statistics
import time
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from flows.artifacts import publish_summary
from flows.children import run_child
from flows.collect import answer_and_judge
from flows.dataset import Judged, judged_prompts
from flows.facts import Facts
from flows.flow import Given, flow
from flows.gpus import hold
from flows.inputs import gather_prompts, models_of, store_prompts
from flows.load import figures as load_figures
from flows.load import metered
from flows.progress import display
from flows.recipe import RecipeError
from flows.run import Run
from flows.train import trained
from judges.rules import RuleError, all_kept
from records.ids import chance, seed_of
from records.schema import Prompt
from serving.models import open_models
from serving.settings import LlamaCpp, Model, Sampler

BASE = "base"
ROUNDS = 10_000
"""Bootstrap samples."""


@dataclass(frozen=True)
class Contender:
    """One model to evaluate: how it is served, and what it is, for fingerprints."""

    name: str
    model: Model
    identity: dict[str, Any]


def contenders(run: Run, name: str) -> list[Contender]:
    """The base, as the recipe's model `name` serves it, and every trained model of the run, served alike.

    Raises:
        RecipeError: a model was trained without the GGUF file that llama.cpp needs.
    """
    served = run.recipe.models[name]
    found = [Contender(BASE, served, served.identity)]
    for stage, folder in trained(run).items():
        made = json.loads((folder / "model.json").read_text())
        weights = folder
        if isinstance(served, LlamaCpp):
            weights = next(iter(sorted(folder.glob("*.gguf"))), None)
            if weights is None:
                raise RecipeError(f"{folder} has no GGUF for llama.cpp; set training.gguf: q8_0")
        model = served.model_copy(update={"model": str(weights), "revision": None})
        identity = {"trained": made["weights"], "served_as": served.kind}
        if all(
            identity != other.identity for other in found
        ):  # training that moved no weight gives no new model
            found.append(Contender(stage, model, identity))
    return found


def held_out(prompts: Iterable[Prompt], limit: int, seed: int) -> list[Prompt]:
    """`limit` prompts of the test split, drawn by id."""
    test = [prompt for prompt in prompts if prompt.meta["split"] == "test"]
    drawn = sorted(test, key=lambda prompt: chance(seed, "evaluation", prompt.id).random())[:limit]
    return sorted(drawn, key=lambda prompt: prompt.id)


def interval(values: Sequence[float], confidence: float, *name: object) -> dict[str, float]:
    """Mean of one value per prompt, and its bootstrap interval; the same values give the same interval."""
    import numpy as np

    data = np.asarray(values, dtype=float)
    dice = np.random.default_rng(seed_of(0, "interval", *name, len(data)))
    means = data[dice.integers(0, len(data), (ROUNDS, len(data)))].mean(axis=1)
    low, high = np.quantile(means, [(1 - confidence) / 2, (1 + confidence) / 2])
    return {"value": float(data.mean()), "low": float(low), "high": float(high), "n": len(data)}


def figures(cases: dict[str, list[Judged]], confidence: float) -> dict[str, Any]:
    """Score, constraints kept, length and cut-off rate of every model, and each against the base."""
    models: dict[str, Any] = {}
    scores: dict[str, dict[str, float]] = {}
    for name, own in cases.items():
        values = {case.prompt.id: score for case in own if (score := _mean_score(case)) is not None}
        kept = [share for case in own if (share := _kept(case)) is not None]
        texts = [c.completion for case in own for c in case.candidates]
        scores[name] = values
        models[name] = {
            "score": interval(list(values.values()), confidence, name, "score") if values else None,
            "kept": interval(kept, confidence, name, "kept") if kept else None,
            "unjudged": sum(c.score is None for case in own for c in case.candidates),
            "cut_off": sum(t.finish_reason == "length" for t in texts) / max(1, len(texts)),
            "mean_words": statistics.fmean(len(t.text.split()) for t in texts) if texts else 0.0,
            "answers": len(texts),
        }
    against: dict[str, Any] = {}
    for name in cases:
        both = sorted(scores[name].keys() & scores[BASE].keys())
        if name == BASE or not both:
            continue
        gains = [scores[name][key] - scores[BASE][key] for key in both]
        wins = [0.5 + 0.5 * ((gain > 1e-9) - (gain < -1e-9)) for gain in gains]
        against[name] = {
            "gain": interval(gains, confidence, name, "gain"),
            "win_rate": interval(wins, confidence, name, "wins"),
        }
        kept = {k: {c.prompt.id: v for c in cases[k] if (v := _kept(c)) is not None} for k in (name, BASE)}
        if shared := sorted(kept[name].keys() & kept[BASE].keys()):
            gains = [kept[name][key] - kept[BASE][key] for key in shared]
            against[name]["kept_gain"] = interval(gains, confidence, name, "kept gain")
    return {"models": models, "against_base": against, "confidence": confidence}


def of_one(case: Judged, model: str) -> Judged:
    """The part of a prompt that one model answered."""
    own = [c for c in case.candidates if c.completion.model == model]
    return Judged(case.prompt, own, {c.completion.id: case.judgements[c.completion.id] for c in own})


def _mean_score(case: Judged) -> float | None:
    scores = [c.score for c in case.candidates if c.score is not None]
    return statistics.fmean(scores) if scores else None


def _kept(case: Judged) -> float | None:
    """Share of a prompt's answers that keep every constraint; None for a prompt without any."""
    try:
        verdicts = [all_kept(case.prompt, c.completion) for c in case.candidates]
    except RuleError:
        return None
    known = [verdict for verdict in verdicts if verdict is not None]
    return sum(known) / len(known) if known else None


@flow(name="evaluate", flow_run_name="evaluate-{recipe.name}")
async def evaluate(recipe: Given, out: Path | None = None, store: str | None = None) -> dict[str, Any]:
    """Models -> answers to held-out prompts -> judgements -> figures with intervals.

    Models are served one after the other and the judges last, so one GPU or one laptop is enough.
    """
    with Run.opened(recipe, out, store) as run:
        facts = Facts.of(run)
        if recipe.evaluation is None:
            raise RecipeError(f"recipe {recipe.name!r} has no `evaluation`; add prompts and a sampler")
        every, _ = gather_prompts(run)
        drawn = held_out(every, recipe.evaluation.prompts, recipe.seed)
        if not drawn:
            raise RecipeError(
                "evaluation: no prompt is held out; set splits.test above 0 or give a test source"
            )
        prompts = store_prompts(run.prompts_stage(recipe.evaluation.prompts), drawn, recipe.shard_size)
        cases: dict[str, list[Judged]] = {}
        began, asked = time.monotonic(), 0
        found = contenders(run, recipe.evaluation.sampler.model)
        samplers = {
            c.name: recipe.evaluation.sampler.model_copy(update={"name": c.name, "model": c.name})
            for c in found
        }
        identities = {c.name: c.identity for c in found}

        async def ask(names: Sequence[str], models: dict[str, Model], judged: bool) -> Any:
            nonlocal asked
            chosen: tuple[Sampler, ...] = tuple(samplers[name] for name in names)
            async with (
                open_models(
                    models, run.servers, display().say, recipe.machine, run.purse(), hold=hold
                ) as engine,
                metered(engine, run.folder, "evaluate", again=asked > 0),
            ):
                answers = await answer_and_judge(
                    run, chosen, prompts, engine, judged=judged, identities=identities
                )
            asked += engine.usage.requests
            return answers

        for contender in found:
            await ask([contender.name], {contender.name: contender.model}, judged=False)
        answers = await ask([c.name for c in found], models_of(recipe), judged=True)
        together = judged_prompts(run, prompts, answers)
        for name in samplers:
            cases[name] = [of_one(case, name) for case in together]
        facts.put("evaluation", figures(cases, recipe.evaluation.confidence) | {"prompts": len(prompts)})
        if asked:
            facts.put("endpoints", load_figures(run.folder))
        facts.spent("evaluate", time.monotonic() - began, asked)
        run.write("evaluation.json", json.dumps(_examples(cases), ensure_ascii=False, indent=1))
        await publish_summary(facts)
        return facts.content


async def evaluate_at(run: Run, deployment: str | None) -> None:
    """The evaluation here, or as a child run of a deployment whose machine sees the same folder."""
    store = None if run.store == str(run.folder) else run.store
    if deployment is None:
        await evaluate(run.recipe, run.folder.parent, store)
        return
    parameters = {"recipe": run.recipe.model_dump(mode="json"), "out": str(run.folder.parent.absolute())}
    tags = [f"run:{run.recipe.name}", f"as:{run.recipe.fingerprint[:12]}", "evaluate"]
    await run_child(
        deployment, parameters | {"store": store}, f"evaluate-{run.recipe.name}", tags, attempts=3
    )


def _examples(cases: dict[str, list[Judged]]) -> list[dict[str, Any]]:
    """Every held-out prompt with each model's first answer and score, for the report."""
    return [
        {
            "prompt": case.prompt.text,
            "answers": {
                name: {"text": own[i].candidates[0].completion.text, "score": own[i].candidates[0].score}
                for name, own in cases.items()
                if own[i].candidates
            },
        }
        for i, case in enumerate(cases[BASE])
    ]
