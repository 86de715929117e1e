"""Figures with 95% intervals: rates, and anything else that can be said of sums over prompts."""

import math
from collections.abc import Callable, Hashable, Sequence
from typing import TYPE_CHECKING

from records.base import Strict
from records.ids import seed_of

if TYPE_CHECKING:
    import numpy as np

Z = 1.959964
"""97.5% quantile of the normal distribution."""


class Estimate(Strict):
    """A figure of a sample of `n`, and between what the true one lies with 95 % confidence."""

    value: float
    low: float
    high: float
    n: int

    def __str__(self) -> str:
        return f"{self.value:.3f} ({self.low:.3f} to {self.high:.3f}, n {self.n})"


class Rate(Estimate):
    """How often something happened, of how many, and between what the true rate lies with 95 % confidence."""

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
    if sum(wins) in (0, total):
        # every sample would be the same; the prompts that agree are the trials
        prompts = sum(1 for tried in trials if tried)
        found = wilson(prompts if sum(wins) else 0, prompts)
        return found.model_copy(update={"n": total}) if found else None
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


def share(flags: Sequence[bool], prompts: Sequence[Hashable]) -> Rate | None:
    """How many flags are set; element i of both belongs together, and one prompt may have several."""
    wins: dict[Hashable, int] = {}
    trials: dict[Hashable, int] = {}
    for flag, prompt in zip(flags, prompts, strict=True):
        wins[prompt] = wins.get(prompt, 0) + flag
        trials[prompt] = trials.get(prompt, 0) + 1
    return clustered(list(wins.values()), list(trials.values()))


def estimate(
    features: Sequence[Sequence[float]],
    prompts: Sequence[Hashable],
    figure: "Callable[[np.ndarray], np.ndarray]",
    rounds: int = 1000,
) -> Estimate | None:
    """A figure of the features' sums over all rows, its interval bootstrapped over prompts.

    `figure`: sums of shape (rounds, features) -> values of shape (rounds,), nan where it is not defined.
    None where it is not defined of all rows, and of a single prompt, which says nothing of another.
    """
    place = {prompt: i for i, prompt in enumerate(dict.fromkeys(prompts))}
    if len(place) < 2:
        return None
    import numpy as np

    sums = np.zeros((len(place), len(features[0])))
    np.add.at(sums, [place[prompt] for prompt in prompts], np.asarray(features, dtype=np.float64))
    with np.errstate(divide="ignore", invalid="ignore"):
        value = float(figure(sums.sum(axis=0, keepdims=True))[0])
        if math.isnan(value):
            return None
        dice = np.random.default_rng(seed_of(0, "estimate", len(place), len(features)))
        drawn = dice.multinomial(len(place), np.full(len(place), 1 / len(place)), size=rounds)
        values = figure(drawn @ sums)
    low, high = np.nanquantile(values, [0.025, 0.975])
    return Estimate(value=value, low=float(low), high=float(high), n=len(features))


def mean(values: Sequence[float], prompts: Sequence[Hashable]) -> Estimate | None:
    """The mean of one value per row."""
    return estimate([(value, 1.0) for value in values], prompts, lambda sums: sums[:, 0] / sums[:, 1])
