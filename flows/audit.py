"""From an answer back to what its judges were asked and said, and where judging failed. Reads what is stored."""

from collections import Counter
from collections.abc import Iterable, Mapping

from flows.dataset import Judged
from judges.base import Asking
from judges.jury import Member
from records.schema import Completion
from reports.data import Answer, Verdict

WORDS = (0, 25, 50, 100, 200, 400)
"""Bounds of the groups of answers by length."""


def prompts_of(member: Member, case: Judged, completion: Completion, aspect: str) -> list[str]:
    """The judge's exact prompts about one answer; several for one that compares it with others, none for rules."""
    judge = member.build(None)
    if not isinstance(judge, Asking):
        return []
    seen = [c.completion for c in case.candidates] if member.scope == "prompt" else [completion]
    seen.sort(key=lambda one: one.id)
    begins = f"\n[answer begins] {prefix}" if (prefix := getattr(member, "prefix", "")) else ""
    asked = [
        "\n\n".join(turn["content"] for turn in request.messages) + begins
        for request in judge.requests(case.prompt, seen, aspect)
    ]
    return [text for text in asked if completion.text.strip() in text] or asked


def answer_of(
    case: Judged, completion: Completion, score: float | None, members: Mapping[str, Member]
) -> Answer:
    """An answer with all that its judges were asked and said, as pages show it. `members`: judges by name."""
    return Answer(
        model=completion.model,
        text=completion.text,
        score=score,
        verdicts=tuple(
            Verdict(
                judge=j.judge,
                aspect=j.aspect,
                status=j.status,
                score=j.score,
                detail=j.detail,
                prompts=tuple(prompts_of(members[j.judge], case, completion, j.aspect)),
                raw=j.raw,
                distribution=j.distribution or {},
                off_scale=j.off_scale,
            )
            for j in case.judgements.get(completion.id, ())
        ),
    )


def statuses(cases: Iterable[Judged]) -> dict[str, dict[str, dict[str, int]]]:
    """How judgements ended: by judge and aspect, and by the length of the answer judged -> group -> status -> count."""
    by_aspect: dict[str, Counter[str]] = {}
    by_length: dict[str, Counter[str]] = {length_group(bound + 1): Counter() for bound in (-1, *WORDS)}
    for case in cases:
        for each in case.candidates:
            group = by_length[length_group(len(each.completion.text.split()))]
            for judgement in case.judgements[each.completion.id]:
                by_aspect.setdefault(f"{judgement.judge}, {judgement.aspect}", Counter())[
                    judgement.status
                ] += 1
                group[judgement.status] += 1
    groups = {"judge and aspect": by_aspect, "length of the answer": by_length}
    return {by: {name: dict(counts) for name, counts in own.items() if counts} for by, own in groups.items()}


def length_group(words: int) -> str:
    for low, high in zip((-1, *WORDS), WORDS, strict=False):
        if words <= high:
            return "no words" if high == 0 else f"{low + 1} to {high} words"
    return f"more than {WORDS[-1]} words"
