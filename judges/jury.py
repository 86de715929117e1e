"""Several judges of each completion, combined into one score from 0 to 1.

Members are asked and stored one by one, so adding a member costs that member's calls, and changing a weight costs none:
`combine` is a pure function of stored judgements. PoLL (arXiv 2404.18796) takes the mean over jurors' ratings; here
each member's score is first moved to 0..1 on its own scale, and members may weigh differently.
"""

import math
from collections.abc import Mapping, Sequence
from typing import Annotated, Literal, NamedTuple

from pydantic import Field, model_validator

from judges.rating import Rating
from judges.rules import Rules
from records.base import Strict
from records.schema import Judgement

Member = Annotated[Rules | Rating, Field(discriminator="kind")]


class Jury(Strict):
    """A panel: every member judges every completion."""

    kind: Literal["jury"] = "jury"
    members: tuple[Member, ...] = Field(min_length=1)
    weights: dict[str, float] = Field(default_factory=dict)
    """Member's name -> weight above 0; 1 where none is given."""
    quorum: int | None = Field(default=None, ge=1)
    """Members that must have a score, those that do not apply set aside; None asks for all of them."""

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
        return self


class Score(NamedTuple):
    """What the judgements of one completion come to."""

    value: float | None
    """None: unjudged, see `why`."""
    spread: float | None
    """Standard deviation of the judges' own noise, in the value's points; None where no member gave one."""
    why: str
    """For an unjudged completion, the statuses that made it so; else empty."""


def combine(judgements: Sequence[Judgement], jury: Jury) -> Score:
    """One completion's score, 0 (worst) to 1 (best): the weighted mean of its members' mean aspect.

    A member that does not apply to the prompt is set aside. A member that failed has no score, and without a quorum the
    completion has none either: a mean over other members would be a number on another scale than its siblings'.
    """
    by_member: Mapping[str, list[Judgement]] = {member.name: [] for member in jury.members}
    for judgement in judgements:
        if judgement.judge in by_member:
            by_member[judgement.judge].append(judgement)
    total = weight_sum = variance = 0.0
    scored, failed, noisy = 0, [], False
    for name, own in by_member.items():
        applicable = [j for j in own if j.status != "not_applicable"]
        if own and not applicable:
            continue
        units = [unit for j in applicable if (unit := j.unit) is not None]
        if not units or len(units) < len(applicable):
            statuses = sorted({j.status for j in applicable if j.unit is None}) or ["missing"]
            failed.append(f"{name}: {', '.join(statuses)}")
            continue
        weight = jury.weights.get(name, 1.0)
        total += weight * sum(units) / len(units)
        weight_sum += weight
        scored += 1
        for j in applicable:
            if j.spread is not None:
                noisy = True
                variance += (weight * j.spread / (j.high - j.low) / len(units)) ** 2
    needed = jury.quorum if jury.quorum is not None else scored + len(failed)
    if not scored:
        return Score(None, None, "; ".join(failed) or "no judge applies")
    if scored < needed:
        return Score(None, None, "no_quorum: " + "; ".join(failed))
    return Score(total / weight_sum, math.sqrt(variance) / weight_sum if noisy else None, "")
