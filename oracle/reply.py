"""What the oracle sends back, whether a careful reader could tell the verdict from it, and what it meant."""

import math
from dataclasses import dataclass, field
from typing import Any


@dataclass(frozen=True, slots=True)
class Rates:
    """What goes wrong, and how often."""

    bias: float = 0.2
    """For what stands first: added to its score, as a share of the scale, or to its chance to win."""
    noise: float = 0.05
    """Standard deviation of every verdict, as a share of the scale."""
    malformed: float = 0.05
    truncated: float = 0.02
    refused: float = 0.02
    seed: int = 0


@dataclass(slots=True)
class Reply:
    """One HTTP answer. `texts`: one for each of the n answers asked for."""

    texts: list[str | None] = field(default_factory=lambda: [""])
    finish_reason: str = "stop"
    refusal: str | None = None
    logprobs: dict[str, Any] | None = None
    reasoning: str | None = None
    scores: list[Any] | None = None
    """Of a classifier, instead of all that."""
    status: int = 200

    def body(self, model: str, prompt_tokens: int) -> dict[str, Any]:
        """As vLLM writes it."""
        words = sum(len((text or "").split()) for text in self.texts)
        if self.status != 200:
            return {"error": {"message": self.texts[0], "type": "BadRequestError", "code": self.status}}
        if self.scores is not None:
            row = {"index": 0, "label": "LABEL_0", "probs": self.scores, "num_classes": len(self.scores)}
            return {
                "object": "list",
                "model": model,
                "data": [row],
                "usage": {"prompt_tokens": prompt_tokens},
            }
        return {
            "id": "chatcmpl-oracle",
            "object": "chat.completion",
            "model": model,
            "choices": [
                {
                    "index": i,
                    "message": {
                        "role": "assistant",
                        "content": text,
                        "refusal": self.refusal,
                        "reasoning": self.reasoning,
                    },
                    "logprobs": self.logprobs,
                    "finish_reason": self.finish_reason,
                }
                for i, text in enumerate(self.texts)
            ],
            "usage": {"prompt_tokens": prompt_tokens, "completion_tokens": max(1, words)},
        }


@dataclass(slots=True)
class Meant:
    """The oracle's own record of one request to a judge."""

    form: str
    """How the reply was written; for people."""
    shown: tuple[str, ...]
    """Tags of the answers in the question: A before B, text 1 before text 2."""
    readable: bool
    """A careful reader could tell every verdict in it without guessing."""
    values: dict[str, float | None]
    """Tag -> what was said of that answer, in the judge's own points; None: that it does not apply. Of two that are
    compared, the chance of A."""
    unbiased: dict[str, float | None]
    """The same without the liking for the first place."""
    text: str
    """How the reply reads, for people."""


def top(shares: list[tuple[str, float]]) -> dict[str, Any]:
    """One token's log-probabilities; an alternative without probability has -9999, as vLLM writes it."""
    ranked = sorted(shares, key=lambda one: -one[1])
    rows = [
        {"token": token, "logprob": math.log(p) if p > 0 else -9999.0, "bytes": list(token.encode())}
        for token, p in ranked
    ]
    return {"content": [rows[0] | {"top_logprobs": rows}]}


def readable_shares(shares: dict[str, float]) -> str:
    return ", ".join(f"{label} {share:.3f}" for label, share in shares.items())
