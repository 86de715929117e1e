"""Gold answers to questions for a judge, and its rows to scores. No Prefect here."""

from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, fields
from pathlib import Path
from typing import Any

from flows.subject import Subject, model_name
from judges.base import Judge, Verdict
from judges.canaries import best_of, canaries
from judges.compared import Judged
from judges.gold import GoldItem
from judges.jury import Member, Score, combine, combine_prompt
from judges.pairwise import Pairwise
from judges.scores import Cost
from records.ids import chance, fingerprint
from records.schema import Completion, Dropped, Judgement, Prompt, Usage
from records.store import Receipt, Row, Stage
from serving.chat import unpack
from serving.errors import RequestFailed
from serving.settings import Endpoint

Question = tuple[Prompt, tuple[str, ...], str]
"""Prompt, the answers shown, the aspect."""


def questions_of(member: Member, prompt: Prompt, texts: Sequence[str]) -> Iterator[tuple[str, Question]]:
    """What a judge is asked to judge these answers, by key: each alone, or all side by side in this order."""
    shown = [tuple(texts)] if together(member) else [(text,) for text in texts]
    for aspect in member.aspects:
        for one in shown:
            known = [prompt.meta] if prompt.meta else []
            yield fingerprint(prompt.id, one, aspect, member.question(aspect), *known), (prompt, one, aspect)


def together(member: Member) -> bool:
    """Whether the judge sees all answers of a prompt at once, so that order can matter."""
    return member.scope == "prompt"


def ordered(subject: Subject) -> bool:
    """Whether answers must be shown in both orders; a pairwise judge does that itself."""
    return any(together(member) and member.kind != "pairwise" for member in subject.jury.members)


@dataclass
class Asked:
    """One member's rows, as they come."""

    member: Member
    stage: Stage
    questions: dict[str, Question] = field(default_factory=dict)
    gold: set[str] = field(default_factory=set)
    """Keys that are about gold answers, not canaries."""
    rows: dict[str, Row] = field(default_factory=dict)

    def add(self, prompt: Prompt, texts: Sequence[str], *, canary: bool = False) -> None:
        found = dict(questions_of(self.member, prompt, texts))
        self.questions |= found
        if not canary:
            self.gold |= found.keys()

    def judgements(self, prompt: Prompt, texts: Sequence[str], place: int) -> list[Judgement]:
        """Those of the answer at `place`, one per aspect; none where a row failed: fewer aspects are another scale."""
        whole = together(self.member)
        keys = [key for key, _ in questions_of(self.member, prompt, texts if whole else [texts[place]])]
        rows = [self.rows[key].answers for key in keys]
        return [Judgement(**answers[place if whole else 0]) for answers in rows] if all(rows) else []

    def statuses(self) -> list[str]:
        """How each judgement of a gold answer ended."""
        found: list[str] = []
        for key in sorted(self.gold):
            row = self.rows[key]
            if row.dropped is not None:
                found += [row.dropped["reason"]] * len(self.questions[key][1])
            found += [answer["status"] for answer in row.answers]
        return found


def completions_of(prompt: Prompt, texts: Sequence[str]) -> list[Completion]:
    """Ids sort by place, so a judge that sorts by id keeps the order."""
    return [
        Completion(
            id=f"{place:02d}{fingerprint(prompt.id, text)}",
            prompt_id=prompt.id,
            model="gold",
            text=text,
            finish_reason="stop",
            fingerprint="gold",
        )
        for place, text in enumerate(texts)
    ]


async def ask(key: str, question: Question, judge: Judge, member: Member, asked: str) -> Row:
    """One question's verdicts, one per answer shown."""
    prompt, texts, aspect = question
    shown = completions_of(prompt, texts)
    try:
        verdicts = await judge(prompt, shown, aspect)
    except RequestFailed as why:
        reason: Any = why.reason
        return Row(
            key, [], Dropped(id=key, stage="judgements", reason=reason, detail=why.detail).model_dump()
        )
    return Row(
        key,
        [
            Judgement(
                id=fingerprint(asked, key, place),
                prompt_id=prompt.id,
                completion_id=completion.id,
                judge=member.name,
                fingerprint=asked,
                **{one.name: getattr(verdict, one.name) for one in fields(Verdict)},
            ).model_dump(mode="json")
            for place, (completion, verdict) in enumerate(zip(shown, verdicts, strict=True))
        ],
    )


def plan(subject: Subject, items: Sequence[GoldItem], tried: Collection[int], folder: Path) -> list[Asked]:
    """Everything to be asked: gold in order, gold exchanged where it can matter, canaries of the items `tried`."""
    members = []
    for member in subject.jury.members:
        identity = subject.identities.get(model_name(member) or "")
        asked = {"judge": member.asked(), "model": identity, "of": "gold"}
        own = Asked(member, Stage(folder, "judgements", asked))
        for i, item in enumerate(items):
            prompt = item.to_prompt()
            own.add(prompt, item.completions)
            if together(member) and ordered(subject):
                own.add(prompt, item.completions[::-1])
            for texts in canary_cases(item).values() if i in tried else ():
                own.add(prompt, texts, canary=True)
        members.append(own)
    return members


def canary_cases(item: GoldItem) -> dict[str, tuple[str, str]]:
    """Each canary beside the better answer; which stands first is drawn."""
    best = best_of(item)
    if best is None:
        return {}
    better = item.completions[best]
    return {
        name: (text, better) if canary_first(item, name) else (better, text)
        for name, text in canaries(item).items()
    }


def canary_first(item: GoldItem, name: str) -> bool:
    return chance(0, "canary", name, item.to_prompt().id).random() < 0.5


def scores(
    subject: Subject, members: Sequence[Asked], prompt: Prompt, texts: Sequence[str]
) -> tuple[Score, ...]:
    """What the whole judge says of each of these answers, shown in this order."""
    found = [
        [j for own in members for j in own.judgements(prompt, texts, place)] for place in range(len(texts))
    ]
    if subject.jury.standardise == "prompt" and len(members) > 1:
        whole = combine_prompt({str(place): own for place, own in enumerate(found)}, subject.jury)
        return tuple(whole[str(place)] for place in range(len(texts)))
    return tuple(combine(own, subject.jury) for own in found)


def both_orders(
    members: Sequence[Asked], prompt: Prompt, texts: Sequence[str]
) -> dict[tuple[int, int], float | None]:
    """What a pairwise judge said of every two answers in each order, from its stored replies; see `Judged.shown`."""
    member = members[0].member
    if len(members) > 1 or not isinstance(member, Pairwise):
        return {}
    judge, shown = member.build(None), completions_of(prompt, texts)
    said: dict[tuple[int, int], list[float | None]] = {}
    for key, _ in questions_of(member, prompt, texts):
        answers = members[0].rows[key].answers
        replies = unpack(answers[0]["replies"]) if answers and answers[0]["replies"] else None
        for a, b in judge.duels(prompt, shown):
            chances = judge.first_wins(prompt, shown, replies) if replies else {}
            places = shown.index(a), shown.index(b)
            said.setdefault(places, []).append(chances.get((a.id, b.id)))
    whole = {places: [one for one in own if one is not None] for places, own in said.items()}
    return {p: sum(whole[p]) / len(own) if len(whole[p]) == len(own) else None for p, own in said.items()}


def judged_items(
    subject: Subject, members: Sequence[Asked], items: Sequence[GoldItem], tried: Collection[int]
) -> list[Judged]:
    twice = ordered(subject)
    found = []
    for i, item in enumerate(items):
        prompt = item.to_prompt()
        bad: dict[str, tuple[Score, Score]] = {}
        for name, texts in canary_cases(item).items() if i in tried else ():
            one, two = scores(subject, members, prompt, texts)
            bad[name] = (one, two) if canary_first(item, name) else (two, one)
        found.append(
            Judged(
                item=item,
                forward=scores(subject, members, prompt, item.completions),
                backward=scores(subject, members, prompt, item.completions[::-1])[::-1] if twice else None,
                canaries=bad,
                shown=both_orders(members, prompt, item.completions),
            )
        )
    return found


def cost_of(subject: Subject, members: Sequence[Asked], receipts: Mapping[str, list[Receipt]]) -> Cost:
    """Of what lies on disk, the same however often it was interrupted."""
    usage, price, judgements = Usage(), 0.0, 0
    for own in members:
        used = sum((receipt.usage for receipt in receipts[own.member.name]), Usage())
        usage += used
        judgements += sum(receipt.answers for receipt in receipts[own.member.name])
        model = subject.models.get(model_name(own.member) or "")
        if isinstance(model, Endpoint):
            price += (used.prompt_tokens * model.price_in + used.completion_tokens * model.price_out) / 1e6
    return Cost(judgements=judgements, usable_pairs=0, usage=usage, seconds=0.0, price=price)
