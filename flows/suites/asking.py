"""Answers and judgements of the suites: asked, or taken from the run's folder, where all that is answered is kept.

A suite's answers to one turn are one shard of the stage that model and sampling name, and so are its judgements:
another suite, another model or a raised limit costs only what is new.
"""

import zlib
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from typing import Any

from prefect import task

from flows.answers import Case, generate, judge_one
from flows.conduct import JUDGE
from flows.failures import check_failed, check_read
from flows.progress import display
from flows.readings import Readings
from flows.run import Run
from flows.stage import fill
from flows.suites.result import Answered, ToJudge
from flows.tasks import SHARD
from judges.jury import Member
from records.ids import fingerprint
from records.schema import Completion, Judgement, Prompt
from records.store import Receipt, Row, Stage
from serving.chat import Chat
from serving.engine import Engine
from serving.settings import Sampler


class Stages:
    """The folders of one run, each opened once: suites that ask alike fill shards of one folder at one time."""

    def __init__(self, root: str) -> None:
        self._root = root
        self._open: dict[str, Stage] = {}

    def of(self, kind: str, asked: dict[str, Any]) -> Stage:
        key = fingerprint(kind, asked)
        if key not in self._open:
            self._open[key] = Stage(self._root, kind, asked)
        return self._open[key]


@dataclass(frozen=True)
class Sitter:
    """One model while it can be asked."""

    run: Run
    stages: Stages
    name: str
    identity: dict[str, Any]
    chat: Chat
    receipts: list[Receipt] = field(default_factory=list)

    async def answers(
        self, suite: str, prompts: Sequence[Prompt], temperature: float, max_tokens: int
    ) -> dict[str, Completion]:
        """Prompt's id -> answer; none where the model could not be asked.

        Raises:
            StageFailed: more failed than the recipe's `max_failed`; what was answered is kept.
        """
        prompts = list({prompt.id: prompt for prompt in prompts}.values())  # the same text is asked once
        if not prompts:
            return {}
        sampler = Sampler(name=self.name, model=self.name, temperature=temperature, max_tokens=max_tokens)
        stage = self.stages.of("completions", self.run.recipe.asked(sampler, self.identity))
        turn = sum(message.role == "assistant" for message in prompts[0].messages)
        index = _place(suite, temperature, turn)
        receipt = await answer_suite(f"{suite}-{self.name}", stage, index, prompts, sampler, self)
        self.receipts.append(receipt)
        check_failed(f"{self.name} on {suite}", [receipt], self.run.recipe.max_failed)
        named = {"model": self.name}
        rows = stage.rows(receipt)
        return {row.key: Completion.model_validate(row.answers[0] | named) for row in rows if row.answers}


@task(name="answer-suite", task_run_name="answer-{name}", **SHARD)
async def answer_suite(
    name: str, stage: Stage, index: int, prompts: Sequence[Prompt], sampler: Sampler, who: Sitter
) -> Receipt:
    """One model's answers to one turn of a suite, at one temperature."""
    keys, by_id = [prompt.id for prompt in prompts], {prompt.id: prompt for prompt in prompts}
    step = display().add(f"answer {name}", len(keys), sampler.model)
    if (receipt := stage.sealed(index, keys)) is not None:
        step(len(keys), there=True)
        return receipt
    shard = stage.open(index, keys)
    step(shard.taken_over, there=True)

    async def ask(key: str) -> Row:
        return await generate(by_id[key], sampler, stage.fingerprint, who.run.recipe.seed, who.chat)

    return await fill(shard, ask, step)


class Judging:
    """The judges of the suites while their models can be asked."""

    def __init__(self, run: Run, stages: Stages, engine: Engine) -> None:
        self._run, self._stages, self._engine = run, stages, engine
        self._readings = Readings(run.folder, run.recipe.models)
        self.receipts: list[Receipt] = []

    async def judged(self, suite: str, cases: Sequence[ToJudge]) -> list[Answered]:
        """The answers in the cases' order, each with its judgement; without one where the judge could not be asked.

        Raises:
            StageFailed: more failed than `max_failed`, or could not be read than `max_unjudged`; all is kept.
        """
        rows: dict[int, Row] = {}
        members: dict[str, Member] = {str(one.member.asked()): one.member for one in cases}
        for asked, member in members.items():
            own = {i: one.case for i, one in enumerate(cases) if str(one.member.asked()) == asked}
            keys = {i: case.key(member) for i, case in own.items()}
            found = await self._rows(suite, member, {keys[i]: case for i, case in own.items()})
            rows |= {i: found[key] for i, key in keys.items()}
        return [replace(one.answer, judgement=_of(rows[i], one.answer)) for i, one in enumerate(cases)]

    async def _rows(self, suite: str, member: Member, cases: dict[str, Case]) -> dict[str, Row]:
        assert member.asks
        identity = self._run.recipe.models[member.asks].identity
        asked = {"judge": member.asked(), "model": identity, "of": "suites"}
        stage = self._stages.of("judgements", asked)
        asks = self._engine.chat(member.asks, JUDGE)
        chat = self._readings.chat(member.name, member.asks, stage, asks)
        receipt = await judge_suite(suite, stage, _place(suite), cases, member, chat)
        self.receipts.append(receipt)
        check_failed(f"judge {member.name} on {suite}", [receipt], self._run.recipe.max_failed)
        statuses = Counter(receipt.statuses)
        check_read(f"{member.name} on {suite}", statuses, self._run.recipe.max_unjudged)
        return {row.key: row for row in stage.rows(receipt)}


@task(name="judge-suite", task_run_name="judge-{suite}", **SHARD)
async def judge_suite(
    suite: str, stage: Stage, index: int, cases: dict[str, Case], member: Member, chat: Chat
) -> Receipt:
    """One judge's verdicts on one suite, all models' answers together."""
    keys = list(cases)
    step = display().add(f"judge {suite}", len(keys), member.asks or "")
    if (receipt := stage.sealed(index, keys)) is not None:
        step(len(keys), there=True)
        return receipt
    shard, judge = stage.open(index, keys), member.build(chat)
    step(shard.taken_over, there=True)

    async def ask(key: str) -> Row:
        return await judge_one(key, cases[key], judge, member.name, stage.fingerprint)

    return await fill(shard, ask, step)


def _of(row: Row, answer: Answered) -> Judgement | None:
    assert answer.completion is not None
    own = [one for one in row.answers if one["completion_id"] == answer.completion.id]
    return Judgement.model_validate(own[0]) if own else None


def _place(*names: object) -> int:
    """A suite's shard among those of its folder; two that meet only take each other's file for an earlier list's."""
    return zlib.crc32("/".join(map(str, names)).encode()) % 100_000
