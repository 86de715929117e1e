"""What a judge likes besides quality: length, lists, the first place, its own answers. Always against what people like.

People prefer longer answers too, so a preference alone says nothing: each is given with that of people on the same
pairs, and their difference.
"""

import re
from collections.abc import Callable, Collection, Sequence
from typing import TYPE_CHECKING

from judges.agreement import SIGN, Compared
from records.base import Strict
from records.stats import Estimate, Rate, estimate, mean, share

if TYPE_CHECKING:
    import numpy as np


class Preference(Strict):
    """How often the completion with more of something wins, on pairs where judge and people both have a winner."""

    n: int
    judge: Rate | None
    people: Rate | None
    excess: Estimate | None
    """Judge's rate minus people's; above 0 the judge likes it more than people do."""


def preference(pairs: Sequence[Compared], marks: Callable[[Compared], tuple[float, float]]) -> Preference:
    """`marks`: how much of it first and second have; pairs with equally much say nothing."""
    judge, people, prompts = [], [], []
    for pair in pairs:
        first, second = marks(pair)
        if first == second or pair.gold == "tie" or pair.judged in (None, "tie"):
            continue
        more = "first" if first > second else "second"
        judge.append(pair.judged == more)
        people.append(pair.gold == more)
        prompts.append(pair.prompt)
    return Preference(
        n=len(prompts),
        judge=share(judge, prompts),
        people=share(people, prompts),
        excess=mean([float(j) - float(g) for j, g in zip(judge, people, strict=True)], prompts),
    )


_LIST = re.compile(r"^[ \t]*(?:[-*•+]|\d{1,3}[.)])[ \t]+\S", re.MULTILINE)


def has_list(text: str) -> bool:
    """Two lines or more that begin as list items."""
    return len(_LIST.findall(text)) > 1


def for_longer(pairs: Sequence[Compared]) -> Preference:
    """In characters."""
    return preference(pairs, lambda pair: (len(pair.texts[0]), len(pair.texts[1])))


def for_lists(pairs: Sequence[Compared]) -> Preference:
    """Pairs of which exactly one completion holds a list."""
    return preference(pairs, lambda pair: (has_list(pair.texts[0]), has_list(pair.texts[1])))


def for_first(pairs: Sequence[Compared]) -> Preference:
    return preference(pairs, lambda pair: (1, 0))


def for_own(pairs: Sequence[Compared], names: Collection[str]) -> Preference | None:
    """Pairs of which exactly one completion is by the judge's model. None where no names of writers are known."""
    known = [pair for pair in pairs if pair.models is not None]
    if not known:
        return None
    own = {short(name) for name in names}

    def marks(pair: Compared) -> tuple[float, float]:
        first, second = pair.models or ("", "")
        return float(short(first) in own), float(short(second) in own)

    return preference(known, marks)


def short(name: str) -> str:
    """`HuggingFaceTB/SmolLM2-135M-Instruct` and `smollm2-135m-instruct` are one model."""
    return name.rstrip("/").rsplit("/", 1)[-1].lower()


def length_slope(pairs: Sequence[Compared]) -> Estimate | None:
    """How much the verdict (1 first, -1 second, 0 tie) follows length, quality held still.

    The coefficient of tanh(length difference / its root mean square) in a least-squares fit of the verdict that also
    has people's verdict and a constant; AlpacaEval 2 (arXiv 2404.04475) has the same term in a logistic model. 0 is no
    bias, 1 lets a far longer answer win against an equal one. None where it cannot be told from people's verdict.
    """
    judged = [pair for pair in pairs if pair.judged is not None]
    gaps = [len(pair.texts[0]) - len(pair.texts[1]) for pair in judged]
    size = (sum(gap * gap for gap in gaps) / len(gaps)) ** 0.5 if gaps else 0.0
    if size == 0:
        return None
    import numpy as np

    rows = []
    for pair, gap in zip(judged, gaps, strict=True):
        x = (1.0, float(np.tanh(gap / size)), SIGN[pair.gold])
        y = SIGN[pair.judged or "tie"]
        rows.append([a * b for a in x for b in x] + [a * y for a in x])

    def slope(sums: "np.ndarray") -> "np.ndarray":
        left, right = sums[:, :9].reshape(-1, 3, 3), sums[:, 9:]
        solvable = np.abs(np.linalg.det(left)) > 1e-9 * np.maximum(left[:, 0, 0], 1) ** 3
        safe = np.where(solvable[:, None, None], left, np.eye(3))
        found = np.linalg.solve(safe, right[:, :, None])[:, 1, 0]
        return np.where(solvable, found, np.nan)

    return estimate(rows, [pair.prompt for pair in judged], slope)
