"""Whole runs against an oracle that knows the truth: every label that can be told is recovered, and no other is made.

The oracle (`oracle/`) takes the place of a recipe's models: it writes answers of a hidden quality, judges them with a
liking for the first place, noise, and malformed, truncated and refused replies, and remembers what it meant. The run is
a real one, over HTTP, through the store to the dataset's files; `flows.selftest_audit` compares.
"""

import tempfile
import time
from collections.abc import Mapping, Sequence
from contextlib import ExitStack
from pathlib import Path
from typing import Any
from urllib.parse import quote

from pydantic import ValidationError

from flows.dataset import DatasetError, build_dataset
from flows.facts import Facts
from flows.flow import Given, flow
from flows.pool import collect
from flows.progress import display
from flows.recipe import Recipe, RecipeError
from flows.recipe_file import explain
from flows.run import Run
from flows.selftest_audit import Found, audit
from judges import Jury, Pairwise, Rating
from oracle.oracle import KINDS, Oracle
from oracle.reply import Rates
from oracle.server import serving
from oracle.tasks import Writer, prompt_lines, tasks
from serving.settings import Endpoint

MODEL = "oracle"
PROMPTS, ANSWERS = 500, 4
SHARD = 250


def built_in(answers: int) -> dict[str, dict[str, Any]]:
    """One judge of every kind, and the wordings and ways of asking that ship: name -> the recipe's `judge`."""
    asks = {"model": MODEL}
    four = ["instruction_following", "honesty", "truthfulness", "helpfulness"]
    rating, critique = {"kind": "rating", **asks}, {"kind": "critique", **asks}
    pairwise = {"kind": "pairwise", **asks}
    rewarding = {"kind": "reward_model", **asks}
    return {
        "rules": {"kind": "rules"},
        "rules/reference": {"kind": "rules", "reference": "marked"},
        "rating": rating,
        "rating/aspects": rating | {"aspects": four},
        "rating/short": rating | {"grade": "short"},
        "rating/full": rating | {"grade": "full"},
        "rating/full, samples": rating | {"name": "rating-full-samples", "grade": "full", "samples": 8},
        "rating/samples": rating | {"name": "rating-samples", "samples": 8},
        "ultrafeedback": {"kind": "ultrafeedback", **asks, "orders": answers},
        "critique": critique,
        "pairwise": pairwise,
        "pairwise/rules": pairwise | {"prompt": "judges/pairwise_rules"},
        "pairwise/reference": pairwise | {"prompt": "judges/pairwise_reference"},
        "pairwise/ties": pairwise | {"ties": "label"},
        "pairwise/samples": pairwise | {"name": "pairwise-samples", "samples": 5, "constrained": False},
        "reward_model": rewarding,
        "jury": {
            "kind": "jury",
            "members": [{"kind": "rules"}, rating, critique],
            "weights": {"rules": 2},
            "quorum": 2,
        },
        "jury/standardised": {
            "kind": "jury",
            "members": [rating, critique, rewarding],
            "standardise": "prompt",
            "exclude_own": True,
            "quorum": 2,
        },
    }


def chosen_cases(kinds: Sequence[str], answers: int) -> dict[str, dict[str, Any]]:
    """The built-in judges of some kinds; of all where none is named.

    Raises:
        RecipeError: no such kind.
    """
    cases = built_in(answers)
    known = list(dict.fromkeys(name.split("/")[0] for name in cases))
    if unknown := [kind for kind in kinds if kind not in known and kind not in cases]:
        raise RecipeError(f"--kinds {','.join(unknown)}: wanted some of {', '.join(known)}")
    return {
        name: judge
        for name, judge in cases.items()
        if not kinds or name in kinds or name.split("/")[0] in kinds
    }


def recipe_of(judge: Mapping[str, Any], answers: int, prompts: Path, url: str) -> Recipe:
    """A recipe of our own for one judge: `answers` samplers of one model."""
    samplers = [
        {"name": f"sampler-{i}", "model": "writer", "temperature": 1.0, "seed": i} for i in range(answers)
    ]
    endpoint = {"kind": "endpoint", "base_url": url, "dialect": "vllm"}
    fields: dict[str, Any] = {
        "name": "selftest",
        "prompts": [{"file": str(prompts)}],
        "models": {"writer": endpoint | {"model": "writer"}, MODEL: endpoint | {"model": MODEL}},
        "samplers": samplers,
        "judge": judge,
        "pairs": {"policy": "all_pairs"},
        "shard_size": SHARD,
    }
    return Recipe.model_validate(fields)


def with_oracle(recipe: Recipe, prompts: Path, url: str) -> Recipe:
    """The recipe with the oracle for all its models and our prompts for its own; it trains nothing.

    Judges and samplers keep what they ask by; each judge has an address of its own.

    Raises:
        RecipeError: a judge of a kind that the oracle does not know.
    """
    fields = recipe.model_dump(mode="json")
    models: dict[str, Any] = {}

    def served(name: str, address: str) -> dict[str, Any]:
        model = recipe.models[name]
        dialect = model.dialect if isinstance(model, Endpoint) else "vllm"
        dialect = "openai" if dialect == "auto" else dialect  # the oracle is not tried out first
        client = model.client if isinstance(model, Endpoint) else "plain"
        return {
            "kind": "endpoint",
            "model": model.model,
            "revision": model.revision,
            "base_url": address,
            "dialect": dialect,
            "client": client,
        }

    for sampler in recipe.samplers:
        models[sampler.model] = served(sampler.model, f"{url}/write/v1")
    members = []
    for i, member in enumerate(recipe.jury.members):
        own = member.model_dump(mode="json")
        if member.asks:
            if member.kind not in KINDS:
                raise RecipeError(f"judge {member.name}: selftest has no oracle for kind {member.kind!r}")
            models[f"judge-{i}"] = served(
                member.asks, f"{url}/{member.kind}/{quote(member.name, safe='')}/v1"
            )
            own["model"] = f"judge-{i}"
        members.append(own)
    jury = fields["judge"] | {"members": members} if isinstance(recipe.judge, Jury) else members[0]
    fields |= {
        "prompts": [{"file": str(prompts)}],
        "models": models,
        "judge": jury,
        "judge_minimum": None,
        "training": None,
        "evaluation": None,
        "max_failed": 1.0,
        "max_unjudged": 1.0,
    }
    try:
        return Recipe.model_validate(fields)
    except ValidationError as error:
        raise RecipeError(f"with the oracle for its models, {recipe.name}:\n{explain(error)}") from error


@flow(name="selftest", flow_run_name="selftest")
async def selftest(
    recipe: Given | None,
    kinds: Sequence[str],
    prompts: int,
    answers: int,
    rates: dict[str, float],
    seed: int = 0,
    out: Path | None = None,
) -> dict[str, Any]:
    """Prompts -> answers of known quality -> judgements -> pairs -> what was recovered, lost or wrong, by judge.

    `rates`: fields of `oracle.reply.Rates`. `out`: keeps the run's folder there.
    """
    with ExitStack() as stack:
        folder = out or Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="zephyr-selftest-")))
        if out and out.exists() and any(out.iterdir()):
            raise RecipeError(f"--out {out} is not empty; the answers in it are not this oracle's")
        folder.mkdir(parents=True, exist_ok=True)
        known = tasks(prompts, seed)
        file = folder / "prompts.jsonl"
        file.write_text("".join(prompt_lines(known)))
        writer = Writer({task.text: task for task in known}, seed)
        cases = {recipe.name: None} if recipe else chosen_cases(kinds, answers)
        oracle = Oracle(writer, Rates(**rates, seed=seed))
        results: dict[str, Any] = {}
        for name, judge in cases.items():
            began, oracle.requests = time.monotonic(), 0
            oracle.complaints.clear()
            display().clear()
            async with serving(oracle) as url:
                plain = recipe or recipe_of(judge or {}, answers, file, url)
                asked = with_oracle(plain, file, url)
                oracle.least = {
                    m.name: m.min_mass for m in asked.jury.members if isinstance(m, Rating | Pairwise)
                }
                found = await _one(asked, folder, oracle)
            seconds = round(time.monotonic() - began, 1)
            results[name] = found.content() | {"requests": oracle.requests, "seconds": seconds}
            display().say(
                f"{name}: {results[name]['wrong']} wrong, {found.recovered} of {found.recoverable}, {seconds} s"
            )
    return {
        "ok": all(result["ok"] for result in results.values()),
        "wrong": sum(result["wrong"] for result in results.values()),
        "lost": sum(result["recoverable"] - result["recovered"] for result in results.values()),
        "settings": {"prompts": prompts, "answers": answers, "seed": seed, **rates},
        "judges": results,
    }


async def _one(recipe: Recipe, folder: Path, oracle: Oracle) -> Found:
    """One recipe, from its prompts to the files of its dataset, and the audit of them."""
    with Run.opened(recipe, folder) as run:
        facts = Facts.of(run)
        prompts, dropped, answers = await collect(run, facts)
        built = ""
        try:
            build_dataset(run, prompts, dropped, answers, facts)
        except DatasetError as why:
            built = str(why)
        found = audit(run, prompts, answers, oracle, pairs=not built)
    for judge, complaints in oracle.complaints.items():
        for what, count in complaints.items():
            found.complaints[f"{judge}: {what}"] = count
    if built:
        found.complaints[built] = 1
    return found
