"""Requests to rows and rows to records: what one prompt's answers and one answer's judgements are. No Prefect here."""

from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from flows.run import Run
from judges.base import Judge, Settings, Verdict
from judges.jury import Member
from prompts.principle import Principle, draw_principle, origin_of
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
    identity: dict[str, Any]
    """Of the model behind it."""
    stage: Stage
    judge_stages: dict[str, Stage]
    """By judge's name. Judges that see all completions side by side have one for all samplers."""
    receipts: dict[int, Receipt] = field(default_factory=dict)
    judged: dict[str, dict[int, Receipt]] = field(default_factory=dict)
    """Judge -> shard -> receipt."""
    aspects: Mapping[str, Sequence[str]] = field(default_factory=dict)
    """Judge -> the aspects that count; its folder may hold more."""
    rounds: Mapping[str, int] = field(default_factory=dict)
    """Prompt's id -> times the sampler's n that count; 1 where there is none. The folder may hold more."""
    drawn: Callable[[str], Collection[str]] | None = None
    """Prompt's id -> names of the samplers that answer it; None: this one answers all."""

    @property
    def imported(self) -> bool:
        """Its answers were brought in and keep the names of the models that wrote them; there are no others."""
        return "imported" in self.identity

    @property
    def uneven(self) -> bool:
        """Whether prompts are to have different numbers of answers."""
        return bool(self.rounds) or self.drawn is not None

    def is_short(self, receipt: Receipt) -> bool:
        """Whether a finished shard has rows without an answer that were not asked then, and now may be."""
        return not self.imported and receipt.answers + sum(receipt.dropped.values()) < receipt.rows

    def wanted(self, prompt: str) -> int:
        """Answers of a prompt that count."""
        if self.drawn is not None and self.sampler.name not in self.drawn(prompt):
            return 0
        return self.sampler.n * self.rounds.get(prompt, 1)

    def completions(self, index: int) -> list[list[Completion]]:
        """Each prompt's completions in one shard, in the prompts' order; empty where a prompt was dropped.

        They carry the sampler's name of now; the folder may hold answers asked under an earlier one.
        """
        return [self.completions_of(row) for row in self.stage.rows(self.receipts[index])]

    def completions_of(self, row: Row) -> list[Completion]:
        """One prompt's completions, as one row holds them; no more than are wanted."""
        if self.imported:
            return [Completion.model_validate(answer) for answer in row.answers]
        name = {"model": self.sampler.name}
        return [Completion.model_validate(answer | name) for answer in row.answers[: self.wanted(row.key)]]

    def judgements(self, index: int) -> dict[str, list[Judgement]]:
        """Every judge's judgements of one shard, by completion id; of other samplers' too where they share a stage."""
        found: dict[str, list[Judgement]] = {}
        for name, receipts in self.judged.items():
            for row in self.judge_stages[name].rows(receipts[index]):
                for answer in row.answers:
                    if answer["aspect"] not in self.aspects[name]:
                        continue
                    judgement = Judgement.model_validate(answer | {"judge": name})
                    found.setdefault(judgement.completion_id, []).append(judgement)
        return found


def side_by_side(samplers: Sequence[Sequence[Sequence[Completion]]]) -> list[list[Completion]]:
    """Each prompt's completions by all samplers, from each sampler's completions of each prompt."""
    return [[c for own in of_one for c in own] for of_one in zip(*samplers, strict=True)]


def stages_of(
    run: Run,
    samplers: Sequence[Sampler],
    members: Sequence[Member],
    identities: Mapping[str, dict[str, Any]] | None = None,
) -> list[Answers]:
    """Where every sampler's answers and their judgements lie. `identities`: of models that are not the recipe's."""
    known = identities or {}
    stages = [run.completions_stage(sampler, known.get(sampler.name)) for sampler in samplers]
    some = run.recipe.samplers_per_prompt is not None and samplers == run.recipe.samplers
    drawn = (
        run.recipe.draw_samplers() if some else None
    )  # where all answer, receipts alone say what is finished
    every = [stage.fingerprint for stage in stages]
    shared = {m.name: run.judgements_stage(m, every) for m in members if m.scope == "prompt"}
    return [
        Answers(
            sampler,
            known.get(sampler.name) or run.recipe.models[sampler.model].identity,
            stage,
            {m.name: shared.get(m.name) or run.judgements_stage(m, [stage.fingerprint]) for m in members},
            aspects={m.name: m.aspects for m in members},
            drawn=drawn,
        )
        for sampler, stage in zip(samplers, stages, strict=True)
    ]


def stored(run: Run) -> list[Answers]:
    """What lies in the run's folder, answered and judged by all; nothing is asked."""
    results = stages_of(run, run.recipe.samplers, run.recipe.judges)
    for own in results:
        index = 0
        while (receipt := own.stage.receipt(index)) is not None:
            judged = {name: stage.receipt(index) for name, stage in own.judge_stages.items()}
            if all(judged.values()):
                own.receipts[index] = receipt
                for name, one in judged.items():
                    if one is not None:
                        own.judged.setdefault(name, {})[index] = one
            index += 1
    if run.recipe.rounds_at_most > 1:
        rounds = _rounds_of(results, run.recipe.rounds_at_most)
        for own in results:
            own.rounds = rounds
    return results


def _rounds_of(results: Sequence[Answers], most: int) -> dict[str, int]:
    """Prompt's id -> rounds that were asked, as the length of its longest row shows; `most` at most."""
    found: dict[str, int] = {}
    for own in results:
        for row in (row for receipt in own.receipts.values() for row in own.stage.rows(receipt)):
            asked = min(most, max(1, len(row.answers) // own.sampler.n))
            found[row.key] = max(asked, found.get(row.key, 1))
    return found


async def generate(
    prompt: Prompt,
    sampler: Sampler,
    asked: str,
    seed: int,
    chat: Chat,
    wanted: int | None = None,
    had: Sequence[dict[str, Any]] = (),
) -> Row:
    """One sampler's answers to one prompt: those it `had`, and as many more as are `wanted`; None: its n.

    All are asked for in one request, so that the prompt is read once; a server that gives fewer than it was asked for
    is asked for the rest. Where that fails, the row is left short with what it has, and the next run goes on.
    """
    principle = principle_of(prompt, sampler, seed, asked)
    messages = with_principle(prompt, principle.text if principle else None)
    answers = list(had)
    wanted = sampler.n if wanted is None else wanted
    while (first := len(answers)) < wanted:
        request = Request(
            messages=tuple(message.model_dump() for message in messages),
            temperature=sampler.temperature,
            top_p=sampler.top_p,
            max_tokens=sampler.max_tokens,
            n=wanted - first,
            seed=seed_of(sampler.seed, asked, prompt.id, *((first,) if first else ())),
            stop=sampler.stop,
            about=prompt.id,
        )
        try:
            reply = await chat(request)
        except RequestFailed as why:
            return Row(prompt.id, answers, None if answers else _dropped(prompt.id, "completions", why))
        usages = reply.usage.split(len(reply.choices))
        for sample, (choice, usage) in enumerate(zip(reply.choices, usages, strict=True), start=first):
            completion = Completion(
                id=fingerprint(asked, prompt.id, sample),
                prompt_id=prompt.id,
                model=sampler.name,
                sample=sample,
                text=choice.text.strip(),
                finish_reason=choice.finish_reason,
                usage=usage,
                principle=principle.name if principle else None,
                principle_text=principle.text if principle else None,
                seed=request.seed,
                fingerprint=asked,
            )
            answers.append(completion.model_dump(mode="json"))
    return Row(prompt.id, answers)


def principle_of(prompt: Prompt, sampler: Sampler, seed: int, asked: str) -> Principle | None:
    """What one prompt is asked under."""
    return draw_principle(sampler.principle, prompt.id, seed, asked, source=origin_of(prompt))


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
    """What a judge judges in one call on one aspect: a completion, or all of a prompt."""

    prompt: Prompt
    completions: tuple[Completion, ...]
    aspect: str

    def key(self, member: Settings) -> str:
        """Stands for these completions with these texts under this question.

        A sampled text can differ when it is asked anew, and another aspect is another key, so a new aspect costs only
        its own calls. What the judge reads of the prompt's `meta` counts too.
        """
        asked = (self.aspect, member.question(self.aspect))
        read = member.context(self.prompt, self.aspect)
        more = () if read is None else (read,)
        if member.scope == "completion":
            (one,) = self.completions
            return fingerprint(one.id, one.text, *asked, *more)
        seen = sorted((completion.id, completion.text) for completion in self.completions)
        return fingerprint(self.prompt.id, seen, *asked, *more)


def cases_of(
    member: Member, prompts: Sequence[Prompt], completions: Sequence[Sequence[Completion]]
) -> dict[str, Case]:
    """What a judge has to judge in a shard, by key: prompts in order, the aspects of one side by side.

    `completions`: of each prompt; one sampler's, or all samplers' for a judge that sees them side by side.
    """
    cases = [
        Case(prompt, together, aspect)
        for prompt, own in zip(prompts, completions, strict=True)
        for together in _calls(member, own)
        for aspect in member.aspects
    ]
    return {case.key(member): case for case in cases}


def _calls(member: Member, completions: Sequence[Completion]) -> list[tuple[Completion, ...]]:
    if member.scope == "completion":
        return [(completion,) for completion in completions]
    return [tuple(sorted(completions, key=lambda completion: completion.id))] if completions else []


async def judge_one(key: str, case: Case, judge: Judge, name: str, asked: str) -> Row:
    """One judge's verdicts of one case."""
    try:
        verdicts = await judge(case.prompt, case.completions, case.aspect)
    except RequestFailed as why:
        id = case.completions[0].id if len(case.completions) == 1 else case.prompt.id
        return Row(key, [], _dropped(id, "judgements", why))
    return row_of(key, case, verdicts, name, asked)


def row_of(key: str, case: Case, verdicts: Sequence[Verdict], judge: str, asked: str) -> Row:
    """A judgement for each of the case's completions."""
    return Row(
        key,
        [
            Judgement(
                id=fingerprint(asked, key, *(() if len(case.completions) == 1 else (completion.id,))),
                prompt_id=completion.prompt_id,
                completion_id=completion.id,
                judge=judge,
                fingerprint=asked,
                **{name: getattr(verdict, name) for name in verdict.__slots__},
            ).model_dump(mode="json")
            for completion, verdict in zip(case.completions, verdicts, strict=True)
        ],
    )


def _dropped(key: str, stage: str, why: RequestFailed) -> dict[str, str]:
    return Dropped(id=key, stage=stage, reason=why.reason, detail=why.detail).model_dump()  # type: ignore[arg-type]
