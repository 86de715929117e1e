"""A judge's numbers themselves: whether they tell answers apart, whether they mean what they say, what they cost."""

import math
from collections.abc import Sequence
from itertools import pairwise
from typing import TYPE_CHECKING

from judges.agreement import Compared
from judges.jury import Score
from records.base import Strict
from records.schema import Usage
from records.stats import Estimate, Rate, estimate, mean, share

if TYPE_CHECKING:
    import numpy as np

MARKS = 5
"""Entropy and saturation look at the nearest of so many evenly spaced marks, so that scales compare; on 1 to 5 those
are the labels."""
BINS = 10
"""Of confidence, 0.5 to 1."""
MARGINS = (0.0, 0.01, 0.02, 0.05, 0.1, 0.15, 0.2, 0.3)


class Spread(Strict):
    """Whether scores tell answers apart. A judge that gives almost only fours and fives labels by chance."""

    n: int
    """Scores."""
    entropy: Estimate | None
    """Bits over five marks; 0 is one mark alone, 2.32 all five alike."""
    top_two: Rate | None
    """Share at the two highest of the five marks."""
    distinct: Estimate | None
    """Different scores per prompt."""
    tied_for_best: Rate | None
    """Prompts whose best score two answers share."""


def spread(scores: Sequence[Sequence[float]], same: float = 1e-9) -> Spread:
    """`scores`: those of each prompt's answers, 0 to 1, only the judged; `same`: nearer ones are equal."""
    flat = [(score, i) for i, own in enumerate(scores) for score in own]
    marks = [math.floor(score * (MARKS - 1) + 0.5) for score, _ in flat]
    prompts = [str(i) for _, i in flat]
    several = [(i, sorted(own)) for i, own in enumerate(scores) if len(own) > 1]

    scaled = all(-same <= score <= 1 + same for score, _ in flat)  # a reward model has no scale

    def entropy(sums: "np.ndarray") -> "np.ndarray":
        import numpy as np

        p = sums / sums.sum(axis=1, keepdims=True)
        return np.where(p > 0, p * np.log2(1 / np.where(p > 0, p, 1)), 0).sum(axis=1)

    return Spread(
        n=len(flat),
        entropy=estimate([[float(m == mark) for mark in range(MARKS)] for m in marks], prompts, entropy)
        if scaled
        else None,
        top_two=share([mark >= MARKS - 2 for mark in marks], prompts) if scaled else None,
        distinct=mean(
            [float(1 + sum(b - a > same for a, b in pairwise(own))) for _, own in several],
            [str(i) for i, _ in several],
        ),
        tied_for_best=share([own[-1] - own[-2] <= same for _, own in several], [str(i) for i, _ in several]),
    )


def chance_first_is_better(first: Score, second: Score) -> float | None:
    """P(first better) as the judge's own noise has it: the scores' difference in units of both spreads.

    None where a score or its noise is missing; equal scores without noise are a coin.
    """
    if first.value is None or second.value is None or first.spread is None or second.spread is None:
        return None
    gap, noise = first.value - second.value, math.hypot(first.spread, second.spread)
    if noise == 0:
        return 0.5 if gap == 0 else float(gap > 0)
    return 0.5 * (1 + math.erf(gap / noise / math.sqrt(2)))


class Bin(Strict):
    """Pairs of about one confidence: how sure the judge was, and how often it was right."""

    low: float
    high: float
    confidence: float
    right: Rate


class Calibration(Strict):
    """Whether the judge's P(better) means what it says, where people have a winner."""

    n: int
    brier: Estimate | None
    """Mean square of P(first better) minus what people say; 0.25 is always 0.5, 0 is perfect."""
    ece: Estimate | None
    """Expected calibration error: |how often right - how sure|, weighed by pairs. Above 0 by chance alone, more so
    with few pairs."""
    bins: tuple[Bin, ...]


def calibration(pairs: Sequence[Compared]) -> Calibration | None:
    """None where the judge gives no probability. An even chance counts as half right and is in no bin."""
    known = [(p.p_first, p) for p in pairs if p.p_first is not None and p.gold != "tie"]
    if not known:
        return None
    prompts = [pair.prompt for _, pair in known]
    sure = [max(p, 1 - p) for p, _ in known]
    right = [0.5 if p == 0.5 else float((p > 0.5) == (pair.gold == "first")) for p, pair in known]
    place = [min(BINS - 1, int((c - 0.5) * 2 * BINS)) for c in sure]
    rows = []
    for c, r, b in zip(sure, right, place, strict=True):
        row = [0.0] * (2 * BINS + 1)
        row[2 * b : 2 * b + 2] = [c, r]
        row[-1] = 1.0
        rows.append(row)

    def error(sums: "np.ndarray") -> "np.ndarray":
        import numpy as np

        return np.abs(sums[:, 0:-1:2] - sums[:, 1:-1:2]).sum(axis=1) / sums[:, -1]

    bins = []
    for b in range(BINS):
        mine = [i for i, at in enumerate(place) if at == b and sure[i] > 0.5]
        rate = share([right[i] > 0.5 for i in mine], [prompts[i] for i in mine])
        if rate is not None:
            low = 0.5 + b / (2 * BINS)
            confidence = sum(sure[i] for i in mine) / len(mine)
            bins.append(Bin(low=low, high=low + 0.5 / BINS, confidence=confidence, right=rate))
    return Calibration(
        n=len(known),
        brier=mean([(p - float(pair.gold == "first")) ** 2 for p, pair in known], prompts),
        ece=estimate(rows, prompts, error),
        bins=tuple(bins),
    )


class AtMargin(Strict):
    """What a minimum margin leaves, and how good it is."""

    margin: float
    """On the scale 0 to 1."""
    usable: Rate | None
    """Pairs whose scores differ by more, of all."""
    right: Rate | None
    """Those whose winner is people's, of the usable where people have one."""


def by_margin(pairs: Sequence[Compared], margins: Sequence[float] = MARGINS) -> tuple[AtMargin, ...]:
    rows = []
    for margin in margins:
        used = [pair.gap is not None and abs(pair.gap) > max(margin, 1e-9) for pair in pairs]
        kept = [p for p, use in zip(pairs, used, strict=True) if use and p.gold != "tie"]
        right = [(p.gap or 0.0) > 0 if p.gold == "first" else (p.gap or 0.0) < 0 for p in kept]
        usable = share(used, [p.prompt for p in pairs])
        rows.append(AtMargin(margin=margin, usable=usable, right=share(right, [p.prompt for p in kept])))
    return tuple(rows)


class Cost(Strict):
    """What the judging took; canaries included."""

    judgements: int
    usable_pairs: int
    """With a winner."""
    usage: Usage
    seconds: float
    """Of all the runs it took, at whatever the machine and its other work allowed."""
    price: float
    """By the recipe's prices; 0 where it has none."""
