"""One run on many machines: a range of shards is a child run, and the store's receipts are all that they share.

The parent seals the prompts, sends out the ranges that have something unfinished and needs no GPU. A child answers and
judges its shards as any run does. Workers may die: their range is sent again, and what was sealed is not asked anew.
"""

import asyncio
from collections import Counter
from collections.abc import Collection, Sequence
from pathlib import Path

from pydantic import Field

from flows.answers import Answers, stages_of
from flows.children import ChildFailed, run_child
from flows.conduct import Case, Conductor, made_from
from flows.failures import StageFailed, check_failed, check_read
from flows.flow import Given, flow
from flows.gpus import hold
from flows.inputs import Prompts, models_of, stored_prompts
from flows.load import metered
from flows.processes import shared
from flows.progress import display
from flows.readings import FILE as DIALECTS
from flows.recipe import Recipe, RecipeError
from flows.run import Run
from judges.jury import Member
from records.base import Strict
from records.lock import exclusive
from records.store import Receipt
from serving.models import open_models


class Elsewhere(Strict):
    """Stages as child runs of deployments. `store`, or else `out`, has to be a place that all machines see."""

    answers: str = "answer-shards/gpu"
    """The deployment that answers and judges a range of shards."""
    shards: int = Field(default=4, ge=1)
    """Shards in a range: each child starts the models anew, and a lost one loses at most what its shards had open."""
    at_once: int = Field(default=8, ge=1, le=200)
    """Ranges sent out at one time; they share the limits of endpoints."""
    attempts: int = Field(default=3, ge=1, le=20)
    """How often a range is sent before the run fails, with what is finished kept."""
    training: str | None = None
    """The deployment that trains, as train/gpu, in the same `out`; None: this run trains itself."""
    evaluation: str | None = None
    """The deployment that evaluates, as evaluate/gpu, in the same `out`; None: this run does."""


@flow(name="answer-shards", flow_run_name="{recipe.name}-{first}-{last}")
async def answer_shards(
    recipe: Given,
    first: int,
    last: int,
    out: Path | None = None,
    store: str | None = None,
    judged: bool = True,
    again: Sequence[str] = (),
) -> int:
    """Answer, and judge, the shards of a range, both ends included. Prompt -> Completion -> Judgement.

    The prompts were sealed in the store by the run that sends this range. Returns the requests it took.
    """
    whole = Run.at(recipe, out, store)
    # files of its own: others write theirs at the same time
    run = Run(recipe, whole.folder / "ranges" / f"{first:05d}-{last:05d}", whole.store)
    with exclusive(run.folder):
        prompts, members = stored_prompts(run), recipe.jury.members if judged else ()
        models, machine = models_of(recipe, judged=judged), recipe.machine
        stage = "generate and judge" if judged else "generate"
        async with (
            open_models(models, run.servers, display().say, machine, hold=hold) as engine,
            metered(engine, run.folder, stage),
        ):
            results = stages_of(run, recipe.samplers, members)
            shards = range(first, min(last + 1, len(prompts.receipts)))
            await Conductor(run, prompts, engine, results, members, again, shards).conduct()
            for own in results:
                check_failed(f"sampler {own.sampler.name}", own.receipts.values(), recipe.max_failed)
            return engine.usage.requests


async def ask_elsewhere(
    run: Run, prompts: Prompts, elsewhere: Elsewhere, *, judged: bool, again: Collection[str] = ()
) -> list[Answers]:
    """Have everything that is missing asked by child runs, and take what they sealed.

    Raises:
        StageFailed: ranges did not complete; the others ran to their end.
        RecipeError: the recipe has something that only one process can decide, or there is no such deployment.
    """
    check(run.recipe)
    members = run.recipe.jury.members if judged else ()
    ranges = unfinished(run, prompts, members, elsewhere.shards, again)
    step = display().add("ranges", len(ranges))
    recipe = shared(run.recipe, min(elsewhere.at_once, len(ranges) or 1))
    parameters = {"recipe": recipe.model_dump(mode="json"), "judged": judged, "again": list(again)}
    parameters |= {
        "out": str(run.folder.parent.absolute()),
        "store": None if run.store == str(run.folder) else run.store,
    }
    gate = asyncio.Semaphore(elsewhere.at_once)

    async def one(first: int, last: int) -> None:
        async with gate:
            name = f"{run.recipe.name}-{first}-{last}"
            tags = [f"run:{run.recipe.name}", f"as:{run.recipe.fingerprint[:12]}", f"shards:{first}-{last}"]
            own = parameters | {"first": first, "last": last}
            await run_child(elsewhere.answers, own, name, tags, elsewhere.attempts)
            step()

    done = await asyncio.gather(*(one(*each) for each in ranges), return_exceptions=True)
    for error in done:
        if isinstance(error, BaseException) and not isinstance(error, ChildFailed):
            raise error
    if failed := [str(error) for error in done if isinstance(error, ChildFailed)]:
        raise StageFailed(f"{len(failed)} of {len(ranges)} ranges did not complete:\n" + "\n".join(failed))
    found = run.folder.glob(f"ranges/*/{DIALECTS}")
    if (dialects := next(found, None)) is not None:  # all ranges ask in one way, see `flows.readings`
        run.write(DIALECTS, dialects.read_text())
    return taken(run, prompts, members)


def check(recipe: Recipe) -> None:
    """Whether its shards can be asked apart from each other.

    Raises:
        RecipeError: they cannot; says what decides over all of them.
    """
    if recipe.budget is not None:
        raise RecipeError("elsewhere: each child run would count its own `budget`; leave one of the two out")
    if recipe.rounds_at_most > 1:
        raise RecipeError(
            "elsewhere: `best_of_n` with further rounds looks at all prompts between them; leave one of the two out"
        )
    if recipe.training is not None and recipe.training.rounds is not None:
        raise RecipeError(
            "elsewhere: `training.rounds` samples from each round's model; leave one of the two out"
        )


def unfinished(
    run: Run, prompts: Prompts, members: Sequence[Member], size: int, again: Collection[str] = ()
) -> list[tuple[int, int]]:
    """Ranges, from shard to shard, that have something to ask; nothing of a store is read but its receipts."""
    results = stages_of(run, run.recipe.samplers, members)
    found = []
    for first in range(0, len(prompts.receipts), size):
        last = min(first + size, len(prompts.receipts)) - 1
        if not all(_finished(results, members, prompts, index, again) for index in range(first, last + 1)):
            found.append((first, last))
    return found


def _finished(
    results: Sequence[Answers],
    members: Sequence[Member],
    prompts: Prompts,
    index: int,
    again: Collection[str],
) -> bool:
    for own in results:
        receipt = own.stage.finished(index, key_digest=prompts.receipts[index].key_digest)
        if receipt is None or set(again) & receipt.dropped.keys() or own.is_short(receipt):
            return False
        own.receipts[index] = receipt
    for member in members:
        for whose in [results] if member.scope == "prompt" else [[own] for own in results]:
            case = Case(member, whose, index)
            of = made_from(prompts, case)
            judged = case.stage.finished(index, of=of) if of else None
            if judged is None or set(again) & {*judged.statuses, *judged.dropped}:
                return False
    return True


def taken(run: Run, prompts: Prompts, members: Sequence[Member]) -> list[Answers]:
    """What the children sealed, as if it had been asked here.

    Raises:
        StageFailed: a shard is not there, or more failed than the recipe allows.
    """
    results = stages_of(run, run.recipe.samplers, members)
    verdicts = {member.name: Counter[str]() for member in members}
    counted: set[str] = set()
    for index in range(len(prompts.receipts)):
        for own in results:
            own.receipts[index] = _there(own.stage.receipt(index), own.stage.folder, index)
            for name, stage in own.judge_stages.items():
                receipt = _there(stage.receipt(index), stage.folder, index)
                own.judged.setdefault(name, {})[index] = receipt
                if receipt.name not in counted:  # samplers that are judged side by side share it
                    counted.add(receipt.name)
                    verdicts[name].update(receipt.statuses)
    for own in results:
        check_failed(f"sampler {own.sampler.name}", own.receipts.values(), run.recipe.max_failed)
    for member in members:
        check_read(member.name, verdicts[member.name], run.recipe.max_unjudged)
    return results


def _there(receipt: Receipt | None, folder: str, index: int) -> Receipt:
    if receipt is None:
        raise StageFailed(f"{folder}: shard {index} is not there; run the same again to have its range asked")
    return receipt
