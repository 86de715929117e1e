"""Which completion is chosen and which is rejected: a judged prompt -> pairs, or Dropped. Start at
`make_pairs`.

Pure functions of scores: no model, no disk, no clock. Chance is a rank drawn for each (seed, prompt id,
completion id), so neither row order, candidate order, shards nor restarts change a pair, and a new model
changes only the pairs it enters.

    [4.6 mistral, 4.6 llama, 3.0 falcon, None alpaca (parse_error)]     min_margin 0, ties drop
    best_vs_random        chosen mistral or llama, rejected the other (a tie: dropped) or falcon
    best_vs_random_lower  chosen mistral or llama, rejected falcon
    all_pairs             mistral > falcon, llama > falcon
"""

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Literal, NamedTuple, Self

from pydantic import Field, model_validator

from pairs.lengths import balance_lengths
from pairs.texts import squeezed
from records.base import Strict
from records.ids import chance
from records.schema import Completion, Dropped, Pair, Prompt, Reason

Policy = Literal["best_vs_random", "best_vs_random_lower", "best_vs_worst", "all_pairs"]
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


class PairSettings(Selection):
    """How scores become pairs."""

    policy: Policy = "best_vs_random"
    """best_vs_random: the best against one of all others, uniformly (Zephyr, section 4.1); a draw that ties
    or falls short of the margin drops the prompt. best_vs_random_lower: uniformly among those that score
    lower and clear the margin (Notus). best_vs_worst: the lowest score (SimPO). all_pairs: every two
    completions whose scores differ enough."""
    min_completions: int = Field(default=2, ge=2)
    min_margin: float = Field(default=0, ge=0)
    """Smallest score_chosen - score_rejected, in points."""
    min_margin_noise: float | None = Field(default=None, gt=0)
    """Smallest margin in units of the judge's noise, sqrt(spread_chosen^2 + spread_rejected^2). Where a
    spread is unknown the pair is dropped."""
    ties: Literal["drop", "random"] = "drop"
    """Equal scores: no pair, or one whose chosen is drawn by seed and prompt id, with margin 0. Among several
    best, the chosen is always drawn, never the first. best_vs_random_lower has no pair of equals in either
    case."""
    length_control: Literal["none", "matched", "stratified"] = "none"
    """matched: of the completions the policy allows as rejected and that clear the margin, the one nearest to
    the chosen in characters, in place of the random draw (all_pairs: one pair for each chosen). stratified:
    over the whole split, as many pairs with a longer as with a shorter chosen, see `pairs.lengths`."""

    @model_validator(mode="after")
    def _a_kept_tie_has_no_margin(self) -> Self:
        if self.ties == "random" and (self.min_margin or self.min_margin_noise):
            raise ValueError(
                f"ties='random' keeps pairs of margin 0, but min_margin={self.min_margin} and "
                f"min_margin_noise={self.min_margin_noise} drop them; set ties to 'drop' or no margin"
            )
        return self


class Paired(NamedTuple):
    pairs: list[Pair]
    dropped: list[Dropped]


def pair_all(cases: Iterable[tuple[Prompt, Sequence[Candidate]]], settings: PairSettings) -> Paired:
    """`make_pairs` over one split, then its length balance where the settings ask for it. Keeps the order of
    `cases`."""
    pairs: list[Pair] = []
    dropped: list[Dropped] = []
    for prompt, candidates in cases:
        made = make_pairs(prompt, candidates, settings)
        if isinstance(made, Dropped):
            dropped.append(made)
        else:
            pairs += made
    if settings.length_control == "stratified":
        kept, too_many = balance_lengths(pairs, settings.seed)
        return Paired(kept, dropped + too_many)
    return Paired(pairs, dropped)


def make_pairs(
    prompt: Prompt, candidates: Sequence[Candidate], settings: PairSettings
) -> list[Pair] | Dropped:
    """The pairs of one prompt: one, or several under `all_pairs`; never an empty list.

    Raises:
        ValueError: a candidate of another prompt, or one completion twice.
    """
    usable = usable_candidates(prompt, candidates, settings)
    if isinstance(usable, Dropped):
        return usable
    complete = [c for c in usable if settings.chosen_may_be_cut_off or not c.cut_off]
    if not complete:
        return Dropped(
            id=prompt.id, stage=STAGE, reason="cut_off", detail=f"all {len(usable)} ran into max_tokens"
        )
    chosens = complete if settings.policy == "all_pairs" else [best(prompt, complete, settings.seed)]

    pairs: list[Pair] = []
    refusals: list[_Refusal] = []
    for chosen in chosens:
        for rejected in _rejected(prompt, chosen, usable, settings, refusals):
            margin = max(0.0, _score(chosen) - _score(rejected))
            pairs.append(
                Pair(
                    prompt=prompt,
                    chosen=chosen.completion,
                    rejected=rejected.completion,
                    score_chosen=_score(chosen),
                    score_rejected=_score(rejected),
                    margin=margin,
                    policy=settings.policy,
                )
            )
    if not pairs:
        worst = min(refusals, key=lambda refusal: _NEAREST_MISS.index(refusal.reason))
        return Dropped(id=prompt.id, stage=STAGE, reason=worst.reason, detail=worst.detail)
    return pairs


def usable_candidates(
    prompt: Prompt, candidates: Sequence[Candidate], settings: Selection
) -> list[Candidate] | Dropped:
    """Judged completions that have a text, in the order of their ids; Dropped when too few or all the
    same."""
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
    top = max(map(_score, candidates))
    return _draw(prompt, [c for c in candidates if _score(c) >= top - EQUAL], seed, "chosen")


def _rejected(
    prompt: Prompt,
    chosen: Candidate,
    usable: list[Candidate],
    settings: PairSettings,
    refusals: list["_Refusal"],
) -> list[Candidate]:
    """Whom `chosen` is better than, by the policy; who was passed over and why goes to `refusals`."""
    others = []
    for c in usable:
        if c is chosen:
            continue
        if squeezed(c.completion.text) == squeezed(chosen.completion.text):
            refusals.append(_Refusal("identical", "the same text as the chosen"))
        elif _score(c) > _score(chosen) + EQUAL:
            refusals.append(_Refusal("cut_off", f"better than the chosen, but cut off: {c.completion.model}"))
        else:
            others.append(c)

    def clears(c: Candidate) -> bool:
        refusal = _falls_short(prompt, chosen, c, settings)
        if refusal:
            refusals.append(refusal)
        return not refusal

    policy, matched = settings.policy, settings.length_control == "matched"
    if policy == "best_vs_worst" and others:
        bottom = min(map(_score, others))
        others = [c for c in others if _score(c) <= bottom + EQUAL]
    if matched or policy in ("best_vs_random_lower", "all_pairs"):
        others = [c for c in others if clears(c)]
    if not others or (policy == "all_pairs" and not matched):
        return others
    if matched:
        others = _nearest_in_length(chosen, others)
    drawn = _draw(prompt, others, settings.seed, "rejected")
    return [drawn] if clears(drawn) else []


class _Refusal(NamedTuple):
    reason: Reason
    detail: str


_NEAREST_MISS: tuple[Reason, ...] = ("margin", "tie", "cut_off", "identical")
"""Of several reasons, the one that was closest to a pair is reported."""


def _falls_short(
    prompt: Prompt, chosen: Candidate, rejected: Candidate, settings: PairSettings
) -> _Refusal | None:
    """Why these two make no pair, or None when they do."""
    margin = _score(chosen) - _score(rejected)
    told = f"{chosen.completion.model} {_score(chosen):g}, {rejected.completion.model} {_score(rejected):g}"
    if margin <= EQUAL:
        if margin < -EQUAL or settings.ties == "drop" or settings.policy == "best_vs_random_lower":
            return _Refusal("tie", told)
        both_can_win = settings.chosen_may_be_cut_off or not rejected.cut_off
        if (
            settings.policy == "all_pairs" and both_can_win
        ):  # seen from both sides; one of them keeps the pair
            first = _draw(prompt, [chosen, rejected], settings.seed, "tie")
            return None if first is chosen else _Refusal("tie", told)
        return None
    if margin < settings.min_margin - EQUAL:
        return _Refusal("margin", f"{told}: {margin:g} apart, {settings.min_margin:g} wanted")
    if settings.min_margin_noise is not None:
        if chosen.spread is None or rejected.spread is None:
            return _Refusal("margin", f"{told}: no spread to measure the margin in")
        wanted = settings.min_margin_noise * math.hypot(chosen.spread, rejected.spread)
        if margin < wanted - EQUAL:
            return _Refusal("margin", f"{told}: {margin:g} apart, {wanted:g} wanted for their noise")
    return None


def _nearest_in_length(chosen: Candidate, others: list[Candidate]) -> list[Candidate]:
    def distance(c: Candidate) -> int:
        return abs(len(c.completion.text) - len(chosen.completion.text))

    nearest = min(map(distance, others))
    return [c for c in others if distance(c) == nearest]


def _draw(prompt: Prompt, pool: Sequence[Candidate], seed: int, purpose: str) -> Candidate:
    """Uniform over `pool`, whatever its order: everyone draws a number of their own, the lowest wins."""

    def rank(c: Candidate) -> float:
        return chance(seed, purpose, prompt.id, c.completion.id).random()

    return min(pool, key=rank)


def _score(candidate: Candidate) -> float:
    assert candidate.score is not None, "only judged candidates come this far"
    return candidate.score
