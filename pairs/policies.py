"""Which completion is chosen, which is rejected: a judged prompt -> pairs. Start at `make_pairs`.

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
from typing import Literal, NamedTuple, Self

from pydantic import Field, model_validator

from pairs.candidates import (
    EQUAL,
    STAGE,
    Candidate,
    Selection,
    best,
    draw,
    score_of,
    usable_candidates,
)
from pairs.lengths import balance_lengths
from pairs.texts import squeezed
from records.schema import Dropped, Pair, Prompt, Reason

Policy = Literal["best_vs_random", "best_vs_random_lower", "best_vs_worst", "all_pairs"]


class PairSettings(Selection):
    """How scores become pairs."""

    policy: Policy = "best_vs_random"
    """best_vs_random: the best against one of all others, uniformly (Zephyr, section 4.1); a draw that ties
    or falls short of the margin drops the prompt. best_vs_random_lower: uniformly among those that score
    lower and clear the margin (Notus). best_vs_worst: the lowest score (SimPO). all_pairs: every two
    completions whose scores differ enough."""
    min_completions: int = Field(default=2, ge=2)
    """Fewest judged completions with a text; a prompt with fewer is dropped."""
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
    """`make_pairs` over one split, in its order, then the length balance where the settings ask for it."""
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
            margin = max(0.0, score_of(chosen) - score_of(rejected))
            pairs.append(
                Pair(
                    prompt=prompt,
                    chosen=chosen.completion,
                    rejected=rejected.completion,
                    score_chosen=score_of(chosen),
                    score_rejected=score_of(rejected),
                    margin=margin,
                    policy=settings.policy,
                )
            )
    if not pairs:
        worst = min(refusals, key=lambda refusal: _NEAREST_MISS.index(refusal.reason))
        return Dropped(id=prompt.id, stage=STAGE, reason=worst.reason, detail=worst.detail)
    return pairs


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
        elif score_of(c) > score_of(chosen) + EQUAL:
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
        bottom = min(map(score_of, others))
        others = [c for c in others if score_of(c) <= bottom + EQUAL]
    if matched or policy in ("best_vs_random_lower", "all_pairs"):
        others = [c for c in others if clears(c)]
    if not others or (policy == "all_pairs" and not matched):
        return others
    if matched:
        others = _nearest_in_length(chosen, others)
    drawn = draw(prompt, others, settings.seed, "rejected")
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
    margin = score_of(chosen) - score_of(rejected)
    told = (
        f"{chosen.completion.model} {score_of(chosen):g}, {rejected.completion.model} {score_of(rejected):g}"
    )
    if margin <= EQUAL:
        if margin < -EQUAL or settings.ties == "drop" or settings.policy == "best_vs_random_lower":
            return _Refusal("tie", told)
        both_can_win = settings.chosen_may_be_cut_off or not rejected.cut_off
        if (
            settings.policy == "all_pairs" and both_can_win
        ):  # seen from both sides; one of them keeps the pair
            first = draw(prompt, [chosen, rejected], settings.seed, "tie")
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
