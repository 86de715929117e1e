"""Judges, one per file. This union is the table of contents; recipes name a judge by its `kind`."""

from typing import Annotated

from pydantic import Field

from judges.jury import Jury
from judges.rating import Rating
from judges.rules import Rules

JudgeSettings = Annotated[Rules | Rating | Jury, Field(discriminator="kind")]

__all__ = ["JudgeSettings", "Jury", "Rating", "Rules", "panel"]


def panel(settings: Rules | Rating | Jury) -> Jury:
    """Any judge as a panel of one or more, so that the flows know one shape."""
    return settings if isinstance(settings, Jury) else Jury(members=(settings,))
