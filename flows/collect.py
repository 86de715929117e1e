"""Everything of a recipe answered and judged.

Generating and judging have no barrier between them: an answer is judged as soon as it is there, while other rows,
shards and samplers are still being asked, and judge requests go first at every model. A judge that sees a prompt's
answers side by side waits for the last of them. The order is in `flows.conduct`.
"""

from collections.abc import Collection, Mapping, Sequence
from typing import Any

from flows.answers import Answers, stages_of
from flows.artifacts import progress_artifact
from flows.conduct import Conductor
from flows.events import tell
from flows.failures import check_budget, check_failed, check_read
from flows.inputs import Prompts
from flows.run import Run
from records.store import Receipt
from serving.engine import Engine
from serving.purse import BudgetSpent
from serving.settings import Sampler


async def answer_and_judge(
    run: Run,
    samplers: tuple[Sampler, ...],
    prompts: Prompts,
    engine: Engine,
    *,
    judged: bool = True,
    identities: dict[str, dict[str, Any]] | None = None,
    again: Collection[str] = (),
    rounds: Mapping[str, int] | None = None,
    so_far: Sequence[Answers] = (),
) -> list[Answers]:
    """Every sampler's answers to every prompt, and every judge's verdicts on them. Resumes what is there.

    `rounds`: prompt's id -> times each sampler's n answers that it is to have; 1 where there is none. `so_far`: what an
    earlier call gave; only shards with prompts that are to have more since are gone through again.

    A judge that sees answers side by side judges a prompt as soon as every sampler has answered it. Where
    models take turns on the GPUs, a judge whose turn comes later reads the answers from the store.

    Raises:
        StageFailed: more of a sampler's or judge's rows failed than `max_failed`, or more of a judge's verdicts could
            not be read than `max_unjudged`.
        StoreError: a file of a finished shard is gone or was edited.
    """
    recipe, members = run.recipe, run.recipe.judges if judged else ()
    results = stages_of(run, samplers, members, identities)
    shards = list(range(len(prompts.receipts)))
    for own in results:
        own.rounds = rounds or {}
    if so_far:
        both = list(zip(results, so_far, strict=True))
        shards = [i for i in shards if any(_wants_more(*each, prompts, i) for each in both)]
        for own, before in both:
            own.receipts = {i: r for i, r in before.receipts.items() if i not in shards}
            own.judged = {
                name: {i: r for i, r in known.items() if i not in shards}
                for name, known in before.judged.items()
            }
    conductor = Conductor(run, prompts, engine, results, members, again, shards)
    for member in members:
        for receipt in judge_receipts(results, member.name):
            conductor.verdicts[member.name].update(receipt.statuses)
    async with progress_artifact():
        await conductor.conduct()
    judged_too = [receipt for member in members for receipt in judge_receipts(results, member.name)]
    try:
        check_budget(engine, [receipt for own in results for receipt in own.receipts.values()] + judged_too)
    except BudgetSpent as error:
        tell("budget.reached", run, message=str(error))
        raise
    for own in results:
        check_failed(f"sampler {own.sampler.name}", own.receipts.values(), recipe.max_failed)
    for member in members:
        for own in results if member.scope == "completion" else results[:1]:
            on = f" on {own.sampler.name}" if member.scope == "completion" else ""
            receipts = own.judged.get(member.name, {}).values()
            check_failed(f"judge {member.name}{on}", receipts, recipe.max_failed)
        check_read(member.name, conductor.verdicts[member.name], recipe.max_unjudged)
    return results


def _wants_more(now: Answers, before: Answers, prompts: Prompts, index: int) -> bool:
    return any(now.wanted(prompt.id) != before.wanted(prompt.id) for prompt in prompts.shard(index))


def judge_receipts(answers: Sequence[Answers], judge: str) -> list[Receipt]:
    """A judge's receipts, each once: samplers it sees side by side share them."""
    found = [receipt for own in answers for receipt in own.judged.get(judge, {}).values()]
    return list({receipt.name: receipt for receipt in found}.values())
