"""Judges, one per file. This union is the table of contents; recipes name a judge by its `kind`."""

from typing import Annotated

from pydantic import Field

from judges.critique import Critique
from judges.jury import Jury, Member
from judges.pairwise import Pairwise
from judges.published import PublishedRatings
from judges.rating import Rating
from judges.reward_model import RewardModel
from judges.rules import Rules
from judges.ultrafeedback import UltraFeedback

JudgeSettings = Annotated[
    Rules | Rating | UltraFeedback | Critique | Pairwise | RewardModel | PublishedRatings | Jury,
    Field(discriminator="kind"),
]

__all__ = [
    "Critique",
    "JudgeSettings",
    "Jury",
    "Pairwise",
    "PublishedRatings",
    "Rating",
    "RewardModel",
    "Rules",
    "UltraFeedback",
    "panel",
]


def panel(settings: Member | Jury) -> Jury:
    """Any judge as a panel of one or more, so that the flows know one shape."""
    if isinstance(settings, Jury):
        return settings
    standardise = "prompt" if isinstance(settings, RewardModel) else "none"
    return Jury(members=(settings,), standardise=standardise)
