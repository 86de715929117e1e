"""A reward as a classifier's server returns it, well and badly. There is no refusal here but an HTTP status."""

import random

from oracle.reply import Reply


def clean(value: float) -> Reply:
    return Reply(scores=[value])


def badly(kind: str, value: float, chance: random.Random) -> tuple[str, bool, Reply, float]:
    """A reply of one kind, malformed, truncated or refused: its form, whether it can be read, itself, what it says."""
    if kind == "truncated":
        return "too long", False, Reply(["the maximum context length is exceeded"], status=400), value
    if kind == "refused":
        return "refused", False, Reply(["this conversation is not scored"], status=400), value
    readable = {"a whole number": float(round(value)), "a large number": value * 1e6}
    unreadable: dict[str, list[object]] = {
        "two outputs": [value, -value],
        "five outputs": [0.1, 0.2, 0.3, 0.2, 0.2],
        "no output": [],
        "null": [None],
        "text": ["high"],
    }
    form = chance.choice([*readable, *unreadable])
    if form in readable:
        return form, True, clean(readable[form]), readable[form]
    return form, False, Reply(scores=unreadable[form]), value
