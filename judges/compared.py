"""Scores of gold answers as pairs of which the judge prefers one: the best against each other, in both orders."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from itertools import combinations

from judges.agreement import Compared, Side
from judges.gold import GoldItem
from judges.jury import Score
from judges.orders import Twice
from judges.scores import chance_first_is_better

EQUAL = 1e-9
"""Scores nearer than this are one score; means of distributions carry rounding in their last digits."""


@dataclass(frozen=True, slots=True)
class Judged:
    """One gold item with the judge's scores; `backward` are those of the exchanged order, where it was asked."""

    item: GoldItem
    forward: tuple[Score, ...]
    """In the order of the item's completions, as `backward`."""
    backward: tuple[Score, ...] | None = None
    canaries: Mapping[str, tuple[Score, Score]] = field(default_factory=dict)
    """Name -> scores of the canary and of the better answer."""
    shown: Mapping[tuple[int, int], float | None] = field(default_factory=dict)
    """Of a pairwise judge, which asks in both orders itself: (place of what it was shown first, of what second) ->
    chance that the first is better; None: no verdict."""


def compared(case: Judged, margin: float = 0.0, chances: bool = False) -> list[Compared]:
    """The pairs of an item: the best against each other answer; every two of a tie.

    Asked in both orders, an answer's score is the mean of both, and one failed order fails the pair.
    `chances`: a score is already the chance to win, as a pairwise judge's of two answers is.
    """
    item = case.item
    found = []
    for a, b in _places(item):
        first, second = _merged(case, a), _merged(case, b)
        gap = None if first.value is None or second.value is None else first.value - second.value
        found.append(
            Compared(
                prompt=item.to_prompt().id,
                gold="tie" if item.label == "tie" else "first" if item.label == a else "second",
                judged=side(gap, margin),
                texts=(item.completions[a], item.completions[b]),
                models=(item.models[a], item.models[b]) if item.models else None,
                gap=gap,
                p_first=first.value if chances else chance_first_is_better(first, second),
            )
        )
    return found


def _places(item: GoldItem) -> list[tuple[int, int]]:
    """Of the two answers of each pair, the one that stands first in the item first."""
    if item.label == "tie":
        return list(combinations(range(len(item.completions)), 2))
    others = (i for i in range(len(item.completions)) if i != item.label)
    return [(min(item.label, other), max(item.label, other)) for other in others]


def _merged(case: Judged, place: int) -> Score:
    forward = case.forward[place]
    if case.backward is None or forward.value is None:
        return forward
    backward = case.backward[place]
    if backward.value is None:
        return backward
    noise = None
    if forward.spread is not None and backward.spread is not None:
        noise = (forward.spread + backward.spread) / 2
    return Score((forward.value + backward.value) / 2, noise, "")


def side(gap: float | None, margin: float) -> Side | None:
    """Who wins by a difference of scores; a tie within the margin, None without a difference."""
    if gap is None:
        return None
    return "tie" if abs(gap) <= max(margin, EQUAL) else "first" if gap > 0 else "second"


def asked_twice(case: Judged, margin: float) -> list[Twice]:
    if case.shown:
        return _shown_twice(case, margin)
    if case.backward is None:
        return []
    back = compared(Judged(case.item, case.backward), margin)
    turned: dict[Side | None, Side | None] = {"first": "second", "second": "first"}
    return [
        Twice(one.prompt, one.gold, one.judged, turned.get(two.judged, two.judged))
        for one, two in zip(compared(Judged(case.item, case.forward), margin), back, strict=True)
    ]


def _shown_twice(case: Judged, margin: float) -> list[Twice]:
    """A verdict names the place, so the chance of what stands first is the chance of `first` in either order."""

    def verdict(a: int, b: int) -> Side | None:
        chance = case.shown[a, b]
        return side(None if chance is None else 2 * chance - 1, margin)

    label = case.item.label
    return [
        Twice(
            case.item.to_prompt().id,
            "tie" if label == "tie" else "first" if label == a else "second",
            verdict(a, b),
            verdict(b, a),
        )
        for a, b in _places(case.item)
        if (a, b) in case.shown  # equal texts are not asked about
    ]
