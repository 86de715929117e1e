"""Chance that depends on names alone: the same question has the same answer in any order and at any time."""

import random
from hashlib import blake2b


def dice(*names: object) -> random.Random:
    text = "\x1f".join(map(str, names))
    return random.Random(int.from_bytes(blake2b(text.encode(), digest_size=8).digest(), "big"))


def letters(*names: object) -> str:
    """Twelve letters that stand for `names` and for nothing else."""
    text = "\x1f".join(map(str, names))
    number = int.from_bytes(blake2b(text.encode(), digest_size=6).digest(), "big")
    return "".join(chr(ord("a") + (number >> 4 * i & 15)) for i in range(12))
