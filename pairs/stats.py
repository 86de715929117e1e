"""Rates with 95% intervals."""

import math
from collections.abc import Sequence

from records.base import Strict
from records.ids import seed_of

Z = 1.959964
"""97.5% quantile of the normal distribution."""


class Rate(Strict):
    """How often something happened, of how many, and between what the true rate lies with 95 % confidence."""

    value: float
    low: float
    high: float
    n: int

    def __str__(self) -> str:
        return f"{self.value:.0%} ({self.low:.0%} to {self.high:.0%}, n {self.n})"


def wilson(wins: int, n: int) -> Rate | None:
    """Wilson's score interval; unlike the usual one it is right near 0 and 1 and for few trials.

    None without trials: nothing of nothing is not a rate.
    """
    if n == 0:
        return None
    p, zz = wins / n, Z * Z
    centre = (p + zz / (2 * n)) / (1 + zz / n)
    half = Z / (1 + zz / n) * math.sqrt(p * (1 - p) / n + zz / (4 * n * n))
    return Rate(value=p, low=max(0.0, centre - half), high=min(1.0, centre + half), n=n)


def clustered(wins: Sequence[int], trials: Sequence[int], rounds: int = 1000) -> Rate | None:
    """A rate over prompts with several trials each, which agree: bootstrap over prompts.

    Element i of both belongs to prompt i. With one trial per prompt it is Wilson's interval.
    """
    total = sum(trials)
    if total == 0 or max(trials) <= 1:
        return wilson(sum(wins), total)
    import numpy as np

    table = np.array([wins, trials], dtype=np.float64).T
    table = table[table[:, 1] > 0]
    dice = np.random.default_rng(seed_of(0, "bootstrap", len(table), total))
    rates = []
    for _ in range(rounds):
        won, tried = np.bincount(dice.integers(0, len(table), len(table)), minlength=len(table)) @ table
        rates.append(won / tried)
    low, high = np.quantile(rates, [0.025, 0.975])
    return Rate(value=sum(wins) / total, low=float(low), high=float(high), n=total)
