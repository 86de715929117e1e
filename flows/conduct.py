"""Which shards of a run are finished, which are asked and in what order, and what follows when one is answered.

What is finished is known from receipts alone; its files are compared with them while the rest is being asked.
"""

import asyncio
import logging
from collections import Counter
from collections.abc import Awaitable, Callable, Collection, Iterable, Sequence
from dataclasses import dataclass
from functools import partial

from flows.answers import Answers, side_by_side
from flows.events import tell
from flows.failures import check_read, half_unread
from flows.inputs import Prompts
from flows.progress import display
from flows.readings import Readings
from flows.run import Run
from flows.stage import Chains, together
from flows.tasks import Coming, answer, generate_shard, judge, judge_shard, run_shard
from flows.work import Work
from judges.jury import Member
from records.ids import fingerprint
from records.schema import Completion, Prompt
from records.store import Receipt, Row, Stage
from serving.engine import Engine

log = logging.getLogger(__name__)

GENERATE, JUDGE = 1, 0
"""Priorities at a model: open rows are finished before new ones are begun."""

Job = Callable[[], Awaitable[None]]


@dataclass(frozen=True)
class Case:
    """One shard for one judge."""

    member: Member
    whose: Sequence[Answers]
    """One sampler, or all that the judge sees side by side."""
    index: int

    @property
    def stage(self) -> Stage:
        return self.whose[0].judge_stages[self.member.name]


class Conductor:
    """The shards of one run, for every sampler and judge."""

    def __init__(
        self,
        run: Run,
        prompts: Prompts,
        engine: Engine,
        results: list[Answers],
        members: Sequence[Member],
        again: Collection[str],
        shards: Collection[int],
        *,
        plain: bool = False,
    ) -> None:
        """`again`: statuses that are judged anew. `shards`: those to go through. `plain`: without Prefect."""
        self._generate_shard, self._judge_shard = generate_shard, judge_shard
        self._plain = plain
        self._failing: set[str] = set()
        """Judges of which it was told that many of their verdicts are none."""
        if plain:
            self._generate_shard = self._judge_shard = run_shard
        self.run, self.prompts, self.engine, self.results, self.again = run, prompts, engine, results, again
        self.shards = shards
        self.verdicts = {member.name: Counter[str]() for member in members}
        """Statuses so far, by judge."""
        self.finished: list[tuple[Stage, Receipt]] = []
        """Shards of earlier runs, taken over by their receipts."""
        self._members = members
        self._readings = Readings(run.folder, run.recipe.models)
        self._work = Work(engine.turns, run.recipe)
        self._chained = {m.name: Chains(run.recipe.models[m.asks]) for m in members if m.asks and m.alike}
        self._answered: dict[tuple[str, int], asyncio.Future[None]] = {}
        self._arriving: dict[tuple[str, int], list[Coming]] = {}
        """Of the shards that are being answered, prompt by prompt."""
        self._begun = Counter[int]()
        """Shard -> samplers that answer it, or did."""
        rows = sum(prompts.receipts[index].rows for index in shards)
        answers = sum(map(self._wanted, results))
        count = {"completion": answers, "prompt": rows}
        self._expected = {member.name: answers * len(member.aspects) for member in members}
        self._generated = {
            own.sampler.name: display().add(f"generate {own.sampler.name}", rows, own.sampler.model)
            for own in results
        }
        self._judged = {
            member.name: display().add(
                f"judge {member.name}", count[member.scope] * len(member.aspects), member.asks or ""
            )
            for member in members
        }

    async def conduct(self) -> None:
        """Ask everything that is missing, `shards_in_flight` shards of each sampler and judge at a time.

        Raises:
            StageFailed: more of a judge's verdicts could not be read than `max_unjudged`.
            StoreError: a file of a finished shard is gone or was edited.
        """
        asked, judged = await asyncio.to_thread(self._open)
        for own, shards in zip(self.results, asked, strict=True):
            self._work.to_generate(own.sampler, len(shards))
            for index in shards:
                self._answered[own.sampler.name, index] = asyncio.get_running_loop().create_future()
        for case in judged:
            self._work.to_judge(case.member, 1)
        await self._work.begin()
        jobs: list[Sequence[Job]] = [
            [partial(self._answer, own, index) for index in shards]
            for own, shards in zip(self.results, asked, strict=True)
        ]
        jobs += [
            [
                partial(self._judge_stored, case)
                for case in judged
                if case.member is member and not self._streams(case)
            ]
            for member in self._members
        ]
        await together([self._check_finished(), *map(self._so_many, jobs)])

    def _open(self) -> tuple[list[list[int]], list[Case]]:
        """Shards that each sampler has to answer, and what judges have to judge; the others are taken over."""
        asked: list[list[int]] = [[] for _ in self.results]
        judged: list[Case] = []
        for index in self.shards:
            for own, shards in zip(self.results, asked, strict=True):
                receipt = own.stage.finished(index, key_digest=self.prompts.receipts[index].key_digest)
                # rows of several answers may be short of some, which only they tell
                failed = set(self.again) & receipt.dropped.keys() if receipt else set()
                several = own.sampler.n > 1 or own.uneven
                if receipt is None or failed or several or own.is_short(receipt):
                    shards.append(index)
                    continue
                self.finished.append((own.stage, receipt))
                own.receipts[index] = receipt
                self._generated[own.sampler.name](receipt.rows)
            for member in self._members:
                several = [self.results] if member.scope == "prompt" else [[own] for own in self.results]
                judged += [c for whose in several if not self._is_judged(c := Case(member, whose, index))]
        return asked, judged

    def _streams(self, case: Case) -> bool:
        """Whether its answers are judged as they come, or as soon as the last sampler has answered."""
        asked = any((own.sampler.name, case.index) in self._answered for own in case.whose)
        return asked and self._work.streams(case.member, *(own.sampler for own in case.whose))

    def _is_judged(self, case: Case) -> bool:
        """Whether a judge's shard is finished; it is then taken over."""
        if not all(case.index in own.receipts for own in case.whose) or not (
            of := made_from(self.prompts, case)
        ):
            return False
        receipt = case.stage.finished(case.index, of=of)
        if receipt is None or set(self.again) & {*receipt.statuses, *receipt.dropped}:
            return False
        self.finished.append((case.stage, receipt))
        self._judged[case.member.name](receipt.rows)
        self._take(case, receipt)
        return True

    def _take(self, case: Case, receipt: Receipt) -> None:
        name = case.member.name
        for own in case.whose:
            own.judged.setdefault(name, {})[case.index] = receipt
        statuses, most = self.verdicts[name], self.run.recipe.max_unjudged
        statuses.update(receipt.statuses)
        if (
            name not in self._failing
            and half_unread(statuses, most, self._expected[name])
            and not self._plain
        ):
            self._failing.add(name)
            tell("judge.failing", self.run, judge=name, statuses=dict(statuses), max_unjudged=most)
        check_read(name, statuses, most, self._expected[name])

    async def _check_finished(self) -> None:
        for stage, receipt in self.finished:
            await asyncio.to_thread(stage.check, receipt)

    async def _so_many(self, jobs: Iterable[Job]) -> None:
        waiting = iter(jobs)

        async def work() -> None:
            for job in waiting:
                await job()

        await together(work() for _ in range(self.run.recipe.shards_in_flight))

    async def _answer(self, own: Answers, index: int) -> None:
        """One shard of one sampler, and what judges say of it as it comes."""
        await self._work.wait_generator(own.sampler)
        chunk = await asyncio.to_thread(self.prompts.shard, index)
        loop, name = asyncio.get_running_loop(), own.sampler.name
        several = [Case(m, self.results, index) for m in self._members if m.scope == "prompt"]
        several = [case for case in several if self._streams(case)]
        alone = [Case(m, [own], index) for m in self._members if m.scope == "completion"]
        at_once = [case for case in alone if self._streams(case)]
        coming: dict[str, Coming] = {prompt.id: loop.create_future() for prompt in chunk}

        def hand_on(row: Row) -> None:
            coming[row.key].set_result(own.completions_of(row))

        self._arriving[name, index] = [*coming.values()]
        self._begun[index] += 1
        everyone = sum((other.sampler.name, index) in self._answered for other in self.results)
        last = self._begun[index] == everyone  # who keeps a place until all is judged: nobody runs far ahead

        async def generate() -> None:
            chat, step = self.engine.chat(own.sampler.model, GENERATE), self._generated[name]
            tell = hand_on if at_once or several else None
            work = partial(answer, self.run, own, index, chunk, chat, step, tell, self.again)
            own.receipts[index] = await self._generate_shard(f"{name}-{index:05d}", work)
            self._say("generate", name, own.receipts[index])
            del self._arriving[name, index]
            self._answered[name, index].set_result(None)
            await self._work.generated(own.sampler)

        judging = [self._judge(case, chunk, [*coming.values()]) for case in at_once]
        judging += [self._judge_arriving(case, chunk) for case in several if last]
        await together([generate(), *judging])

    async def _judge_arriving(self, case: Case, chunk: list[Prompt]) -> None:
        """As everyone answers the shard: each prompt when the last of its answers is there."""
        await self._work.wait_judge(case.member)
        of_all: list[list[Coming]] = []
        for own in case.whose:
            if (arriving := self._arriving.get((own.sampler.name, case.index))) is None:
                arriving = [_there(own) for own in await asyncio.to_thread(own.completions, case.index)]
            of_all.append(arriving)
        await self._judge(case, chunk, [_joined(parts) for parts in zip(*of_all, strict=True)])

    async def _judge_stored(self, case: Case) -> None:
        """Once everyone has answered the shard and the judge has its turn, from what is stored."""
        for own in case.whose:
            if (answered := self._answered.get((own.sampler.name, case.index))) is not None:
                await answered
        await self._work.wait_judge(case.member)
        chunk = await asyncio.to_thread(self.prompts.shard, case.index)
        every = [await asyncio.to_thread(own.completions, case.index) for own in case.whose]
        await self._judge(case, chunk, [_there(completions) for completions in side_by_side(every)])

    async def _judge(self, case: Case, chunk: list[Prompt], answers: list[Coming]) -> None:
        member, whose, index = case.member, case.whose, case.index
        chat = None
        if member.asks:
            asks = self.engine.chat(member.asks, JUDGE)
            chat = self._readings.chat(member.name, member.asks, case.stage, asks)

        async def of_what() -> str:
            for own in whose:
                if (answered := self._answered.get((own.sampler.name, index))) is not None:
                    await answered
            return made_from(self.prompts, case)

        step = self._judged[member.name]
        name = whose[0].sampler.name if member.scope == "completion" else "all"
        chained = self._chained.get(member.name)
        work = partial(
            judge, member, case.stage, index, chunk, answers, of_what, chat, step, self.again, chained
        )
        receipt = await self._judge_shard(f"{member.name}-{name}-{index:05d}", work)
        self._say("judge", f"{member.name} {name}", receipt)
        self._take(case, receipt)
        await self._work.judged(member)

    def _say(self, stage: str, who: str, receipt: Receipt) -> None:
        """One line of the log for a shard; what is not an answer is counted by its reason."""
        counts = ", ".join(f"{count} {what}" for what, count in (receipt.statuses | receipt.dropped).items())
        log.info(
            "%s: %s %s shard %05d: %d rows, %d answers, %d tokens; %s", self.run.recipe.name, stage, who,
            receipt.index, receipt.rows, receipt.answers, receipt.usage.completion_tokens, counts or "all answered",
        )  # fmt: skip

    def _wanted(self, own: Answers) -> int:
        """Answers of one sampler in these shards."""
        if own.uneven:
            return sum(own.wanted(prompt.id) for index in self.shards for prompt in self.prompts.shard(index))
        return own.sampler.n * sum(self.prompts.receipts[index].rows for index in self.shards)


def made_from(prompts: Prompts, case: Case) -> str:
    """Digest of all that decides a judge's cases in one shard; empty where that is more than files."""
    if any(own.uneven for own in case.whose):
        return ""
    answered = [(own.receipts[case.index].digest, own.sampler.n) for own in case.whose]
    asked = [(aspect, case.member.question(aspect)) for aspect in case.member.aspects]
    return fingerprint(prompts.receipts[case.index].digest, answered, asked)


def _there(completions: list[Completion]) -> Coming:
    """One prompt's answers that are there already."""
    coming: Coming = asyncio.get_running_loop().create_future()
    coming.set_result(completions)
    return coming


def _joined(parts: Sequence[Coming]) -> Coming:
    """One prompt's answers by all samplers, in their order, when the last of them are there."""
    whole: Coming = asyncio.get_running_loop().create_future()

    def look(_: Coming) -> None:
        if all(part.done() and not part.cancelled() for part in parts) and not whole.done():
            whole.set_result([completion for part in parts for completion in part.result()])

    for part in parts:
        part.add_done_callback(look)
    return whole
