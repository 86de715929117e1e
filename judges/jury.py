"""Several judges of each completion, combined into one score.

Members are asked and stored one by one, so adding a member costs that member's calls, and changing a weight costs none:
what is here is a pure function of stored judgements. PoLL (arXiv 2404.18796) takes the mean over jurors' ratings; here
each member's score is first moved to 0..1 on its own scale, or standardised within the prompt, and members may weigh
differently.
"""

import math
import statistics
from collections.abc import Collection, Iterable, Mapping, Sequence
from itertools import combinations
from typing import Annotated, Literal, NamedTuple

from pydantic import Field, model_validator

from judges.critique import Critique
from judges.pairwise import Pairwise
from judges.published import PublishedRatings
from judges.rating import Rating
from judges.reward_model import RewardModel
from judges.rules import Rules
from judges.ultrafeedback import UltraFeedback
from records.base import Strict
from records.schema import Judgement

Member = Annotated[
    Rules | Rating | UltraFeedback | Critique | Pairwise | RewardModel | PublishedRatings,
    Field(discriminator="kind"),
]

EQUAL = 1e-9
"""Scores nearer than this are equal: standardised, the rounding of a mean would become a preference."""


class Jury(Strict):
    """A panel: every member judges every completion."""

    kind: Literal["jury"] = "jury"
    members: tuple[Member, ...] = Field(min_length=1)
    weights: dict[str, float] = Field(default_factory=dict)
    """Member's name -> weight above 0; 1 where none is given."""
    quorum: int | None = Field(default=None, ge=1)
    """Members that must have a score, those that do not apply set aside; None asks for all of them."""
    standardise: Literal["none", "prompt"] = "none"
    """none: each member's score is moved to 0 to 1 on its own scale. prompt: it becomes a distance from that member's
    mean over the prompt's completions, in standard deviations, so that a generous and a strict member count alike;
    scores, margins and spreads are then in such units. Reward models have no scale and need `prompt`."""
    exclude_own: bool = False
    """Leaves out a member's judgements of completions that its own model wrote. With several members it needs
    standardise: prompt, or some answers' scores would be means over other members than their siblings'."""

    @model_validator(mode="after")
    def _names_are_members(self) -> "Jury":
        names = [member.name for member in self.members]
        if len(set(names)) != len(names):
            raise ValueError(f"members {names}: two have the same name; give each a `name`")
        for name, weight in self.weights.items():
            if name not in names or weight <= 0:
                raise ValueError(
                    f"weights: {name!r}: {weight} must be above 0 for one of the members {names}"
                )
        if self.quorum is not None and self.quorum > len(names):
            raise ValueError(f"quorum={self.quorum} is more than the {len(names)} members")
        unscaled = [member.name for member in self.members if isinstance(member, RewardModel)]
        if unscaled and self.standardise == "none":
            raise ValueError(f"members {unscaled} have no scale; set standardise: prompt")
        if self.exclude_own and len(names) > 1 and self.standardise == "none":
            raise ValueError(
                f"exclude_own=True with standardise='none': an answer that one of {names} leaves out would have a mean "
                "over other members than its siblings', and members differ in how much they give; set standardise: "
                "prompt"
            )
        return self


class Score(NamedTuple):
    """What the judgements of one completion come to."""

    value: float | None
    """None: unjudged, see `why`."""
    spread: float | None
    """Standard deviation of the judges' own noise, in the value's points; None where no member gave one."""
    why: str
    """For an unjudged completion, the statuses that made it so; else empty."""


class _Part(NamedTuple):
    """One member's view of one completion: the mean of its aspects, or why there is none."""

    value: float | None
    variance: float | None
    why: str


def combine(judgements: Sequence[Judgement], jury: Jury) -> Score:
    """One completion's score, 0 (worst) to 1 (best): the weighted mean of its members' mean aspect.

    A member that does not apply to the prompt is set aside. A member that failed has no score, and without a quorum the
    completion has none either: a mean over other members would be a number on another scale than its siblings'.
    """
    return _mean(_parts(judgements, jury), jury)


def combine_prompt(
    judgements: Mapping[str, Sequence[Judgement]],
    jury: Jury,
    own: Mapping[str, Collection[str]] | None = None,
) -> dict[str, Score]:
    """Every completion's score in one prompt, by id; standardised over these completions where the jury says so.

    `own`: member -> ids of the completions its model wrote; used with `exclude_own`.
    """
    parts = {id: _parts(found, jury) for id, found in judgements.items()}
    if jury.exclude_own:
        for name, ids in (own or {}).items():
            for id in ids:
                parts.get(id, {}).pop(name, None)
    if jury.standardise == "prompt":
        parts = _standardised(parts, [member.name for member in jury.members])
    return {id: _mean(found, jury) for id, found in parts.items()}


def _parts(judgements: Sequence[Judgement], jury: Jury) -> dict[str, _Part]:
    """Members' views, by name; one that does not apply has none."""
    by_member: dict[str, list[Judgement]] = {member.name: [] for member in jury.members}
    for judgement in judgements:
        if judgement.judge in by_member:
            by_member[judgement.judge].append(judgement)
    aspects = {member.name: len(member.aspects) for member in jury.members}
    found: dict[str, _Part] = {}
    for name, all_of_it in by_member.items():
        applicable = [j for j in all_of_it if j.status != "not_applicable"]
        if len(all_of_it) >= aspects[name] and not applicable:
            continue
        values = [j.score if j.low is None else j.unit for j in applicable]
        scored = [value for value in values if value is not None]
        complete = len({j.aspect for j in all_of_it}) >= aspects[name]
        if not scored or len(scored) < len(applicable) or not complete:
            statuses = sorted({j.status for j in applicable if j.score is None}) or ["missing"]
            found[name] = _Part(None, None, f"{name}: {', '.join(statuses)}")
            continue
        noise = [
            (j.spread / (1.0 if j.low is None or j.high is None else j.high - j.low)) ** 2
            for j in applicable
            if j.spread is not None
        ]
        variance = sum(noise) / len(scored) ** 2 if noise else None
        found[name] = _Part(sum(scored) / len(scored), variance, "")
    return found


def _standardised(parts: dict[str, dict[str, _Part]], names: Sequence[str]) -> dict[str, dict[str, _Part]]:
    """Members' values as distances from their means over the prompt, in standard deviations; 0 where all are equal."""
    result = {id: dict(found) for id, found in parts.items()}
    for name in names:
        values = {
            id: part.value
            for id, found in parts.items()
            if (part := found.get(name)) is not None and part.value is not None
        }
        mean = statistics.fmean(values.values()) if values else 0.0
        deviation = statistics.pstdev(values.values()) if values else 0.0
        for id, value in values.items():
            variance = parts[id][name].variance
            if deviation < EQUAL:
                result[id][name] = _Part(0.0, None, "")
            else:
                noise = None if variance is None else variance / deviation**2
                result[id][name] = _Part((value - mean) / deviation, noise, "")
    return result


def _mean(parts: Mapping[str, _Part], jury: Jury) -> Score:
    failed = [part.why for part in parts.values() if part.value is None]
    scored = {name: part for name, part in parts.items() if part.value is not None}
    needed = jury.quorum if jury.quorum is not None else len(parts)
    if not scored:
        return Score(None, None, "; ".join(failed) or "no judge applies")
    if len(scored) < needed:
        return Score(None, None, "no_quorum: " + "; ".join(failed))
    total = weights = variance = 0.0
    noisy = False
    for name, part in scored.items():
        weight = jury.weights.get(name, 1.0)
        weights += weight
        total += weight * (part.value or 0.0)
        if part.variance is not None:
            noisy = True
            variance += weight**2 * part.variance
    return Score(total / weights, math.sqrt(variance) / weights if noisy else None, "")


class Agreement(NamedTuple):
    """Of two completions of a prompt: does a member prefer the one that the others prefer?"""

    agree: int
    disagree: int
    tied: int
    """The member, or the others together, made no difference."""

    @property
    def rate(self) -> float | None:
        """Share of agreement where both made a difference; 0.5 is chance."""
        decided = self.agree + self.disagree
        return self.agree / decided if decided else None


def leave_one_out(prompts: Iterable[Mapping[str, Sequence[Judgement]]], jury: Jury) -> dict[str, Agreement]:
    """Each member against the mean of the others, over all pairs of completions of each prompt.

    Every member is standardised within the prompt first. Says which member stands alone, with no human label.
    """
    names = [member.name for member in jury.members]
    counts = {name: [0, 0, 0] for name in names}
    for judgements in prompts:
        parts = _standardised({id: _parts(found, jury) for id, found in judgements.items()}, names)
        for name in names:
            both: dict[str, tuple[float, float]] = {}
            for id, found in parts.items():
                others = [p.value for n, p in found.items() if n != name and p.value is not None]
                if name in found and (value := found[name].value) is not None and others:
                    both[id] = value, statistics.fmean(others)
            for (a, rest_a), (b, rest_b) in combinations(both.values(), 2):
                sign = (a - b) * (rest_a - rest_b)
                decided = min(abs(a - b), abs(rest_a - rest_b)) > EQUAL
                counts[name][(0 if sign > 0 else 1) if decided else 2] += 1
    return {name: Agreement(*found) for name, found in counts.items()}
