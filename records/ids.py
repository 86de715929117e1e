"""Ids are content: the same question has the same id on every machine, in every order, at any time."""

import hashlib
import json
import random
from collections.abc import Sequence
from typing import Any

from pydantic import BaseModel

from records.schema import Message


def canonical(value: Any) -> str:
    """JSON with sorted keys and no spaces, so that equal values are equal text.

    Raises:
        TypeError: a value that JSON cannot hold; it would otherwise depend on how Python prints it.
    """
    return json.dumps(
        _plain(value), sort_keys=True, separators=(",", ":"), ensure_ascii=False, allow_nan=False
    )


def _plain(value: Any) -> Any:
    if isinstance(value, BaseModel):
        return value.model_dump(mode="json")
    if isinstance(value, dict):
        return {key: _plain(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [_plain(item) for item in value]
    return value


def fingerprint(*parts: Any) -> str:
    """16 hex digits of SHA-256 over the canonical JSON of `parts`: names what was asked."""
    return hashlib.sha256(canonical(parts).encode()).hexdigest()[:16]


def digest(*parts: Any) -> str:
    """All 64 hex digits of SHA-256 over the canonical JSON of `parts`: names a content."""
    return hashlib.sha256(canonical(parts).encode()).hexdigest()


def prompt_id(messages: Sequence[Message]) -> str:
    """SHA-256 of the prompt's text, as in the public Zephyr datasets.

    One user turn: lower-case hex SHA-256 of its UTF-8 text, unstripped, unsalted (verified on rows of
    ultrachat_200k and ultrafeedback_binarized). Anything longer has no published rule that tells two
    dialogues with the same first turn apart; there it is the SHA-256 of the messages' canonical JSON.
    """
    if len(messages) == 1 and messages[0].role == "user":
        return hashlib.sha256(messages[0].content.encode()).hexdigest()
    return digest(list(messages))


def chance(seed: int, *names: object) -> random.Random:
    """Random numbers that depend on `seed` and `names` alone, never on order, shard or restart."""
    return random.Random("/".join(map(str, (seed, *names))))


def rank(seed: int, *names: object) -> int:
    """A number drawn from `seed` and `names` alone, as `chance` would; cheaper, where many are compared."""
    text = "/".join(map(str, (seed, *names)))
    return int.from_bytes(hashlib.blake2b(text.encode(), digest_size=8).digest(), "big")


def seed_of(seed: int, *names: object) -> int:
    """A request's seed, 0 to 2**31 - 1, drawn from `seed` and `names` alone."""
    return chance(seed, "request", *names).getrandbits(31)
