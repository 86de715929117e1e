"""The two tasks: one shard answered, one shard judged. A task is a shard, never a request."""

import asyncio
from collections.abc import Awaitable, Callable, Collection
from contextlib import AbstractAsyncContextManager
from typing import Any

from prefect import task
from prefect.cache_policies import NO_CACHE

from flows.answers import Answers, Case, cases_of, generate, judge_one
from flows.run import Run
from flows.stage import Chains, fill, follow
from judges.jury import Member
from records.schema import Completion, Prompt
from records.store import Receipt, Row, Stage
from serving.chat import Chat

Step = Callable[..., None]
"""Told of finished rows."""
Coming = asyncio.Future[list[Completion]]
"""One prompt's answers, as soon as they are there."""

Work = Callable[[], Awaitable[Receipt]]

# The store's receipts decide what is done: they are checked against the files, which a cached task result is not.
SHARD: dict[str, Any] = {"cache_policy": NO_CACHE, "persist_result": False}


async def run_shard(name: str, work: Work) -> Receipt:
    """Prefect looks for futures in all that a task is given, prompt by prompt; a function is not looked into."""
    return await work()


generate_shard = task(name="generate-shard", task_run_name="generate-{name}", **SHARD)(run_shard)
judge_shard = task(name="judge-shard", task_run_name="judge-{name}", **SHARD)(run_shard)


async def answer(
    run: Run,
    own: Answers,
    index: int,
    prompts: list[Prompt],
    chat: Chat,
    step: Step,
    hand_on: Callable[[Row], None] | None = None,
    again: Collection[str] = (),
) -> Receipt:
    """One sampler's answers to one shard of prompts; row i belongs to prompt i. Each is handed on as it comes.

    A row that has fewer answers than are wanted is asked for the rest. `again`: reasons of rows without an answer that
    are asked anew.
    """
    sampler, stage, wanted = own.sampler, own.stage, own.wanted
    keys = [prompt.id for prompt in prompts]

    def short(row: Row) -> bool:
        if row.dropped is not None:
            return row.dropped["reason"] in again
        return not own.imported and len(row.answers) < wanted(row.key)

    if (receipt := stage.sealed(index, keys)) is not None:
        several = any(wanted(key) > 1 for key in keys) or set(again) & receipt.dropped.keys()
        rows = stage.rows(receipt) if several or own.is_short(receipt) or hand_on is not None else []
        if not any(map(short, rows)):
            step(len(keys), there=True)
            if hand_on is not None:
                for row in rows:
                    hand_on(row)
            return receipt
    tell = hand_on or (lambda row: None)
    by_id = {prompt.id: prompt for prompt in prompts}
    shard = stage.open(index, keys, without=short)
    step(shard.taken_over, there=True)
    for key in keys:
        if (row := shard.row(key)) is not None:
            tell(row)

    async def ask(key: str) -> Row:
        before = shard.set_aside(key)
        had = before.answers if before else ()
        row = await generate(by_id[key], sampler, stage.fingerprint, run.recipe.seed, chat, wanted(key), had)
        tell(row)
        return row

    return await fill(shard, ask, step)


async def judge(
    member: Member,
    stage: Stage,
    index: int,
    prompts: list[Prompt],
    answers: list[Coming],
    made_from: Callable[[], Awaitable[str]],
    chat: Chat | None,
    step: Step,
    again: Collection[str] = (),
    chains: Chains | None = None,
) -> Receipt:
    """One judge's verdicts on one shard, a row for each case, as the answers come: of one sampler, or of all.

    `made_from` is for the receipt, see there. `again`: statuses whose judgements are asked anew. `chains`: of
    calls that begin alike.
    """
    cases: dict[str, Case] = {}
    if member.kind == "published":  # there is nobody to ask again
        again = ()

    def keys_of(prompt: Prompt, completions: list[Completion]) -> list[str]:
        own = cases_of(member, [prompt], [completions])
        cases.update(own)
        return list(own)

    await asyncio.wait(answers, return_when=asyncio.FIRST_COMPLETED)
    if all(answer.done() for answer in answers):  # answered by an earlier run, and perhaps judged too
        keys = [
            key for p, answer in zip(prompts, answers, strict=True) for key in keys_of(p, answer.result())
        ]
        receipt = stage.sealed(index, keys, among=True)
        if receipt is not None and not set(again) & {*receipt.statuses, *receipt.dropped}:
            step(len(keys), there=True)
            of = await made_from()
            return stage.certify(receipt, of) if of else receipt
    judge = member.build(chat)

    def failed(row: Row) -> bool:
        if row.dropped is not None:
            return row.dropped["reason"] in again
        return any(answer["status"] in again for answer in row.answers)

    async def verdict(key: str) -> Row:
        return await judge_one(key, cases.pop(key), judge, member.name, stage.fingerprint)

    async def arriving(prompt: Prompt, answer: Coming) -> list[str]:
        return keys_of(prompt, await answer)

    def in_turn(key: str) -> AbstractAsyncContextManager[None]:
        assert chains is not None
        return chains.of(cases[key].prompt.id)

    shard = stage.open(index, without=failed if again else None)
    arrivals = map(arriving, prompts, answers)
    return await follow(shard, arrivals, verdict, step, in_turn if chains else None, made_from)
