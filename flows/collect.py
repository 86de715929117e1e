"""The tasks: one shard answered, one shard judged; and everything of a recipe answered and judged.

Generating and judging have no barrier between them: an answer is judged as soon as it is there, while other rows,
shards and samplers are still being asked, and judge requests go first at every model. Only a judge that sees a prompt's
answers side by side waits for them, shard by shard.
"""

import asyncio
from collections import Counter
from collections.abc import Callable, Collection, Mapping, Sequence
from contextlib import AbstractAsyncContextManager
from typing import Any

from prefect import task
from prefect.cache_policies import NO_CACHE

from flows.answers import Answers, Case, cases_of, generate, judge_one, side_by_side, stages_of
from flows.artifacts import progress_artifact
from flows.progress import display
from flows.readings import Readings
from flows.recipe import Recipe
from flows.run import Run, shards
from flows.stage import Chains, fill, follow, together
from judges.jury import Member
from records.schema import Completion, Prompt
from records.store import Receipt, Row, Stage
from serving.chat import Chat
from serving.engine import Engine
from serving.placement import GENERATE as GENERATES
from serving.placement import JUDGE as JUDGES
from serving.placement import Part
from serving.purse import BudgetSpent
from serving.settings import Adapter, Sampler
from serving.turns import Turns

GENERATE, JUDGE = 1, 0
"""Priorities at a model: open rows are finished before new ones are begun."""


JUDGED = frozenset({"ok", "tie", "not_applicable", "no_answer"})
"""Statuses of a judgement that did not fail."""

Step = Callable[..., None]
"""Told of finished rows."""
Coming = asyncio.Future[list[Completion]]
"""One prompt's answers, as soon as they are there."""


class Work:
    """What is left to be asked of every model, so that each leaves its GPUs when its part is done."""

    def __init__(
        self,
        turns: Turns,
        recipe: Recipe,
        samplers: Sequence[Sampler],
        members: Sequence[Member],
        shards: int,
    ) -> None:
        self._turns, self._recipe = turns, recipe
        self._left: dict[Part, Counter[str]] = {GENERATES: Counter(), JUDGES: Counter()}
        for sampler in samplers:
            self._left[GENERATES][self._server(sampler.model)] += shards
        for member in members:
            if member.asks:
                each = shards * (len(samplers) if member.scope == "completion" else 1)
                self._left[JUDGES][self._server(member.asks)] += each

    async def begin(self) -> None:
        await self._turns.begin(self._left[GENERATES].keys(), self._left[JUDGES].keys())

    def _server(self, model: str) -> str:
        """The model that is served: an adapter's is its base."""
        served = self._recipe.models.get(model)
        return served.served_by if isinstance(served, Adapter) else model

    def streams(self, member: Member, *samplers: Sampler) -> bool:
        """Whether the judge is there while all of these answer, and can judge what comes when it comes."""
        asks = self._server(member.asks) if member.asks else None
        return all(self._turns.schedule.together(self._server(s.model), asks) for s in samplers)

    async def wait_generator(self, sampler: Sampler) -> None:
        await self._turns.wait(self._server(sampler.model), GENERATES)

    async def wait_judge(self, member: Member) -> None:
        if member.asks:
            await self._turns.wait(self._server(member.asks), JUDGES)

    async def generated(self, sampler: Sampler) -> None:
        await self._one_less(self._server(sampler.model), GENERATES)

    async def judged(self, member: Member) -> None:
        if member.asks:
            await self._one_less(self._server(member.asks), JUDGES)

    async def _one_less(self, model: str, part: Part) -> None:
        self._left[part][model] -= 1
        if not self._left[part][model]:
            await self._turns.finished(model, part)


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
    wanted: Callable[[str], int],
    hand_on: Callable[[Row], None] | None = None,
    again: Collection[str] = (),
) -> Receipt:
    """One sampler's answers to one shard of prompts; row i belongs to prompt i. Each is handed on as it comes.

    `wanted`: how many answers a prompt is to have; a row that has fewer is asked for the rest.
    `again`: reasons of rows without an answer that are asked anew.
    """
    keys = [prompt.id for prompt in prompts]

    def short(row: Row) -> bool:
        if row.dropped is not None:
            return row.dropped["reason"] in again
        return len(row.answers) < wanted(row.key)

    if (receipt := stage.sealed(index, keys)) is not None:
        several = any(wanted(key) > 1 for key in keys) or set(again) & receipt.dropped.keys()
        rows = stage.rows(receipt) if several or hand_on is not None else []
        if not any(map(short, rows)):
            step(len(keys))
            if hand_on is not None:
                for row in rows:
                    hand_on(row)
            return receipt
    tell = hand_on or (lambda row: None)
    by_id = {prompt.id: prompt for prompt in prompts}
    shard = stage.open(index, keys, without=short)
    step(shard.taken_over)
    for key in keys:
        if (row := shard.row(key)) is not None:
            tell(row)

    async def answer(key: str) -> Row:
        before = shard.set_aside(key)
        had = before.answers if before else ()
        row = await generate(by_id[key], sampler, stage.fingerprint, run.recipe.seed, chat, wanted(key), had)
        tell(row)
        return row

    return await fill(shard, answer, step)


@task(name="judge-shard", task_run_name="judge-{member.name}-{whose}-{index:05d}", **SHARD)
async def judge_shard(
    member: Member,
    whose: str,
    stage: Stage,
    index: int,
    prompts: list[Prompt],
    answers: list[Coming],
    chat: Chat | None,
    step: Step,
    again: Collection[str] = (),
    chains: Chains | None = None,
) -> Receipt:
    """One judge's verdicts on one shard, a row for each case, as the answers come: of one sampler, or of all.

    `again`: statuses whose judgements are asked anew. `chains`: of calls that begin alike.
    """
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
        receipt = stage.sealed(index, keys, among=True)
        if receipt is not None and not set(again) & {*receipt.statuses, *receipt.dropped}:
            step(len(keys))
            return receipt
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
    return await follow(shard, map(arriving, prompts, answers), verdict, step, in_turn if chains else None)


async def answer_and_judge(
    run: Run,
    samplers: tuple[Sampler, ...],
    prompts: list[Prompt],
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

    A judge that sees answers side by side starts on a shard as soon as every sampler has answered that shard. Where
    models take turns on the GPUs, a judge whose turn comes later reads the answers from the store.

    Raises:
        StageFailed: more of a sampler's or judge's rows failed than `max_failed`, or more of a judge's verdicts could
            not be read than `max_unjudged`.
    """
    recipe, members = run.recipe, run.recipe.jury.members if judged else ()
    gates = {sampler.name: asyncio.Semaphore(recipe.shards_in_flight) for sampler in samplers}
    judge_gates = {member.name: asyncio.Semaphore(recipe.shards_in_flight) for member in members}
    results = stages_of(run, samplers, members, identities)
    chunks = list(shards(prompts, recipe.shard_size))
    for own, before in zip(results, so_far, strict=False):
        own.receipts, own.judged = dict(before.receipts), {n: dict(r) for n, r in before.judged.items()}
    for own in results:
        own.rounds = rounds or {}
    if so_far:
        chunks = [
            (index, chunk)
            for index, chunk in chunks
            if any(results[0].wanted(prompt.id) != so_far[0].wanted(prompt.id) for prompt in chunk)
        ]
        for own in results:
            for index, _ in chunks:
                own.receipts.pop(index, None)
    asked = [prompt for _, chunk in chunks for prompt in chunk]
    generating = {s.name: display().add(f"generate {s.name}", len(asked)) for s in samplers}
    answers = sum(own.wanted(prompt.id) for own in results for prompt in asked)
    rows = {"completion": answers, "prompt": len(asked)}
    judging = {m.name: display().add(f"judge {m.name}", rows[m.scope] * len(m.aspects)) for m in members}
    readings = Readings(run.folder, recipe.models)
    chained = {m.name: Chains(recipe.models[m.asks]) for m in members if m.asks and m.alike}
    work = Work(engine.turns, recipe, samplers, members, len(chunks))
    await work.begin()
    loop = asyncio.get_running_loop()
    answered = {(own.sampler.name, index): loop.create_future() for own in results for index, _ in chunks}

    async def judge(
        whose: Sequence[Answers], member: Member, index: int, chunk: list[Prompt], those: list[Coming]
    ) -> None:
        name = whose[0].sampler.name if member.scope == "completion" else "all"
        stage, step = whose[0].judge_stages[member.name], judging[member.name]
        asks = None
        if member.asks:
            asks = readings.chat(member.name, member.asks, stage, engine.chat(member.asks, JUDGE))
        receipt = await judge_shard(
            member, name, stage, index, chunk, those, asks, step, again, chained.get(member.name)
        )
        for own in whose:
            own.judged.setdefault(member.name, {})[index] = receipt
        found, expected = judge_receipts(results, member.name), answers * len(member.aspects)
        _check_read(member.name, found, recipe.max_unjudged, expected)
        await work.judged(member)

    async def judge_stored(whose: Sequence[Answers], member: Member, index: int, chunk: list[Prompt]) -> None:
        """From what is stored."""
        those: list[Coming] = []
        for completions in side_by_side([own.completions(index) for own in whose]):
            those.append(loop.create_future())
            those[-1].set_result(completions)
        await judge(whose, member, index, chunk, those)

    async def judge_later(whose: Sequence[Answers], member: Member, index: int, chunk: list[Prompt]) -> None:
        """Once everyone has answered the shard and the judge has its turn."""
        for own in whose:
            await answered[own.sampler.name, index]
        await work.wait_judge(member)
        async with judge_gates[member.name]:
            await judge_stored(whose, member, index, chunk)

    side = [m for m in members if m.scope == "prompt" and work.streams(m, *samplers)]

    async def one(own: Answers, index: int, chunk: list[Prompt]) -> None:
        at_once = [m for m in members if m.scope == "completion" and work.streams(m, own.sampler)]
        await work.wait_generator(own.sampler)
        async with gates[own.sampler.name]:
            chat, step = engine.chat(own.sampler.model, GENERATE), generating[own.sampler.name]
            coming: dict[str, Coming] = {prompt.id: loop.create_future() for prompt in chunk}

            def hand_on(row: Row) -> None:
                coming[row.key].set_result(own.completions_of(row))

            async def answer() -> None:
                own.receipts[index] = await generate_shard(
                    run,
                    own.sampler,
                    own.stage,
                    index,
                    chunk,
                    chat,
                    step,
                    own.wanted,
                    hand_on if at_once else None,
                    again,
                )
                answered[own.sampler.name, index].set_result(None)
                await work.generated(own.sampler)
                if all(index in other.receipts for other in results):  # this is the last sampler of the shard
                    await together(judge_stored(results, m, index, chunk) for m in side)

            those = list(coming.values())
            await together([answer(), *(judge([own], member, index, chunk, those) for member in at_once)])

    async with progress_artifact():
        later = [
            judge_later(whose, member, index, chunk)
            for index, chunk in chunks
            for member in members
            for whose in ([results] if member.scope == "prompt" else [[own] for own in results])
            if not work.streams(member, *(own.sampler for own in whose))
        ]
        await together([*(one(own, index, chunk) for index, chunk in chunks for own in results), *later])
    judged_too = [receipt for member in members for receipt in judge_receipts(results, member.name)]
    _check_budget(engine, [receipt for own in results for receipt in own.receipts.values()] + judged_too)
    for own in results:
        _check(f"sampler {own.sampler.name}", own.receipts.values(), recipe.max_failed)
    for member in members:
        for own in results if member.scope == "completion" else results[:1]:
            on = f" on {own.sampler.name}" if member.scope == "completion" else ""
            _check(f"judge {member.name}{on}", own.judged.get(member.name, {}).values(), recipe.max_failed)
        _check_read(member.name, judge_receipts(results, member.name), recipe.max_unjudged)
    return results


def judge_receipts(answers: Sequence[Answers], judge: str) -> list[Receipt]:
    """A judge's receipts, each once: samplers it sees side by side share them."""
    found = [receipt for own in answers for receipt in own.judged.get(judge, {}).values()]
    return list({receipt.name: receipt for receipt in found}.values())


def _check_budget(engine: Engine, receipts: Collection[Receipt]) -> None:
    """Whether rows were left unasked for want of money, in a run that is not to go on without them."""
    missing, rows = sum(r.dropped.get("budget", 0) for r in receipts), sum(r.rows for r in receipts)
    purse = next((lane.purse for lane in engine.lanes.values()), None)
    if missing and purse is not None and not purse.budget.partial:
        name, more = purse.tightest()
        raise BudgetSpent(
            f"budget: {purse.shown()} are spent, and the next request could exceed it. {rows - missing} of {rows} rows "
            f"are there and kept, {missing} were not asked. Add --set budget.{name}={more:g} to the same command to go "
            "on from here, or --set budget.partial=true to go on with what is there"
        )


def _check(who: str, receipts: Collection[Receipt], max_failed: float) -> None:
    rows = sum(receipt.rows for receipt in receipts)
    failed = sum((Counter(receipt.dropped) for receipt in receipts), Counter[str]())
    del failed["budget"]  # not asked, so not failed
    if rows and sum(failed.values()) > max_failed * rows:
        reasons = ", ".join(f"{count} {reason}" for reason, count in sorted(failed.items()))
        raise StageFailed(
            f"{who}: {sum(failed.values())} of {rows} rows failed ({reasons}), max_failed={max_failed} allows "
            f"{int(max_failed * rows)}; the answers are kept, run the same command to ask only the failed ones again"
        )


def _check_read(judge: str, receipts: Collection[Receipt], max_unjudged: float, expected: int = 0) -> None:
    """`expected`: verdicts there will be; what is too much of them stops the run at once."""
    statuses = sum((Counter(receipt.statuses) for receipt in receipts), Counter[str]())
    failed = {status: count for status, count in sorted(statuses.items()) if status not in JUDGED}
    verdicts = sum(statuses.values())
    if sum(failed.values()) > max_unjudged * max(verdicts, expected):
        reasons = ", ".join(f"{count} {status}" for status, count in failed.items())
        allowed = int(max_unjudged * max(verdicts, expected))
        raise StageFailed(
            f"judge {judge}: {sum(failed.values())} of {verdicts} verdicts are none ({reasons}), max_unjudged="
            f"{max_unjudged} allows {allowed}; all are kept. `zephyr show` prints what was asked and answered; "
            "`zephyr judge --retry-failed` asks those again, another judge asks anew"
        )
