"""Score each completion with a reward model: a sequence classifier with one output, raw.

The conversation goes to the server as messages, so that its own template is applied once and no second BOS token comes
in front; activations are off, since a softmax over one output is always 1 and a sigmoid squashes what differs. Rewards
have no common scale: a jury compares them within a prompt only (`standardise: prompt`).
"""

import math
from collections.abc import Sequence
from typing import Any, Literal

from judges.base import Asking, Settings, Verdict
from records.schema import Completion, Prompt
from serving.chat import Chat, Reply, Request

ASPECT = "reward"


class RewardModel(Settings):
    """A trained reward model's score of each completion, on no scale of its own."""

    kind: Literal["reward_model"] = "reward_model"
    name: str = "reward_model"
    model: str
    """A name from the recipe's `models`: of kind classifier, of kind vllm with `args: {runner: pooling}`, or an
    endpoint with `dialect: vllm`."""

    @property
    def aspects(self) -> tuple[str, ...]:
        return (ASPECT,)

    @property
    def longest(self) -> int:
        return 0

    def asked(self) -> dict[str, Any]:
        return self.model_dump(mode="json", exclude={"name", "model"})

    def build(self, chat: Chat | None) -> "Rewarding":
        return Rewarding(chat)


class Rewarding(Asking):
    def requests(self, prompt: Prompt, completions: Sequence[Completion], aspect: str) -> list[Request]:
        asked = tuple(message.model_dump() for message in prompt.messages)
        return [
            Request(
                (*asked, {"role": "assistant", "content": completion.text.strip()}), 0.0, 1.0, 0, score=True
            )
            for completion in completions
            if completion.text.strip()
        ]

    def read(
        self, prompt: Prompt, completions: Sequence[Completion], aspect: str, replies: Sequence[Reply]
    ) -> list[Verdict]:
        came = iter(replies)
        return [
            verdict(next(came).scores)
            if completion.text.strip()
            else Verdict(ASPECT, "not_applicable", None, None, detail="the answer is empty")
            for completion in completions
        ]


def verdict(scores: Sequence[float]) -> Verdict:
    """One finite output is a reward; anything else is none."""
    raw = " ".join(map(str, scores))
    if len(scores) != 1:
        detail = f"the classifier has {len(scores)} outputs, a reward model has one"
        return Verdict(ASPECT, "parse_error", None, None, raw=raw, detail=detail)
    if not math.isfinite(scores[0]):
        return Verdict(ASPECT, "parse_error", None, None, raw=raw, detail=f"the reward is {scores[0]}")
    return Verdict(ASPECT, "ok", None, None, score=float(scores[0]), raw=raw)
