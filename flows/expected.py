"""What a run's labels must be, from the oracle's ledger alone. No Prefect here, and nothing of how judges read replies.

A judgement needs one reply or several; it can be recovered where a careful reader could tell the verdict from each of
them. A panel's scores are combined here a second time, from its documentation, so that `judges.jury` is checked too.
"""

import math
import statistics
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

from judges.base import Asking
from judges.jury import Jury, Member
from judges.rules import Rules
from oracle.oracle import Oracle, key_of
from oracle.reply import Meant
from oracle.tasks import Answer
from records.schema import Completion, Prompt

SCALES = {"rules": (0.0, 1.0), "rating": (1.0, 5.0), "ultrafeedback": (1.0, 5.0), "critique": (1.0, 10.0)}
SCALES |= {"pairwise": (0.0, 1.0)}
"""Ends of each kind's scale; a reward model has none."""
SAME = 1e-6
"""Of a scale: scores nearer than this are one score."""


@dataclass(frozen=True, slots=True)
class Expected:
    """What one judgement must come to."""

    readable: bool
    low: float | None = None
    """The score, or, for rules, the least it may be; None with `readable`: the judge said that it does not apply."""
    high: float | None = None
    """The most it may be."""
    unbiased: float | None = None
    """The score without the liking for the first place."""
    asked: bool = True
    """False: there was nothing to ask, as of an empty answer."""
    said: str = ""
    """For people."""


def score(value: float | None, unbiased: float | None, said: str) -> Expected:
    return Expected(True, value, value, unbiased, said=said)


NOTHING = Expected(True, asked=False, said="nothing was asked")


def expected(
    member: Member, prompt: Prompt, completions: Sequence[Completion], aspect: str, oracle: Oracle
) -> dict[str, Expected]:
    """By completion id, for all that a judge of this kind sees at once: one completion, or all of a prompt."""
    answers = {c.id: oracle.writer.find(c.text) for c in completions}
    if isinstance(member, Rules):
        return {id: _kept(answer, member) for id, answer in answers.items()}
    judge = member.build(None)
    assert isinstance(judge, Asking)
    asked = [key_of(member.name, request.messages) for request in judge.requests(prompt, completions, aspect)]
    meant = [oracle.ledger.get(key, Meant("never asked", (), False, {}, {}, "")) for key in asked]
    written = {id: answer for id, answer in answers.items() if answer is not None}
    found = dict.fromkeys(answers, NOTHING)
    if member.kind == "pairwise" and len(written) > 1:
        return found | _won(written, meant)
    if member.kind != "pairwise":
        return found | {id: _mean(answer.tag, meant) for id, answer in written.items()}
    return found


def _kept(answer: Answer | None, member: Rules) -> Expected:
    """A kept rule is worth 1, a broken one at most a half; only all of them kept is worth 1."""
    if answer is None and member.reference != "ignore":
        return NOTHING  # held against a known answer, an empty one is none
    if answer is None:
        return Expected(True, 0.0, 0.0, 0.0, said="an empty answer")
    kept = [*answer.kept, *([answer.right] if member.reference != "ignore" else [])]
    least = sum(kept) / len(kept)
    most = (sum(kept) + 0.5 * kept.count(False)) / len(kept)
    said = f"{sum(kept)} of {len(kept)} kept"
    return Expected(True, least, most, least, said=said)


def _mean(tag: str, meant: Sequence[Meant]) -> Expected:
    """One answer's scores in every reply that is about it."""
    said = " | ".join(f"[{one.form}] {one.text}" for one in meant)
    if not meant or not all(one.readable and tag in one.values for one in meant):
        return Expected(False, said=said)
    values = [value for one in meant if (value := one.values[tag]) is not None]
    plain = [value for one in meant if (value := one.unbiased[tag]) is not None]
    if not values:
        return score(None, None, said)
    return score(statistics.fmean(values), statistics.fmean(plain), said)


def _won(written: Mapping[str, Answer], meant: Sequence[Meant]) -> dict[str, Expected]:
    """Each answer's mean chance to win, over all others and both orders."""
    duels = {one.shown: one for one in meant}
    found = {}
    for id, own in written.items():
        chances: list[tuple[float, float]] = []
        readable, said = True, []
        for other in written.values():
            if other is own:
                continue
            there, back = duels.get((own.tag, other.tag)), duels.get((other.tag, own.tag))
            for one in (there, back):
                said.append(f"[{one.form}] {one.text}" if one else "never asked")
            if not (there and back and there.readable and back.readable):
                readable = False
                continue
            chances.append(
                (
                    (_value(there.values) + 1 - _value(back.values)) / 2,
                    (_value(there.unbiased) + 1 - _value(back.unbiased)) / 2,
                )
            )
        text = " | ".join(said)
        if readable:
            value, plain = (statistics.fmean(column) for column in zip(*chances, strict=True))
            found[id] = score(value, plain, text)
        else:
            found[id] = Expected(False, said=text)
    return found


def _value(values: Mapping[str, float | None]) -> float:
    """Of the one answer that a comparison is about."""
    (value,) = values.values()
    assert value is not None
    return value


Verdicts = Mapping[str, Mapping[str, Expected]]
"""Of one completion: member -> aspect -> what it must come to."""


def combined(
    verdicts: Mapping[str, Verdicts],
    jury: Jury,
    own: Mapping[str, set[str]],
    of: Callable[[Expected], float | None],
) -> dict[str, float | None]:
    """Every completion's score in one prompt; None where it has none. `of`: with or without the bias."""
    parts: dict[str, dict[str, float | None]] = {}
    for id, members in verdicts.items():
        parts[id] = {}
        for member in jury.members:
            if jury.exclude_own and id in own.get(member.name, ()):
                continue
            each = members[member.name].values()
            if not all(one.readable for one in each):
                parts[id][member.name] = None
                continue
            values = [value for one in each if (value := of(one)) is not None]
            if values:
                low, high = SCALES.get(member.kind, (0.0, 1.0))
                parts[id][member.name] = (statistics.fmean(values) - low) / (high - low)
    if jury.standardise == "prompt":
        for member in jury.members:
            known = {id: v for id, found in parts.items() if (v := found.get(member.name)) is not None}
            middle = statistics.fmean(known.values()) if known else 0.0
            width = math.sqrt(statistics.fmean((v - middle) ** 2 for v in known.values())) if known else 0.0
            for id, value in known.items():
                parts[id][member.name] = (value - middle) / width if width > 1e-9 else 0.0
    result: dict[str, float | None] = {}
    for id, found in parts.items():
        known = {name: value for name, value in found.items() if value is not None}
        needed = len(found) if jury.quorum is None else jury.quorum
        if not known or len(known) < needed:
            result[id] = None
            continue
        weights = {name: jury.weights.get(name, 1.0) for name in known}
        result[id] = sum(weights[name] * value for name, value in known.items()) / sum(weights.values())
    return result
