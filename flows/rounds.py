"""On-policy training: the latest model answers, the judge scores, training goes on from there, and again.

With `training.dpo` it is iterative DPO, as in Self-Rewarding Language Models (arXiv 2401.10020); with `training.sft`
alone, rejection-sampling fine-tuning (RAFT, arXiv 2304.06767). A round is a recipe of its own in a folder of its own,
`runs/<name>/rounds/round-2`, so whatever can be done with a run can be done with a round, and a run that was stopped
goes on in the round it was in.
"""

import json
import time
from pathlib import Path
from typing import Any

from flows.answers import stored
from flows.dataset import judged_prompts
from flows.facts import Facts
from flows.flow import Given, flow
from flows.inputs import gather_prompts
from flows.preferences import build_preferences
from flows.progress import display
from flows.recipe import Recipe, RecipeError
from flows.run import Run
from flows.train import last_stage, model_facts, train_stage
from pairs.gain import best_of_k
from records.stats import mean


@flow(name="train-in-rounds", flow_run_name="rounds-{recipe.name}")
async def train_in_rounds(recipe: Given, out: Path | None = None, store: str | None = None) -> dict[str, Any]:
    """Every round's preferences and training, one after the other. Model -> answers -> pairs -> model -> …"""
    plan = recipe.training
    if plan is None or plan.rounds is None:
        raise RecipeError(f"recipe {recipe.name!r} has no training.rounds")
    with Run.opened(recipe, out, store) as run:
        facts, before = Facts.of(run), None
        facts.content.pop("rounds", None)
        for number in range(1, plan.rounds.count + 1):
            display().say(f"round {number} of {plan.rounds.count}")
            began = time.monotonic()
            own, folder, shards = round_recipe(recipe, number, before), run.folder / "rounds", None
            if plan.rounds.prompts == "reuse":
                shards = run.store  # what fixed models answer is then the same question in every round
            elif store is not None:
                shards = f"{store.rstrip('/')}/rounds/{own.name}"
            await build_preferences(own, folder, shards)
            if plan.sft is not None:
                await train_stage(own, "sft", folder)
            if plan.dpo is not None:
                await train_stage(own, "dpo", folder)
            this = Run.at(own, folder, shards)
            before = this.model_folder(last_stage(plan))
            row = figures(recipe, this, number)
            facts.put("rounds", [*facts.content.get("rounds", []), row])
            facts.spent(own.name, time.monotonic() - began, row["asked_this_run"])
        return facts.content


def round_recipe(recipe: Recipe, number: int, before: Path | None) -> Recipe:
    """One round as a recipe. `before`: the model folder that the round before made; None in the first.

    Samplers of the model in training ask that one; judges and other models stay what they are.
    """
    plan = recipe.training
    assert plan is not None and plan.rounds is not None
    fields: dict[str, Any] = recipe.model_dump()
    fields |= {"name": f"round-{number}", "evaluation": None}
    fields["training"] |= {"rounds": None}
    if plan.rounds.prompts == "split":
        for source in fields["prompts"]:
            source["part"] = (number, plan.rounds.count)
    if before is not None:
        name = f"{plan.base}.round-{number - 1}"
        made = json.loads((before / "model.json").read_text())
        fields["models"][name] = recipe.models[plan.base].model_dump() | {
            "model": str(before),
            "revision": None,
            "weights": made["weights"],
        }
        for sampler in fields["samplers"]:
            if sampler["model"] == plan.base:
                sampler["model"] = name
        if plan.rounds.start == "previous":
            fields["training"]["base"] = name
    return Recipe.model_validate(fields)


def figures(recipe: Recipe, run: Run, number: int) -> dict[str, Any]:
    """What a round came to. Scores are the judge's, of the answers of the model in training as the round began."""
    plan, content = recipe.training, Facts.of(run).content
    assert plan is not None
    own = {sampler.name for sampler in recipe.samplers if sampler.model == plan.base}
    prompts, _ = gather_prompts(run)
    scores = {
        case.prompt.id: [
            c.score for c in case.candidates if c.completion.model in own and c.score is not None
        ]
        for case in judged_prompts(run, prompts, stored(run))
    }
    known = {id: found for id, found in scores.items() if found}
    score = mean([sum(found) / len(found) for found in known.values()], list(known))
    best = mean([best_of_k(found, len(found)) for found in known.values()], list(known))
    stages, dataset = content["stages"], content["dataset"]
    return {
        "round": number,
        "folder": str(run.folder),
        "prompts": len(prompts),
        "answers": stages["generate"]["answers"],
        "judgements": stages["judge"]["answers"],
        "score": score.model_dump() if score else None,
        "best": best.model_dump() if best else None,
        "pairs": dataset["pairs"],
        "sft_rows": dataset["sft_rows"],
        "trained_from": run.recipe.models[run.recipe.training.base].identity["model"]
        if run.recipe.training and run.recipe.training.base in run.recipe.models
        else plan.base,
        "model": model_facts(run.model_folder(last_stage(plan))),
        "asked_this_run": sum(content.get("asked_this_run", {}).values()),
    }
