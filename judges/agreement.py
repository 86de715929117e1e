"""How far a judge agrees with people: accuracy, kappa, the order it is asked in, and the trivial rules to beat.

Pure functions of `Compared` pairs; every rate has its n and an interval bootstrapped over prompts. A failed judgement
is wrong in one figure and left out in its `_judged` twin; it is never a tie or a coin.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace
from itertools import combinations
from typing import TYPE_CHECKING, Literal

from judges.layouts import Label, majority
from records.base import Strict
from records.ids import chance
from records.stats import Estimate, Rate, estimate, mean, share

if TYPE_CHECKING:
    import numpy as np

Side = Literal["first", "second", "tie"]
SIDES: tuple[Side, ...] = ("first", "second", "tie")
SIGN = {"first": 1.0, "second": -1.0, "tie": 0.0}


@dataclass(frozen=True, slots=True)
class Compared:
    """Two completions of one prompt: what people say, and what the judge says."""

    prompt: str
    """Its id; intervals are over prompts."""
    gold: Side
    judged: Side | None
    """None: no judgement."""
    texts: tuple[str, str] = ("", "")
    models: tuple[str, str] | None = None
    gap: float | None = None
    """First's score minus second's, on the scale 0 to 1."""
    p_first: float | None = None
    """Probability, as the judge sees it, that the first is better."""

    @property
    def right(self) -> bool:
        return self.judged == self.gold


class Agreement(Strict):
    """Agreement with people over pairs of completions."""

    n: int
    failed: int
    """Pairs without a judgement."""
    ties: Rate | None
    """Judge says tie, of the judged."""
    accuracy: Rate | None
    """First, second or tie, as people say; failed is wrong."""
    accuracy_judged: Rate | None
    """The same of the judged alone."""
    decided: Rate | None
    """The winner is right, where people have one; tie and failed are wrong."""
    decided_judged: Rate | None
    """The same of the judged alone."""
    decided_only: Rate | None
    """The winner is right, where people and judge have one."""
    kappa: Estimate | None
    """Cohen's, three classes; 0 is chance, 1 is perfect. Failed agrees with nobody."""
    kappa_decided: Estimate | None
    """The same where people have a winner."""


def agreement(pairs: Sequence[Compared]) -> Agreement:
    judged = [p for p in pairs if p.judged is not None]
    decided = [p for p in pairs if p.gold != "tie"]
    decided_judged = [p for p in judged if p.gold != "tie"]
    return Agreement(
        n=len(pairs),
        failed=len(pairs) - len(judged),
        ties=share([p.judged == "tie" for p in judged], _prompts(judged)),
        accuracy=_right(pairs),
        accuracy_judged=_right(judged),
        decided=_right(decided),
        decided_judged=_right(decided_judged),
        decided_only=_right([p for p in decided_judged if p.judged != "tie"]),
        kappa=kappa([p.gold for p in pairs], [p.judged for p in pairs], _prompts(pairs)),
        kappa_decided=kappa([p.gold for p in decided], [p.judged for p in decided], _prompts(decided)),
    )


def _prompts(pairs: Sequence[Compared]) -> list[str]:
    return [pair.prompt for pair in pairs]


def _right(pairs: Sequence[Compared]) -> Rate | None:
    return share([pair.right for pair in pairs], _prompts(pairs))


def kappa(gold: Sequence[Side], judged: Sequence[Side | None], prompts: Sequence[str]) -> Estimate | None:
    """Cohen's kappa, (po - pe) / (1 - pe); a failed judgement (None) is a class that people never choose.

    None where it is not defined: both sides say one thing alone.
    """
    columns = [*SIDES, None]
    cells = [
        [float(g == row and j == column) for row in SIDES for column in columns]
        for g, j in zip(gold, judged, strict=True)
    ]

    def figure(sums: "np.ndarray") -> "np.ndarray":
        import numpy as np

        table = sums.reshape(len(sums), 3, 4)
        n = table.sum(axis=(1, 2))
        agree = np.trace(table[:, :, :3], axis1=1, axis2=2) / n
        luck = (table.sum(axis=2) * table.sum(axis=1)[:, :3]).sum(axis=1) / n**2
        return np.where(luck < 1 - 1e-12, (agree - luck) / (1 - luck), np.nan)

    return estimate(cells, prompts, figure)


def longer_wins(pairs: Sequence[Compared]) -> list[Compared]:
    """A judge that counts characters."""
    found = []
    for pair in pairs:
        a, b = (len(text) for text in pair.texts)
        found.append(replace(pair, judged="first" if a > b else "second" if b > a else "tie"))
    return found


def first_wins(pairs: Sequence[Compared]) -> list[Compared]:
    return [replace(pair, judged="first") for pair in pairs]


def coin(pairs: Sequence[Compared]) -> list[Compared]:
    """A judge that guesses; the same pair is always guessed alike."""
    return [
        replace(
            pair, judged="first" if chance(0, "coin", pair.prompt, *pair.texts).random() < 0.5 else "second"
        )
        for pair in pairs
    ]


class Paired(Strict):
    """Two judges on the same pairs."""

    n: int
    only_first: int
    """Pairs that the first judge alone has right."""
    only_second: int
    difference: Estimate | None
    """First's accuracy minus second's."""
    p: float
    """Two-sided exact McNemar: how likely so uneven a split is where both are equally good."""


def compare(first: Sequence[Compared], second: Sequence[Compared]) -> Paired:
    """Two judges of the same pairs in the same order; a failed judgement is wrong."""
    a, b = [pair.right for pair in first], [pair.right for pair in second]
    only_a = sum(x and not y for x, y in zip(a, b, strict=True))
    only_b = sum(y and not x for x, y in zip(a, b, strict=True))
    gains = [float(x) - float(y) for x, y in zip(a, b, strict=True)]
    return Paired(
        n=len(a),
        only_first=only_a,
        only_second=only_b,
        difference=mean(gains, _prompts(first)),
        p=mcnemar(only_a, only_b),
    )


def mcnemar(only_first: int, only_second: int) -> float:
    """Two-sided exact p: each pair on which the two differ is a fair coin."""
    m = only_first + only_second
    tail = sum(math.comb(m, i) for i in range(min(only_first, only_second) + 1))
    return min(1.0, 2 * tail / 2**m)


class People(Strict):
    """How far people agree with each other: what a judge can reach at most."""

    kappas: tuple[Estimate, ...]
    """Of each two of them."""
    one_out: Rate | None
    """One person says what the others say together."""


def people(annotators: Sequence[Sequence[Label]], prompts: Sequence[str]) -> People | None:
    """`annotators`: what each person said of an item, by item. None where fewer than two people said something."""
    known = [(labels, prompt) for labels, prompt in zip(annotators, prompts, strict=True) if len(labels) > 1]
    if not known:
        return None
    found = []
    for a, b in combinations(range(min(len(labels) for labels, _ in known)), 2):
        one: list[Side] = [side_of(labels[a]) for labels, _ in known]
        two: list[Side | None] = [side_of(labels[b]) for labels, _ in known]
        found.append(kappa(one, two, [prompt for _, prompt in known]))
    alone = [
        (label == majority((*labels[:i], *labels[i + 1 :])), prompt)
        for labels, prompt in known
        for i, label in enumerate(labels)
    ]
    return People(
        kappas=tuple(one for one in found if one is not None),
        one_out=share([flag for flag, _ in alone], [prompt for _, prompt in alone]),
    )


def side_of(label: Label) -> Side:
    """The label of two completions in words."""
    return "tie" if label == "tie" else "first" if label == 0 else "second"
