"""What more candidates would bring: the expected gain of another round, and the mean of best-of-k for every k.

Pure functions of scores; a score is a judge's, so a gain is in the judge's points and no better than the judge.
"""

import math
from collections.abc import Sequence
from statistics import fmean
from typing import NamedTuple

PRIOR = 4.0
"""Degrees of freedom that the pooled variance counts for beside a prompt's own. Our choice: as much as five samples."""
STEPS = 64
"""Of Simpson's rule; a normal distribution's integral is then right to about 1e-6 of its deviation."""


class Pool(NamedTuple):
    """How scores vary over all prompts."""

    mean: float
    within: float
    """Variance of the scores of one prompt, pooled over prompts."""
    between: float
    """Variance of the prompts' true means."""


def pool_of(samples: Sequence[Sequence[float]]) -> Pool | None:
    """The one-way random-effects model by its moments; None where no prompt has two scores."""
    known = [own for own in samples if own]
    freedom = sum(len(own) - 1 for own in known)
    if freedom == 0:
        return None
    means = [fmean(own) for own in known]
    within = sum((x - m) ** 2 for own, m in zip(known, means, strict=True) for x in own) / freedom
    centre = fmean(means)
    spread = sum((m - centre) ** 2 for m in means) / max(1, len(means) - 1)
    return Pool(centre, within, max(0.0, spread - within * fmean(1 / len(own) for own in known)))


def expected_gain(scores: Sequence[float], more: float, pool: Pool | None, top: float | None = None) -> float:
    """By how much the best of `scores` is expected to rise with `more` further samples of the same prompt.

    `top`: the best score there is; a prompt that has it gains nothing. Infinite where nothing is known yet.

    With b the best so far and new scores independent and normal, X ~ N(m, s^2), it is the expected improvement of
    their maximum (Jones, Schonlau and Welch 1998, for one; for k draws P(max > x) = 1 - F(x)^k):

        E[max(0, max(X_1..X_k) - b)]  =  integral from b to top of  1 - F(x)^k  dx

    m is the prompt's mean, shrunk to the mean of all prompts by the random-effects weight
    between / (between + within / n); s^2 is its variance, shrunk to the pooled one as moderated variances are
    (Smyth 2004): (d0 within + sum of squares) / (d0 + n - 1), d0 = 4. With few samples of its own a prompt is so
    taken to be like the others. That m and s are estimates is left out, which makes the gain a little small.
    """
    if not scores or pool is None:
        return math.inf
    n, own = len(scores), fmean(scores)
    weight = pool.between / (pool.between + pool.within / n) if pool.between > 0 else float(pool.within == 0)
    mean = weight * own + (1 - weight) * pool.mean
    squares = sum((x - own) ** 2 for x in scores)
    deviation = math.sqrt((PRIOR * pool.within + squares) / (PRIOR + n - 1))
    best = max(scores)
    end = max(best, mean) + 8 * deviation
    end = end if top is None else min(end, top)
    if end <= best:
        return 0.0
    if deviation == 0:
        return max(0.0, min(mean, end) - best)

    def exceeds(x: float) -> float:
        return 1 - (0.5 * math.erfc((mean - x) / (deviation * math.sqrt(2)))) ** more

    width = (end - best) / STEPS
    inner = sum((4 if i % 2 else 2) * exceeds(best + i * width) for i in range(1, STEPS))
    return (exceeds(best) + inner + exceeds(end)) * width / 3


def best_of_k(scores: Sequence[float], k: int) -> float:
    """The mean of the best of k of `scores`, over every choice of k without replacement.

    With x_1 <= … <= x_N it is  sum over i from k to N of  C(i-1, k-1) / C(N, k) * x_i,  unbiased for the best of k new
    samples (Nakano et al. 2021, arXiv 2112.09332, equation 1; for pass or fail it is pass@k of arXiv 2107.03374).

    Raises:
        ValueError: k is not between 1 and the number of scores.
    """
    if not 1 <= k <= len(scores):
        raise ValueError(f"best of {k} of {len(scores)} scores; wanted 1 to {len(scores)}")
    ranked = sorted(scores)
    return sum(math.comb(i, k - 1) * ranked[i] for i in range(k - 1, len(ranked))) / math.comb(len(ranked), k)
