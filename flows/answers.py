"""Requests to rows and rows to records: what one prompt's answers and one answer's judgements are. No Prefect here."""

from dataclasses import dataclass, field
from typing import Any

from flows.run import Run
from judges.base import Judge, Verdict
from judges.jury import Member
from prompts.principle import draw_principle
from records.ids import fingerprint, seed_of
from records.schema import Completion, Dropped, Judgement, Message, Prompt
from records.store import Receipt, Row, Stage
from serving.chat import Chat, Request
from serving.errors import RequestFailed
from serving.settings import Sampler


@dataclass
class Answers:
    """One sampler's part of a run: its stages, and the receipts of their shards."""

    sampler: Sampler
    stage: Stage
    judge_stages: dict[str, Stage]
    """By judge's name."""
    receipts: dict[int, Receipt] = field(default_factory=dict)
    judged: dict[str, dict[int, Receipt]] = field(default_factory=dict)
    """Judge -> shard -> receipt."""

    def completions(self, index: int) -> list[list[Completion]]:
        """Each prompt's completions in one shard, in the prompts' order; empty where a prompt was dropped.

        They carry the sampler's name of now; the folder may hold answers asked under an earlier one.
        """
        return [self.completions_of(row) for row in self.stage.rows(self.receipts[index])]

    def completions_of(self, row: Row) -> list[Completion]:
        """One prompt's completions, as one row holds them."""
        name = {"model": self.sampler.name}
        return [Completion.model_validate(answer | name) for answer in row.answers]

    def judgements(self, index: int) -> dict[str, list[Judgement]]:
        """Every judge's judgements of one shard, by completion id."""
        found: dict[str, list[Judgement]] = {}
        for name, receipts in self.judged.items():
            for row in self.judge_stages[name].rows(receipts[index]):
                for answer in row.answers:
                    judgement = Judgement.model_validate(answer | {"judge": name})
                    found.setdefault(judgement.completion_id, []).append(judgement)
        return found


def stages_of(
    run: Run, sampler: Sampler, members: tuple[Member, ...], identity: dict[str, Any] | None = None
) -> Answers:
    """Where one sampler's answers and their judgements lie."""
    stage = run.completions_stage(sampler, identity)
    return Answers(sampler, stage, {m.name: run.judgements_stage(m, stage.fingerprint) for m in members})


def stored(run: Run) -> list[Answers]:
    """What lies in the run's folder, answered and judged by all; nothing is asked."""
    results = []
    for sampler in run.recipe.samplers:
        own = stages_of(run, sampler, run.recipe.jury.members)
        index = 0
        while (receipt := own.stage.receipt(index)) is not None:
            judged = {name: stage.receipt(index) for name, stage in own.judge_stages.items()}
            if all(judged.values()):
                own.receipts[index] = receipt
                for name, one in judged.items():
                    if one is not None:
                        own.judged.setdefault(name, {})[index] = one
            index += 1
        results.append(own)
    return results


async def generate(prompt: Prompt, sampler: Sampler, asked: str, seed: int, chat: Chat) -> Row:
    """One sampler's n answers to one prompt."""
    principle = draw_principle(sampler.principle, prompt.id, seed, asked)
    messages = with_principle(prompt, principle.text if principle else None)
    request = Request(
        messages=tuple(message.model_dump() for message in messages),
        temperature=sampler.temperature,
        top_p=sampler.top_p,
        max_tokens=sampler.max_tokens,
        n=sampler.n,
        seed=seed_of(sampler.seed, asked, prompt.id),
        stop=sampler.stop,
    )
    try:
        reply = await chat(request)
    except RequestFailed as why:
        return Row(prompt.id, [], _dropped(prompt.id, "completions", why))
    usages = _shares(reply.usage.model_dump(), len(reply.choices))
    return Row(
        prompt.id,
        [
            Completion(
                id=fingerprint(asked, prompt.id, sample),
                prompt_id=prompt.id,
                model=sampler.name,
                sample=sample,
                text=choice.text.strip(),
                finish_reason=choice.finish_reason,
                usage=usage,  # type: ignore[arg-type]
                principle=principle.name if principle else None,
                seed=request.seed,
                fingerprint=asked,
            ).model_dump(mode="json")
            for sample, (choice, usage) in enumerate(zip(reply.choices, usages, strict=True))
        ],
    )


def with_principle(prompt: Prompt, principle: str | None) -> tuple[Message, ...]:
    """The conversation a model is asked: a principle goes before the prompt's own system turn, in one turn."""
    if principle is None:
        return prompt.messages
    first, rest = prompt.messages[0], prompt.messages[1:]
    if first.role != "system":
        return (Message(role="system", content=principle), *prompt.messages)
    return (Message(role="system", content=f"{principle}\n\n{first.content}"), *rest)


@dataclass(frozen=True, slots=True)
class Case:
    """One completion to be judged on one aspect."""

    prompt: Prompt
    completion: Completion
    aspect: str


def cases_of(member: Member, prompts: list[Prompt], completions: list[list[Completion]]) -> dict[str, Case]:
    """What a judge has to judge in a shard, by key: completions in order, the aspects of one side by side.

    A key stands for this completion with this text under this question. A sampled text can differ when it is asked
    anew, and another aspect is another key, so a new aspect costs only its own calls.
    """
    return {
        fingerprint(completion.id, completion.text, aspect, member.question(aspect)): Case(
            prompt, completion, aspect
        )
        for prompt, own in zip(prompts, completions, strict=True)
        for completion in own
        for aspect in member.aspects
    }


async def judge_one(key: str, case: Case, judge: Judge, name: str, asked: str) -> Row:
    """One judge's verdict on one completion and aspect."""
    try:
        (verdict,) = await judge(case.prompt, [case.completion], case.aspect)
    except RequestFailed as why:
        return Row(key, [], _dropped(case.completion.id, "judgements", why))
    return Row(key, [_judgement(verdict, key, case.completion, name, asked).model_dump(mode="json")])


def _judgement(verdict: Verdict, key: str, completion: Completion, judge: str, asked: str) -> Judgement:
    return Judgement(
        id=fingerprint(asked, key),
        prompt_id=completion.prompt_id,
        completion_id=completion.id,
        judge=judge,
        fingerprint=asked,
        **{name: getattr(verdict, name) for name in verdict.__slots__},
    )


def _dropped(key: str, stage: str, why: RequestFailed) -> dict[str, str]:
    return Dropped(id=key, stage=stage, reason=why.reason, detail=why.detail).model_dump()  # type: ignore[arg-type]


def _shares(usage: dict[str, int], n: int) -> list[dict[str, int]]:
    """A request's usage split over its n answers, so that sums over rows stay true."""
    return [{name: value // n + (i < value % n) for name, value in usage.items()} for i in range(n)]
