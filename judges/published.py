"""Ratings that a published dataset came with, brought in by `zephyr import`. Asks nothing.

They are stored as judgements like any other, so pairs are made of them and other judges are put beside them. A rating
that cannot be what its judge meant has status `missing` and no score; every annotation is kept as it came.
"""

from collections.abc import Mapping, Sequence
from typing import Any, Literal

from pydantic import Field

from judges.base import Settings, Verdict
from prompts.annotations import ASPECTS, OVERALL, RATED, Annotation, counted
from records.schema import Completion, Prompt
from serving.chat import Chat

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
    found = counted(aspect, annotations, scale, critique, shift)
    raw = annotations[aspect].raw if aspect in annotations else ""
    return Verdict(aspect, found.status, low, high, score=found.score, raw=raw, detail=found.detail)
