"""The one protocol: a `Request` in, a `Reply` out. Judges and generators know nothing else of a model."""

from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field

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
    prefix: str = ""
    """How the answer begins; the model goes on from there. vLLM and llama.cpp can, hosted providers cannot."""
    top_logprobs: int = 0
    """Alternatives per token whose log-probabilities come back; 0 asks for none."""


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


Chat = Callable[[Request], Awaitable[Reply]]
"""Asks one model. Raises `RequestFailed` for this request, `ServingError` for the model."""
