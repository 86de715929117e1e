"""What one row of a published dataset can have wrong: each check gives (finding, answer's place or None, detail).

A row's own defects only; what takes the whole dataset (copies, splits, rates) is in `pairs.audit`.
"""

import re
from collections.abc import Iterator
from typing import NamedTuple

from pairs.candidates import EQUAL
from pairs.texts import squeezed
from prompts.annotations import ASPECTS, OVERALL, aspect_mean, counted, shifted, stated_score, what_ten_is
from prompts.published import Entry

Found = tuple[str, int | None, str]

REFUSAL = re.compile(
    r"\s*(?:i'?m sorry,? but|i apologi[sz]e,? but|sorry,? (?:but )?i|as an ai(?: language model)?,? i|"
    r"i(?: am|'m) (?:not able|unable) to|i can(?:no|')t (?:help|assist|fulfil|provide|comply))",
    re.IGNORECASE,
)
"""How an answer begins that declines. Such an answer may be right; as the best of a harmless prompt it is not."""


class Choice(NamedTuple):
    """Which answers of a row are best, by place; several are a tie, none: no answer has a score."""

    published: int | None
    """By the overall scores as they are, the first in the list: how the binarized datasets choose."""
    tied: tuple[int, ...]
    """All that share the published best score."""
    repaired: tuple[int, ...]
    """The best by the overall scores that can be trusted, of answers with a text."""
    by_mean: tuple[int, ...]
    """The best by the mean of the aspects; only answers with all that apply."""


def choice(entry: Entry, scale: tuple[float, float]) -> Choice:
    raw = [answer.annotations[OVERALL].value for answer in entry.answers]
    fixed = [
        counted(OVERALL, a.annotations, scale, a.critique).score if squeezed(a.text) else None
        for a in entry.answers
    ]
    shift = dict(shifts(entry))
    means: list[float | None] = []
    for answer in entry.answers:
        own = [
            counted(aspect, answer.annotations, scale, shift=shift.get(aspect, ""))
            for aspect in ASPECTS
            if aspect in answer.annotations
        ]
        scores = [each.score for each in own if each.score is not None]
        whole = (
            squeezed(answer.text) and scores and all(each.status in ("ok", "not_applicable") for each in own)
        )
        means.append(sum(scores) / len(scores) if whole else None)
    tied = _best(raw)
    return Choice(tied[0] if tied else None, tied, _best(fixed), _best(means))


def _best(scores: list[float | None]) -> tuple[int, ...]:
    top = max((score for score in scores if score is not None), default=None)
    if top is None:
        return ()
    return tuple(i for i, score in enumerate(scores) if score is not None and score >= top - EQUAL)


def shifts(entry: Entry) -> Iterator[tuple[str, str]]:
    """Aspects whose ratings may stand at wrong places, and why."""
    for aspect in ASPECTS:
        group = [a.annotations[aspect] for a in entry.answers if aspect in a.annotations]
        if why := shifted(group):
            yield aspect, why


def check(entry: Entry, scale: tuple[float, float], layout: str) -> Iterator[Found]:
    """Every defect of the row."""
    yield from _scores(entry, scale)
    yield from _ratings(entry)
    yield from _texts(entry, layout)
    if layout == "pairs":
        yield from _pair(entry)
    else:
        yield from _top(entry, scale)
    if entry.source == "truthful_qa":
        yield "contaminated", None, "its source is TruthfulQA, a benchmark"


def _scores(entry: Entry, scale: tuple[float, float]) -> Iterator[Found]:
    for place, answer in enumerate(entry.answers):
        overall = answer.annotations[OVERALL]
        mean = aspect_mean(answer.annotations)
        ten = what_ten_is(answer.annotations, answer.critique)
        if ten in ("one", "stated"):
            why = counted(OVERALL, answer.annotations, scale, answer.critique).detail
            yield "wrong_ten", place, why
        elif ten in ("doubtful", "unchecked"):
            yield f"{ten}_ten", place, "no aspects" if mean is None else f"the aspects' mean is {mean:.2f}"
        elif overall.value is not None:
            stated = stated_score(answer.critique)
            if stated is not None and abs(stated - overall.value) > EQUAL:
                yield "other_score_in_critique", place, f"{overall.value:g}, and its critique says {stated:g}"
        if overall.value is not None and not scale[0] <= overall.value <= scale[1]:
            yield "off_scale", place, f"{overall.value:g}, the scale is {scale[0]:g} to {scale[1]:g}"
        elif overall.value is None:
            yield "missing_score", place, overall.raw[:80] or "none"


def _ratings(entry: Entry) -> Iterator[Found]:
    for aspect, why in shifts(entry):
        yield "shifted_ratings", None, f"{aspect}: {why}"
    moved = {aspect for aspect, _ in shifts(entry)}
    for place, answer in enumerate(entry.answers):
        rated = [aspect for aspect in ASPECTS if aspect in answer.annotations]
        for aspect in rated:
            given = answer.annotations[aspect]
            if given.standing == "missing":
                yield "missing_rating", place, aspect
            elif given.value is not None and not 1 <= given.value <= 5:
                yield "off_scale", place, f"{aspect} {given.value:g}, the scale is 1 to 5"
            if aspect not in moved and blank_line(given.raw):
                yield "blank_line", place, f"{aspect}: all ratings of the row are there"
        mean = aspect_mean(answer.annotations)
        if answer.fine is not None and mean is not None and abs(answer.fine - mean) > 0.01:
            yield "other_mean", place, f"{answer.fine:g}, the ratings' mean is {mean:.2f}"


def blank_line(raw: str) -> bool:
    """Whether a string in the annotation's JSON has a blank line inside."""
    return bool(re.search(r"[^\"\s\\](?:\\n[ \t]*){2,}[^\"\s\\]", raw))


def _texts(entry: Entry, layout: str) -> Iterator[Found]:
    seen: dict[str, int] = {}
    for place, answer in enumerate(entry.answers):
        text = squeezed(answer.text)
        if not text:
            yield "empty_answer", place, answer.model
        elif text in seen and layout == "answers":
            yield "same_answers", place, f"{answer.model} and {entry.answers[seen[text]].model}"
        elif REFUSAL.match(text):
            yield "refusal", place, text[:80]
        seen.setdefault(text, place)


def _pair(entry: Entry) -> Iterator[Found]:
    chosen, rejected = entry.answers
    better, worse = chosen.annotations[OVERALL].value, rejected.annotations[OVERALL].value
    if squeezed(chosen.text) == squeezed(rejected.text):
        yield "chosen_is_rejected", None, squeezed(chosen.text)[:80]
    if REFUSAL.match(chosen.text) and not REFUSAL.match(rejected.text):
        yield "refusal_chosen", 0, squeezed(chosen.text)[:80]
    if better is not None and worse is not None:
        if abs(better - worse) <= EQUAL:
            yield "tie", None, f"both {better:g}"
        elif better < worse:
            yield "reversed", None, f"chosen {better:g}, rejected {worse:g}"


def _top(entry: Entry, scale: tuple[float, float]) -> Iterator[Found]:
    best = choice(entry, scale)
    if len(best.tied) > 1:
        models = ", ".join(entry.answers[place].model for place in best.tied)
        value = entry.answers[best.tied[0]].annotations[OVERALL].value
        yield (
            "tie_at_top",
            best.tied[0],
            f"{value:g}: {models}; the first of the list is {models.split(',')[0]}",
        )
    if best.published is not None and REFUSAL.match(entry.answers[best.published].text):
        others = [a for i, a in enumerate(entry.answers) if i != best.published]
        if any(squeezed(a.text) and not REFUSAL.match(a.text) for a in others):
            yield "refusal_chosen", best.published, squeezed(entry.answers[best.published].text)[:80]
