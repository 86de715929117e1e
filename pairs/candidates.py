"""What a choice is made from: completions and their scores. Every policy starts here."""

import math
from collections.abc import Sequence
from dataclasses import dataclass

from pydantic import Field

from pairs.texts import squeezed
from records.base import Strict
from records.ids import chance
from records.schema import Completion, Dropped, Prompt, Reason

STAGE = "pairs"
EQUAL = 1e-9
"""Scores nearer than this are equal: a mean of the same ratings in another order is not a preference."""


@dataclass(frozen=True, slots=True)
class Candidate:
    """A completion and what the judges made of it."""

    completion: Completion
    score: float | None
    """None when it could not be judged; such a completion is in no pair."""
    spread: float | None = None
    """Standard deviation of the score, in points."""
    why: str = ""
    """The judgement's status when there is no score."""
    round: int = 1
    """The sampling round that it came in, from 1."""

    def __post_init__(self) -> None:
        if self.score is not None and not math.isfinite(self.score):
            raise ValueError(
                f"score {self.score} of completion {self.completion.id}: a score is finite or None"
            )

    @property
    def cut_off(self) -> bool:
        return self.completion.finish_reason == "length"


class Selection(Strict):
    """What every choice between completions shares."""

    seed: int = 42
    """Draws among equals and the random rejected. ultrafeedback_binarized: 42."""
    min_completions: int = Field(default=1, ge=1)
    """Fewest judged completions with a text; a prompt with fewer is dropped."""
    chosen_may_be_cut_off: bool = False
    """Whether an answer that ran into max_tokens can be the better one. It can always be the worse one."""


def usable_candidates(
    prompt: Prompt, candidates: Sequence[Candidate], settings: Selection
) -> list[Candidate] | Dropped:
    """Judged completions with a text, in the order of their ids; Dropped if too few, or all the same."""
    ids = {c.completion.id for c in candidates}
    if len(ids) != len(candidates):
        raise ValueError(
            f"prompt {prompt.id[:12]}: {len(candidates)} candidates but {len(ids)} different completion ids"
        )
    for c in candidates:
        if c.completion.prompt_id != prompt.id:
            raise ValueError(
                f"completion {c.completion.id} answers {c.completion.prompt_id[:12]}, not {prompt.id[:12]}"
            )

    def drop(reason: Reason, detail: str) -> Dropped:
        return Dropped(id=prompt.id, stage=STAGE, reason=reason, detail=detail)

    wanted = settings.min_completions
    written = [c for c in candidates if squeezed(c.completion.text)]
    judged = sorted((c for c in written if c.score is not None), key=lambda c: c.completion.id)
    if len(written) < wanted:
        return drop(
            "too_few_completions", f"{len(written)} with a text of {len(candidates)}, {wanted} wanted"
        )
    if len(judged) < wanted:
        failed = sorted(f"{c.completion.model} {c.why or 'not judged'}" for c in written if c.score is None)
        return drop(
            "unjudged", f"{len(judged)} judged of {len(written)}, {wanted} wanted: {', '.join(failed)}"
        )
    if len(judged) > 1 and len({squeezed(c.completion.text) for c in judged}) == 1:
        return drop("identical", f"all {len(judged)} say the same")
    return judged


def best(prompt: Prompt, candidates: Sequence[Candidate], seed: int) -> Candidate:
    """The highest score; among equals by chance of (seed, prompt id), never the first in the list."""
    top = max(map(score_of, candidates))
    return draw(prompt, [c for c in candidates if score_of(c) >= top - EQUAL], seed, "chosen")


def draw(prompt: Prompt, pool: Sequence[Candidate], seed: int, purpose: str) -> Candidate:
    """Uniform over `pool`, whatever its order: everyone draws a number of their own, the lowest wins."""

    def rank(c: Candidate) -> float:
        return chance(seed, purpose, prompt.id, c.completion.id).random()

    return min(pool, key=rank)


def score_of(candidate: Candidate) -> float:
    assert candidate.score is not None, "only judged candidates come this far"
    return candidate.score
