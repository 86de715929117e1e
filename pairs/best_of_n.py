"""Rejection sampling: of n completions the best becomes an SFT row (Llama 2 section 3.2.3, RAFT).

The winner is the one that the pair policies choose among the same candidates, see `each_once`.
"""

from collections.abc import Sequence
from math import hypot
from statistics import fmean
from typing import Literal

from pydantic import Field

from pairs.candidates import EQUAL, STAGE, Candidate, Selection, best, score_of, usable_candidates
from pairs.texts import squeezed
from records.base import Strict
from records.schema import Completion, Dropped, Message, Prompt


class BestOfN(Strict):
    """How the best of a prompt's candidates becomes a row for SFT, and how many candidates there are."""

    min_completions: int = Field(default=2, ge=1)
    """Fewest judged candidates of different texts; a prompt with fewer has no winner. 1 lets a lone answer win."""
    ties: Literal["drop", "random"] = "drop"
    """Several candidates share the best score: no winner, or one of them by seed and prompt id, never the first."""
    max_n: int | None = Field(default=None, ge=1)
    """Candidates per prompt, at most, all samplers together. A round is every sampler's `n`; further rounds follow
    until there are so many. None: one round."""
    stop_gain: float | None = Field(default=None, gt=0)
    """Adaptive n: a prompt gets another round only where its best score is expected to rise by as much, in the judge's
    points (0 to 1; standard deviations with `standardise: prompt`), see `pairs.gain`. None: all get `max_n`."""


class Scored(Strict):
    """One of the n."""

    completion_id: str
    model: str
    score: float


class SftRow(Strict):
    """A dialogue to learn from, and what it was picked from."""

    prompt: Prompt
    completion: Completion
    """The winner."""
    score: float
    n: int
    """Candidates it was picked from: judged, complete, of different texts."""
    scores: tuple[Scored, ...]
    """All n, by sampler and sample."""
    winner: int
    """Its place among `scores`, from 0."""
    lead: float | None
    """Points above the second; 0 for a tie that the settings keep, None where it stands alone."""
    round: int
    """The sampling round that it came in, from 1."""

    @property
    def messages(self) -> tuple[Message, ...]:
        return (*self.prompt.messages, Message(role="assistant", content=self.completion.text))


def best_of_n(
    prompt: Prompt,
    candidates: Sequence[Candidate],
    settings: BestOfN | None = None,
    selection: Selection | None = None,
) -> SftRow | Dropped:
    """The candidate above all others as an SFT row, or why there is none.

    `selection`: the pairs' settings; gives the seed and whether an answer that was cut off is a candidate.
    """
    settings, selection = settings or BestOfN(), selection or Selection()
    least = selection.model_copy(update={"min_completions": settings.min_completions})
    usable = usable_candidates(prompt, candidates, least)
    if isinstance(usable, Dropped):
        return usable
    pool = eligible(usable, selection)
    if len(pool) < settings.min_completions:
        cut = sum(c.cut_off for c in usable) if not selection.chosen_may_be_cut_off else 0
        detail = f"{len(usable)} judged: {cut} cut off, {len(pool)} different of the rest"
        reason = "cut_off" if cut else "identical"
        return Dropped(
            id=prompt.id, stage=STAGE, reason=reason, detail=f"{detail}, {settings.min_completions} wanted"
        )
    winner = best(prompt, pool, selection.seed)
    others = [score_of(c) for c in pool if c is not winner]
    lead = score_of(winner) - max(others) if others else None
    if lead is not None and lead <= EQUAL:
        if settings.ties == "drop":
            tied = sorted(c.completion.model for c in pool if score_of(c) >= score_of(winner) - EQUAL)
            detail = (
                f"{len(tied)} of {len(pool)} share the best score {score_of(winner):g}: {', '.join(tied)}"
            )
            return Dropped(id=prompt.id, stage=STAGE, reason="tie", detail=detail)
        lead = 0.0
    return SftRow(
        prompt=prompt,
        completion=winner.completion,
        score=score_of(winner),
        n=len(pool),
        scores=tuple(
            Scored(completion_id=c.completion.id, model=c.completion.model, score=score_of(c)) for c in pool
        ),
        winner=pool.index(winner),
        lead=lead,
        round=winner.round,
    )


def eligible(candidates: Sequence[Candidate], selection: Selection) -> list[Candidate]:
    """Those that can win, each text once."""
    return distinct([c for c in candidates if may_win(c, selection)])


def may_win(candidate: Candidate, selection: Selection) -> bool:
    """Judged, with a text, and not cut off unless that is allowed."""
    if candidate.score is None or not squeezed(candidate.completion.text):
        return False
    return selection.chosen_may_be_cut_off or not candidate.cut_off


def each_once(candidates: Sequence[Candidate], selection: Selection) -> list[Candidate]:
    """What pairs with the winner as chosen are made of: all that can win, and what can only lose, each text once."""
    pool = eligible(candidates, selection)
    texts = {squeezed(c.completion.text) for c in pool}
    return pool + [c for c in distinct(candidates) if squeezed(c.completion.text) not in texts]


def distinct(candidates: Sequence[Candidate]) -> list[Candidate]:
    """Judged candidates, each text once, by sampler and sample.

    A text that came several times has the mean of its scores: it is one answer, judged several times. The best of
    them would favour texts that come often.
    """
    copies: dict[str, list[Candidate]] = {}
    ordered = sorted(
        (c for c in candidates if c.score is not None),
        key=lambda c: (c.completion.model, c.completion.sample, c.completion.id),
    )
    for c in ordered:
        copies.setdefault(squeezed(c.completion.text), []).append(c)
    return [_one_of(same) for same in copies.values()]


def _one_of(same: list[Candidate]) -> Candidate:
    if len(same) == 1:
        return same[0]
    first, spreads = same[0], [c.spread for c in same if c.spread is not None]
    spread = hypot(*spreads) / len(same) if len(spreads) == len(same) else None
    return Candidate(first.completion, fmean(map(score_of, same)), spread, round=first.round)
