"""The one protocol: a `Request` in, a `Reply` out. Judges and generators know nothing else of a model."""

from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass, field
from typing import Any

import orjson

from records.schema import Usage


@dataclass(frozen=True, slots=True)
class Request:
    """One chat completion. Every sampling field is always sent, so no server default can slip in."""

    messages: tuple[dict[str, str], ...]
    temperature: float
    top_p: float
    max_tokens: int
    n: int = 1
    seed: int | None = None
    stop: tuple[str, ...] = ()
    choices: tuple[str, ...] = ()
    """The answer is one of these; the server is asked to allow nothing else."""
    labels: tuple[str, ...] = ()
    """The answer's first token is one of these: their log-probabilities are wanted, others as well where they come."""
    schema: dict[str, Any] | None = None
    """JSON schema of the answer; the server is asked to allow nothing else."""
    prefix: str = ""
    """How the answer begins; the model goes on from there. vLLM and llama.cpp can, hosted providers cannot."""
    top_logprobs: int = 0
    """Alternatives per token whose log-probabilities come back; 0 asks for none."""
    score: bool = False
    """Asks a sequence classifier for its raw scores of the conversation instead of an answer."""
    about: str = ""
    """The prompt's id. What is asked about one prompt goes to one replica of the model; no server is told."""


@dataclass(frozen=True, slots=True)
class Token:
    """One position of an answer and its likeliest alternatives, log-probabilities in nats."""

    text: str
    alternatives: dict[str, float]


@dataclass(frozen=True, slots=True)
class Choice:
    text: str
    finish_reason: str
    tokens: tuple[Token, ...] = ()
    refusal: str | None = None


@dataclass(frozen=True, slots=True)
class Reply:
    choices: tuple[Choice, ...]
    usage: Usage = field(default_factory=Usage)
    server: str = ""
    """`system_fingerprint`, as the server gave it."""
    scores: tuple[float, ...] = ()
    """Of a classifier: its logits, no activation applied."""


Chat = Callable[[Request], Awaitable[Reply]]
"""Asks one model. Raises `RequestFailed` for this request, `ServingError` for the model."""


def pack(replies: Sequence[Reply]) -> str:
    """Replies as JSON, all that can be read of them; `unpack` gives them back, without their usage."""
    rows = [{"choices": reply.choices, "scores": reply.scores} for reply in replies]
    return orjson.dumps(rows).decode()


def unpack(text: str) -> list[Reply]:
    return [
        Reply(
            tuple(
                Choice(**choice | {"tokens": tuple(Token(**token) for token in choice["tokens"])})
                for choice in row["choices"]
            ),
            scores=tuple(row["scores"]),
        )
        for row in orjson.loads(text)
    ]
