"""Rejection sampling: of n completions the best becomes an SFT row (Llama 2 section 3.2.3, RAFT).

The winner is the one the pair policies would choose with the same seed, so SFT rows and pairs of one run
agree.
"""

from collections.abc import Sequence

from pairs.candidates import STAGE, Candidate, Selection, best, score_of, usable_candidates
from records.base import Strict
from records.schema import Completion, Dropped, Message, Prompt


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
    """Completions it was picked from, after failures."""
    scores: tuple[Scored, ...]
    """All n, best first."""

    @property
    def messages(self) -> tuple[Message, ...]:
        return (*self.prompt.messages, Message(role="assistant", content=self.completion.text))


def best_of_n(prompt: Prompt, candidates: Sequence[Candidate], settings: Selection) -> SftRow | Dropped:
    """The best judged completion as an SFT row. `min_completions: 1` lets a lone completion win.

    A winner that was cut off is passed over for the next unless `chosen_may_be_cut_off`.
    """
    usable = usable_candidates(prompt, candidates, settings)
    if isinstance(usable, Dropped):
        return usable
    complete = [c for c in usable if settings.chosen_may_be_cut_off or not c.cut_off]
    if not complete:
        return Dropped(
            id=prompt.id, stage=STAGE, reason="cut_off", detail=f"all {len(usable)} ran into max_tokens"
        )
    winner = best(prompt, complete, settings.seed)
    scores = [
        Scored(completion_id=c.completion.id, model=c.completion.model, score=score_of(c)) for c in usable
    ]
    scores.sort(key=lambda scored: (-scored.score, scored.completion_id))
    return SftRow(
        prompt=prompt,
        completion=winner.completion,
        score=score_of(winner),
        n=len(scores),
        scores=tuple(scores),
    )
