"""Win rates with length or style held equal: a logistic regression of preferences, read off where the styles agree."""

import math
import re
from collections.abc import Sequence
from typing import TYPE_CHECKING

from prompts.load import PromptError
from prompts.questions import rows_of
from records.base import Strict
from records.ids import seed_of
from records.stats import Estimate

if TYPE_CHECKING:
    import numpy as np

RIDGE = 0.01
"""Of the coefficients: keeps a model that always wins finite, and moves other figures by less than 0.1 %."""
LAMBDA = 0.2
"""Weight of AlpacaEval's calibration rows, shared by its two baselines (alpaca_eval metrics/glm_winrate.py)."""
ROUNDS = 400


def fit(features: "np.ndarray", preferred: "np.ndarray", weights: "np.ndarray") -> "np.ndarray":
    """Coefficients of a logistic regression; preferences are probabilities."""
    import numpy as np

    found = np.zeros(features.shape[1])
    for _ in range(50):
        p = 1 / (1 + np.exp(-np.clip(features @ found, -30, 30)))
        slope = features.T @ (weights * (preferred - p)) - RIDGE * found
        curve = (features.T * (weights * np.maximum(p * (1 - p), 1e-9))) @ features
        step = np.linalg.solve(curve + RIDGE * np.eye(len(found)), slope)
        found = found + np.clip(step, -4, 4)
        if np.abs(step).max() < 1e-9:
            break
    return found


class Calibration(Strict):
    """AlpacaEval's df_gamed.csv: how hard each instruction is, and judged answers of which only the length differs."""

    rows: tuple[tuple[float, float, float], ...]
    """tanh of the length difference, the instruction's difficulty, the preference from 0 to 1."""
    difficulty: dict[int, float]
    """By the instruction's place in the evaluation set."""


def calibration(place: str) -> Calibration:
    """Raises: PromptError, where there is no such file, or a column is missing or is no number."""
    rows, difficulty = [], {}
    for where, row in rows_of(place):
        try:
            index, hard = int(float(row["index"])), float(row["instruction_difficulty"])
            length, preferred = float(row["std_delta_len"]), float(row["preference"])
        except (KeyError, ValueError, TypeError) as error:
            raise PromptError(
                f"{where}: wanted numbers as index, instruction_difficulty, std_delta_len, preference: {error}"
            ) from error
        difficulty[index] = hard
        if not math.isnan(preferred):
            rows.append((math.tanh(length), hard, preferred))
    if any(preferred > 1 for *_, preferred in rows):  # as AlpacaEval's annotations have it, 1 to 2
        rows = [(length, hard, preferred - 1) for length, hard, preferred in rows]
    return Calibration(rows=tuple(rows), difficulty=difficulty)


def length_controlled(
    preferred: Sequence[float],
    lengths: Sequence[int],
    baseline: Sequence[int],
    places: Sequence[int] = (),
    known: Calibration | None = None,
) -> Estimate | None:
    """AlpacaEval's length-controlled win rate (arXiv 2404.04475, equation 2), 0 to 1.

    logit p = theta + phi tanh((baseline - length) / sd) + psi difficulty, read where the lengths are equal. `lengths`:
    characters. `places` of the instructions in the evaluation set, for `known`; without it there is no difficulty, and
    nothing holds phi where the lengths hardly vary. None for fewer than 3 questions, or lengths that never differ.
    """
    import numpy as np

    gap = np.asarray(baseline, dtype=float) - np.asarray(lengths, dtype=float)
    if len(gap) < 3 or not gap.std():
        return None
    columns = [np.ones(len(gap)), np.tanh(gap / gap.std(ddof=1))]
    extra = None
    if known is not None:
        columns.append(np.array([known.difficulty[place] for place in places]))
        gamed = np.array(known.rows, dtype=float)
        extra = np.stack([np.zeros(len(gamed)), gamed[:, 0], gamed[:, 1]], axis=1), gamed[:, 2]
    return _controlled(
        np.stack(columns, axis=1), np.asarray(preferred, dtype=float), styles=(1,), extra=extra
    )


def style_controlled(
    preferred: Sequence[float], texts: Sequence[str], baseline: Sequence[str]
) -> Estimate | None:
    """Arena-Hard's win rate with length and Markdown held equal: a Bradley-Terry model with style as covariates.

    The published covariates (lengths' relative difference, and of headings, lists and bold per length), scaled and not
    centred: with one model against its baseline, a centred covariate would control for nothing.
    """
    import numpy as np

    if len(texts) < 3:
        return None
    ours, theirs = (np.array([style(text) for text in some], dtype=float) for some in (texts, baseline))
    both = ours + theirs
    both[:, 1:] += 1
    both[:, 0] = np.maximum(both[:, 0], 1)
    features = (ours - theirs) / both
    varies = features.std(axis=0) > 0
    features = features[:, varies] / features[:, varies].std(axis=0)
    columns = np.concatenate([np.ones((len(features), 1)), features], axis=1)
    styles = tuple(range(1, columns.shape[1]))
    return _controlled(columns, np.asarray(preferred, dtype=float), styles=styles)


def _controlled(
    features: "np.ndarray",
    preferred: "np.ndarray",
    styles: Sequence[int],
    extra: "tuple[np.ndarray, np.ndarray] | None" = None,
) -> Estimate:
    """The mean chance to win where the columns `styles` are 0, with a bootstrap interval over the rows."""
    import numpy as np

    n = len(features)
    equal = features.copy()
    equal[:, list(styles)] = 0

    def value(drawn: "np.ndarray") -> float:
        x, y, weights = features[drawn], preferred[drawn], np.ones(n)
        if extra is not None:
            x, y = np.concatenate([x, extra[0]]), np.concatenate([y, extra[1]])
            weights = np.concatenate([weights, np.full(len(extra[0]), LAMBDA / 2)])
        return float((1 / (1 + np.exp(-equal[drawn] @ fit(x, y, weights)))).mean())

    dice = np.random.default_rng(seed_of(0, "controlled", n, features.shape[1]))
    values = [value(dice.integers(0, n, n)) for _ in range(ROUNDS)]
    low, high = np.quantile(values, [0.025, 0.975])
    return Estimate(value=value(np.arange(n)), low=float(low), high=float(high), n=n)


_CODE = re.compile(r"```[^`]*```")
_MARKS = (
    re.compile(r"^#{1,6}\s", re.MULTILINE),
    re.compile(r"^\s*(?:[-*+]|\d+\.)\s", re.MULTILINE),
    re.compile(r"\*\*[^*\n]+\*\*|__[^_\n]+__"),
)


def style(text: str) -> tuple[float, ...]:
    """Characters, and headings, list items and bold passages outside code per thousand of them."""
    plain = _CODE.sub("", text)
    return (len(text), *(1000 * len(mark.findall(plain)) / (len(text) + 1) for mark in _MARKS))
