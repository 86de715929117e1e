"""What a published dataset says of an answer: a rating with its rationale, and when it cannot be what was meant.

Two defects of UltraFeedback are looked for. Its parser read an overall score of 1 as 10 (OpenBMB/UltraFeedback,
issue 8), and it split a judge's answer at blank lines, so that a rationale with one moved the ratings after it.
"""

import json
import re
from collections.abc import Mapping
from dataclasses import dataclass
from statistics import fmean
from typing import Any, Literal, NamedTuple

ASPECTS = ("instruction_following", "honesty", "truthfulness", "helpfulness")
"""UltraFeedback's, 1 to 5 each."""
OVERALL = "overall"
"""Its critique's score, 1 to 10, and the one score that binarized datasets have."""

RATED = (1.0, 5.0)
"""The scale of the aspects."""

Standing = Literal["ok", "not_applicable", "missing"]
Ten = Literal["stated", "one", "doubtful", "kept", "unchecked"]
"""What an overall 10 is. stated: the critique's own text says another number. Else by the mean of the aspects: one
(up to 2, a 1 for sure), doubtful (up to 4), kept (above). unchecked: there are no aspects."""


@dataclass(frozen=True, slots=True)
class Annotation:
    """One rating as it was published."""

    standing: Standing
    value: float | None
    raw: str
    """JSON of the annotation as it came."""
    rationale: str = ""


def rating(value: Any) -> tuple[Standing, float | None]:
    """A number, also one written as text; `N/A` is a rating that does not apply, anything else is none."""
    if isinstance(value, bool):
        return "missing", None
    if isinstance(value, int | float):
        return ("ok", float(value)) if value == value else ("missing", None)
    text = str(value or "").strip()
    if re.fullmatch(r"n\s*/\s*a", text, re.IGNORECASE):
        return "not_applicable", None
    return ("ok", float(text)) if re.fullmatch(r"-?\d+(\.\d+)?", text) else ("missing", None)


def annotation(given: Any) -> Annotation:
    """One aspect's cell: {Rating, Rationale, …}, or None."""
    if not isinstance(given, Mapping):
        standing, value = rating(given)
        return Annotation(standing, value, "" if given is None else plain(given))
    standing, value = rating(given.get("Rating"))
    said = [given.get("Rationale For Rating"), given.get("Rationale")]
    return Annotation(standing, value, plain(given), "\n\n".join(str(each) for each in said if each))


def plain(value: Any) -> str:
    return json.dumps(value, ensure_ascii=False, default=str)


def aspect_mean(annotations: Mapping[str, Annotation]) -> float | None:
    """UltraFeedback's fine-grained score: the mean of the aspects that have a number."""
    values = [a.value for name, a in annotations.items() if name in ASPECTS and a.value is not None]
    return fmean(values) if values else None


_STATED = re.compile(r"(?:overall|final)[ \t]+score[ \t*_]*(?::|is|of)[ \t*_]*(\d+(?:\.\d+)?)", re.IGNORECASE)
_OF_TEN = re.compile(r"(?<![\d.])(\d+(?:\.\d+)?)\s*/\s*10\b")


def stated_score(critique: str) -> float | None:
    """The score that a critique's own text gives, the last one; None where it gives none from 1 to 10."""
    found = [*_STATED.finditer(critique), *_OF_TEN.finditer(critique)]
    value = float(max(found, key=lambda match: match.start())[1]) if found else None
    return value if value is not None and 1 <= value <= 10 else None


def what_ten_is(annotations: Mapping[str, Annotation], critique: str) -> Ten | None:
    """None: the overall score is no 10. The bounds are those of UltraFeedback's own repair of 2023-12-29."""
    overall = annotations.get(OVERALL)
    if overall is None or overall.value != 10:
        return None
    stated, mean = stated_score(critique), aspect_mean(annotations)
    if stated is not None:
        return "kept" if stated == 10 else "stated"
    if mean is None:
        return "unchecked"
    return "one" if mean <= 2 else "doubtful" if mean <= 4 else "kept"


class Counted(NamedTuple):
    """What an annotation counts as."""

    status: Literal["ok", "not_applicable", "missing", "off_scale"]
    score: float | None
    detail: str


def counted(
    aspect: str,
    annotations: Mapping[str, Annotation],
    scale: tuple[float, float],
    critique: str = "",
    shift: str = "",
) -> Counted:
    """`scale`: of the overall score. `shift`: why the ratings of this prompt and aspect may stand at wrong places."""
    low, high = scale if aspect == OVERALL else RATED
    given = annotations.get(aspect)
    if given is None:
        return Counted("missing", None, "no such annotation")
    if shift:
        return Counted("missing", None, shift)
    if given.value is None:
        if given.standing == "not_applicable":
            return Counted("not_applicable", None, given.rationale)
        return Counted("missing", None, "the annotation has no number")
    if not low <= given.value <= high:
        return Counted("off_scale", None, f"{given.value:g} is off the scale {low:g} to {high:g}")
    ten = what_ten_is(annotations, critique) if aspect == OVERALL else None
    mean = aspect_mean(annotations)
    if ten == "stated":
        stated = stated_score(critique)
        return Counted("ok", stated, f"10 in the dataset, and its critique says {stated:g}")
    if ten == "one":
        return Counted(
            "ok", 1.0, f"10 in the dataset, a 1 that was read as 10: the aspects' mean is {mean:.2f}"
        )
    if ten == "doubtful":
        return Counted("missing", None, f"10 in the dataset may be a 1: the aspects' mean is {mean:.2f}")
    return Counted("ok", given.value, given.rationale)


_BLOCK = re.compile(
    r"^[ \t#*_]*(?:Output for Text|Rating[ \t*_]*:|Type[ \t*_]*:)", re.MULTILINE | re.IGNORECASE
)


def shifted(group: list[Annotation]) -> str:
    """Why the ratings that one reply gave to several answers may stand at wrong places; "" where nothing says so.

    A rationale that holds the beginning of another block swallowed it. One with a blank line was cut there, if another
    answer has no rating.
    """
    if any(_BLOCK.search(each.rationale) for each in group):
        return "a rationale holds another answer's block"
    blank = any(re.search(r"\n[ \t]*\n", str(_own(each))) for each in group)
    if blank and any(each.standing == "missing" for each in group):
        return "a rationale has a blank line and another answer has no rating"
    return ""


def _own(given: Annotation) -> str:
    """The rationales apart: the blank line between two of them is ours."""
    try:
        cell = json.loads(given.raw)
    except ValueError:
        return given.rationale
    if not isinstance(cell, dict):
        return ""
    return "\0".join(str(cell.get(name) or "").strip() for name in ("Rationale", "Rationale For Rating"))
