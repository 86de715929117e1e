"""Every judge that asks a model, and what comes of one reply to all of its questions."""

from typing import Any

from judges.base import Settings, Verdict
from judges.critique import Critique
from judges.pairwise import Pairwise
from judges.rating import Rating
from judges.reward_model import RewardModel
from judges.ultrafeedback import UltraFeedback
from serving.chat import Reply, Request
from tests.judges.examples import completion, model, prompt, said

JUDGES: dict[str, Settings] = {
    "rating": Rating(model="j"),
    "rating by samples": Rating(model="j", samples=3),
    "rating, then a reason": Rating(model="j", grade="short"),
    "rating after reasons": Rating(model="j", grade="full"),
    "critique": Critique(model="j"),
    "pairwise": Pairwise(model="j"),
    "ultrafeedback": UltraFeedback(model="j", aspects=("helpfulness",)),
    "reward_model": RewardModel(model="j"),
}
READING = {name: judge for name, judge in JUDGES.items() if name != "reward_model"}
"""Those that are given text."""


async def ask(
    settings: Settings, reply: Reply | str, *texts: str, instruction: str = "Explain tea."
) -> tuple[list[Verdict], list[Request]]:
    """The verdicts on answers `a`, `b`, … where the model says the same to everything, and what it was asked."""
    chat, asked = model(lambda _: reply)
    answers = [
        completion(chr(97 + i), text) for i, text in enumerate(texts or ("Tea is warm.", "Tea is hot."))
    ]
    built: Any = settings.build(chat)
    aspects: Any = getattr(settings, "aspects")  # noqa: B009
    return await built(prompt(instruction), answers, aspects[0]), asked


def blocks(*ratings: str, rationale: str = "so") -> str:
    """An UltraFeedback answer with these ratings, for texts 1, 2, …"""
    return "\n\n".join(
        f"#### Output for Text {i}\nRating: {rating}\nRationale: {rationale}"
        for i, rating in enumerate(ratings, start=1)
    )


NONSENSE = said("I like both.", logprobs={"I": -0.1, "The": -3.0})
