"""Ratings that a published dataset came with, brought in by `zephyr import`. Asks nothing.

They are stored as judgements like any other, so pairs are made of them and other judges are put beside them. A rating
that cannot be what its judge meant has status `missing` and no score; every annotation is kept as it came.
"""

from collections.abc import Mapping, Sequence
from typing import Any, Literal

from pydantic import Field

from judges.base import Settings, Verdict
from prompts.annotations import ASPECTS, OVERALL, Annotation, aspect_mean, stated_score, what_ten_is
from records.schema import Completion, Prompt
from serving.chat import Chat

RATED = (1.0, 5.0)
"""The scale of UltraFeedback's aspects."""
VERSION = 1
"""Raised when the same annotation would get another verdict."""


class PublishedRatings(Settings):
    """A published dataset's own ratings."""

    kind: Literal["published"] = "published"
    name: str = "published"
    aspects: tuple[str, ...] = Field(default=ASPECTS, min_length=1)
    """Which of its ratings count; a score is their mean. [overall]: UltraFeedback's single score, or a pair's."""
    digest: str
    """Of the dataset, as `zephyr import` wrote it."""
    scale: tuple[float, float] = (1.0, 10.0)
    """Worst and best overall score."""

    def asked(self) -> dict[str, Any]:
        return {"imported": self.digest, "scale": self.scale, "version": VERSION}

    def build(self, chat: Chat | None) -> "Brought":
        return Brought()


class Brought:
    """Everything it knows was stored when it was imported."""

    async def __call__(self, prompt: Prompt, completions: Sequence[Completion], aspect: str) -> list[Verdict]:
        none = "the imported dataset has no rating of this answer"
        return [Verdict(aspect, "missing", None, None, detail=none) for _ in completions]


def verdict(
    aspect: str,
    annotations: Mapping[str, Annotation],
    scale: tuple[float, float],
    critique: str = "",
    shift: str = "",
) -> Verdict:
    """One annotation as it counts. `shift`: why the ratings of this prompt and aspect may stand at wrong places."""
    low, high = scale if aspect == OVERALL else RATED
    given = annotations.get(aspect)
    if given is None:
        return Verdict(aspect, "missing", low, high, detail="no such annotation")
    if shift:
        return Verdict(aspect, "missing", low, high, raw=given.raw, detail=shift)
    if given.value is None:
        why = "" if given.standing == "not_applicable" else "the annotation has no number"
        status = "not_applicable" if given.standing == "not_applicable" else "missing"
        return Verdict(aspect, status, low, high, raw=given.raw, detail=why or given.rationale)
    if not low <= given.value <= high:
        why = f"{given.value:g} is off the scale {low:g} to {high:g}"
        return Verdict(aspect, "off_scale", low, high, raw=given.raw, detail=why)
    score, detail = given.value, given.rationale
    ten = what_ten_is(annotations, critique) if aspect == OVERALL else None
    if ten == "stated":
        score = stated_score(critique)
        detail = f"10 in the dataset, and its critique says {score:g}"
    elif ten == "one":
        mean = aspect_mean(annotations)
        score, detail = 1.0, f"10 in the dataset, a 1 that was read as 10: the aspects' mean is {mean:.2f}"
    elif ten == "doubtful":
        mean = aspect_mean(annotations)
        why = f"10 in the dataset may be a 1: the aspects' mean is {mean:.2f}"
        return Verdict(aspect, "missing", low, high, raw=given.raw, detail=why)
    return Verdict(aspect, "ok", low, high, score=score, raw=given.raw, detail=detail)
