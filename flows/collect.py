"""The tasks: one shard answered, one shard judged; and everything of a recipe answered and judged.

Generating and judging have no barrier between them: an answer is judged as soon as it is there, while other rows,
shards and samplers are still being asked, and judge requests go first at every model.
"""

import asyncio
import time
from collections import Counter
from collections.abc import Callable, Collection
from typing import Any

from prefect import task
from prefect.cache_policies import NO_CACHE

from flows.answers import Answers, Case, cases_of, generate, judge_one, stages_of
from flows.artifacts import progress_artifact
from flows.facts import Facts
from flows.inputs import gather_prompts, models_of
from flows.progress import display
from flows.run import Run, shards
from flows.stage import fill, follow, together
from judges.jury import Member
from records.schema import Completion, Dropped, Prompt
from records.store import Receipt, Row, Stage
from serving.chat import Chat
from serving.engine import Engine
from serving.models import open_models
from serving.settings import Sampler

GENERATE, JUDGE = 1, 0
"""Priorities at a model: open rows are finished before new ones are begun."""


Step = Callable[..., None]
"""Told of finished rows."""


class StageFailed(Exception):
    """More rows failed than the recipe allows. Everything that was answered is kept."""


# The store's receipts decide what is done: they are checked against the files, which a cached task result is not.
# A task run therefore always runs, and returns at once when its shard is sealed.
SHARD = {"cache_policy": NO_CACHE, "persist_result": False}


@task(name="generate-shard", task_run_name="generate-{sampler.name}-{index:05d}", **SHARD)
async def generate_shard(
    run: Run,
    sampler: Sampler,
    stage: Stage,
    index: int,
    prompts: list[Prompt],
    chat: Chat,
    step: Step,
    hand_on: Callable[[Row], None] | None = None,
) -> Receipt:
    """One sampler's answers to one shard of prompts; row i belongs to prompt i. Each is handed on as it comes."""
    keys = [prompt.id for prompt in prompts]
    if (receipt := stage.sealed(index, keys)) is not None:
        step(len(keys))
        if hand_on is not None:
            for row in stage.rows(receipt):
                hand_on(row)
        return receipt
    tell = hand_on or (lambda row: None)
    by_id = {prompt.id: prompt for prompt in prompts}
    shard = stage.open(index, keys)
    step(shard.taken_over)
    for key in keys:
        if (row := shard.row(key)) is not None:
            tell(row)

    async def answer(key: str) -> Row:
        row = await generate(by_id[key], sampler, stage.fingerprint, run.recipe.seed, chat)
        tell(row)
        return row

    return await fill(shard, answer, step)


@task(name="judge-shard", task_run_name="judge-{member.name}-{sampler}-{index:05d}", **SHARD)
async def judge_shard(
    member: Member,
    sampler: str,
    stage: Stage,
    index: int,
    prompts: list[Prompt],
    answers: list[asyncio.Future[list[Completion]]],
    chat: Chat | None,
    step: Step,
) -> Receipt:
    """One judge's verdicts on one sampler's shard, a row for each completion and aspect, as the answers come."""
    cases: dict[str, Case] = {}

    def keys_of(prompt: Prompt, completions: list[Completion]) -> list[str]:
        own = cases_of(member, [prompt], [completions])
        cases.update(own)
        return list(own)

    await asyncio.wait(answers, return_when=asyncio.FIRST_COMPLETED)
    if all(answer.done() for answer in answers):  # answered by an earlier run, and perhaps judged too
        keys = [
            key for p, answer in zip(prompts, answers, strict=True) for key in keys_of(p, answer.result())
        ]
        if (receipt := stage.sealed(index, keys)) is not None:
            step(len(keys))
            return receipt
    judge = member.build(chat)

    async def verdict(key: str) -> Row:
        return await judge_one(key, cases.pop(key), judge, member.name, stage.fingerprint)

    async def arriving(prompt: Prompt, answer: asyncio.Future[list[Completion]]) -> list[str]:
        return keys_of(prompt, await answer)

    return await follow(stage.open(index), map(arriving, prompts, answers), verdict, step)


async def answer_and_judge(
    run: Run,
    samplers: tuple[Sampler, ...],
    prompts: list[Prompt],
    engine: Engine,
    *,
    judged: bool = True,
    identities: dict[str, dict[str, Any]] | None = None,
) -> list[Answers]:
    """Every sampler's answers to every prompt, and every judge's verdicts on them. Resumes what is there.

    Raises:
        StageFailed: more of a sampler's or judge's rows failed than `max_failed`.
    """
    recipe, members = run.recipe, run.recipe.jury.members if judged else ()
    gates = {sampler.name: asyncio.Semaphore(recipe.shards_in_flight) for sampler in samplers}
    results = [stages_of(run, sampler, members, (identities or {}).get(sampler.name)) for sampler in samplers]
    generating = {s.name: display().add(f"generate {s.name}", len(prompts)) for s in samplers}
    answers = len(prompts) * sum(sampler.n for sampler in samplers)
    judging = {m.name: display().add(f"judge {m.name}", answers * len(m.aspects)) for m in members}

    async def one(own: Answers, index: int, chunk: list[Prompt]) -> None:
        async with gates[own.sampler.name]:
            chat, step = engine.chat(own.sampler.model, GENERATE), generating[own.sampler.name]
            loop = asyncio.get_running_loop()
            answers = {prompt.id: loop.create_future() for prompt in chunk}

            def hand_on(row: Row) -> None:
                answers[row.key].set_result(own.completions_of(row))

            async def answer() -> None:
                own.receipts[index] = await generate_shard(
                    run, own.sampler, own.stage, index, chunk, chat, step, hand_on if members else None
                )

            async def judge(member: Member) -> None:
                asks = engine.chat(member.model, JUDGE) if member.kind == "rating" else None
                stage, step = own.judge_stages[member.name], judging[member.name]
                own.judged.setdefault(member.name, {})[index] = await judge_shard(
                    member, own.sampler.name, stage, index, chunk, list(answers.values()), asks, step
                )

            await together([answer(), *(judge(member) for member in members)])

    async with progress_artifact():
        await together(
            one(own, index, chunk) for index, chunk in shards(prompts, recipe.shard_size) for own in results
        )
    for own in results:
        _check(f"sampler {own.sampler.name}", own.receipts.values(), recipe.max_failed)
        for name, receipts in own.judged.items():
            _check(f"judge {name} on {own.sampler.name}", receipts.values(), recipe.max_failed)
    return results


def _check(who: str, receipts: Collection[Receipt], max_failed: float) -> None:
    rows = sum(receipt.rows for receipt in receipts)
    failed = sum((Counter(receipt.dropped) for receipt in receipts), Counter[str]())
    if rows and sum(failed.values()) > max_failed * rows:
        reasons = ", ".join(f"{count} {reason}" for reason, count in sorted(failed.items()))
        raise StageFailed(
            f"{who}: {sum(failed.values())} of {rows} rows failed ({reasons}), max_failed={max_failed} allows "
            f"{int(max_failed * rows)}; the answers are kept, run the same command to ask only the failed ones again"
        )


async def collect(
    run: Run, facts: Facts, *, judged: bool = True
) -> tuple[list[Prompt], list[Dropped], list[Answers]]:
    """Prompts, answers and, if asked for, judgements of a run, with the stages' counts in the summary."""
    prompts, dropped = gather_prompts(run)
    began = time.monotonic()
    async with open_models(models_of(run.recipe, judged=judged), run.servers, display().say) as engine:
        answers = await answer_and_judge(run, run.recipe.samplers, prompts, engine, judged=judged)
    seconds, asked = time.monotonic() - began, engine.usage.requests
    completions = [receipt for own in answers for receipt in own.receipts.values()]
    judgements = [r for own in answers for receipts in own.judged.values() for r in receipts.values()]
    facts.put("prompts", {"rows": len(prompts), "dropped": dict(Counter(drop.reason for drop in dropped))})
    facts.receipts("generate", completions)
    if judged:
        facts.receipts("judge", judgements)
    facts.spent("generate and judge" if judged else "generate", seconds, asked)
    return prompts, dropped, answers
