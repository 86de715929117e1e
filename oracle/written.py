"""A score of one token inside a written answer, JSON with a reason beside it, written well and badly.

The label's probabilities stand at the token that is the score; where a server gives none, what is written counts.
"""

import json
import random
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from oracle.critique import REFUSED
from oracle.reply import Reply, top
from oracle.wording import Fields

REASONS = (
    "Names the lantern, but says too little about the place.",
    'It says "score": "5" of itself, which counts for nothing.',
    "1. It keeps 3 of 4 rules.\n2. It ends badly. {Cut} the last line.",
    "Der Hafen fehlt – schade; 5 wäre zu viel.",
)
MARK = "\ue000"
"""Stands where the score goes while an answer is put together."""


@dataclass(frozen=True, slots=True)
class Said:
    """An answer's text, with `MARK` for the score."""

    text: str
    finish_reason: str = "stop"


Shape = Callable[[Fields, random.Random], Said]


def _object(fields: Fields, chance: random.Random, mark: str = f'"{MARK}"', **layout: Any) -> str:
    """The JSON that is asked for, `mark` as its score."""
    values = {name: "SCORE" if name == fields.score else chance.choice(REASONS) for name in fields.names}
    return json.dumps(values, ensure_ascii=chance.random() < 0.5, **layout).replace('"SCORE"', mark)


def _clean(fields: Fields, chance: random.Random) -> Said:
    return Said(_object(fields, chance))


def _around(before: str = "", after: str = "", **layout: Any) -> Shape:
    return lambda fields, chance: Said(before + _object(fields, chance, **layout) + after)


def _more(fields: Fields, chance: random.Random) -> Said:
    return Said(_object(fields, chance)[:-1] + ', "confidence": "high"}')


def _draft(fields: Fields, chance: random.Random) -> Said:
    draft = _object(fields, chance, '"1"')
    return Said(f"{draft}\n\nOn reflection:\n\n{_object(fields, chance)}")


def _after(before: str, between: str) -> Shape:
    """With another score first, which is thought and not said."""
    return lambda f, c: Said(before + _object(f, c, '"1"') + between + _object(f, c))


def _cut_in_reason(fields: Fields, chance: random.Random) -> Said:
    """Where the score stands first, the answer says it; where it stands last, it does not."""
    return Said(f'{{"{fields.names[0]}": ' + _cut(fields, chance), "length")


def _cut(fields: Fields, chance: random.Random) -> str:
    words = json.dumps(chance.choice(REASONS))[:20].rstrip("\\")
    return f'"{MARK}", "{fields.names[1]}": {words}' if fields.first else words


READABLE: dict[str, Shape] = {
    "words before": _around("Here is my grade.\n\n"),
    "words after": _around(after="\n\nI hope this helps the writer!"),
    "fence": _around("```json\n", "\n```"),
    "fence without a name": _around("```\n", "\n```"),
    "one line, no spaces": _around(separators=(",", ":")),
    "indented": _around(indent=4),
    "carriage returns": lambda f, c: Said(_object(f, c, indent=2).replace("\n", "\r\n")),
    "a number for a text": lambda f, c: Said(_object(f, c, MARK)),
    "a field too many": _more,
    "a draft first": _draft,
    "thinking": _after("<think>", "?</think>\n"),
    "end of thinking": _after("", ", or\n</think>\n\n"),
    "chat marker": _around(after="<|im_end|>"),
    "empty lines first": _around("\n\n"),
}
UNREADABLE: dict[str, Shape] = {
    "nothing": lambda f, c: Said(""),
    "white space": lambda f, c: Said(" \n"),
    "words alone": lambda f, c: Said(f"A good answer, {MARK} of 5 I think."),
    "no score": lambda f, c: Said(json.dumps({f.reason: c.choice(REASONS)})),
    "no object": lambda f, c: Said(f'["{MARK}", "good"]'),
    "two scores": lambda f, c: Said(_object(f, c, '"2 or 4"')),
    "a list of scores": lambda f, c: Said(_object(f, c, '["2", "4"]')),
    "a word": lambda f, c: Said(_object(f, c, '"good"')),
    "null": lambda f, c: Said(_object(f, c, "null")),
    "not applicable": lambda f, c: Said(_object(f, c, '"N/A"')),
    "above the scale": lambda f, c: Said(_object(f, c, '"6"')),
    "ten": lambda f, c: Said(_object(f, c, "10")),
    "zero": lambda f, c: Said(_object(f, c, '"0"')),
    "negative": lambda f, c: Said(_object(f, c, "-3")),
    "between two": lambda f, c: Said(_object(f, c, '"3.5"')),
    "another scale": lambda f, c: Said(_object(f, c, '"4/10"')),
    "only in thinking": lambda f, c: Said(f"<think>{_object(f, c)}</think>"),
    "thinking without an end": lambda f, c: Said(f"<think>\n{_object(f, c)}"),
    "another name": lambda f, c: Said(json.dumps({"tone": "5", f.reason: c.choice(REASONS)})),
    "code": lambda f, c: Said(_object(f, c, "__import__('os').getpid()")),
}
CUT: dict[str, Shape] = {
    "cut before anything": lambda f, c: Said("", "length"),
    "cut in the reason": _cut_in_reason,
    "cut at the score": lambda f, c: Said(_object(f, c).partition(MARK)[0], "length"),
    "cut after the score": lambda f, c: Said(_object(f, c).partition(MARK)[0] + MARK, "length"),
    "cut while thinking": lambda f, c: Said(f"<think>{_object(f, c)}, or", "length"),
}
SPREAD = {
    "a third off the scale": (0.65, True),
    "all off the scale": (0.0, False),
    "more than all probability": (1.8, False),
}
"""Of an answer that is written well: what the labels have together at the score, and whether that is a verdict."""


def clean(fields: Fields, shares: dict[str, float], chance: random.Random) -> Reply:
    return _reply(_clean(fields, chance), shares, chance)


def badly(
    kind: str, fields: Fields, shares: dict[str, float], least: float, chance: random.Random
) -> tuple[str, bool, bool, Reply]:
    """A reply that is malformed, truncated or refused: what it is, whether it can be read, whether what is written
    counts and not the probabilities, and itself. `least`: share of the probability that labels must have."""
    if kind == "refused":
        if chance.random() < 0.3:
            reply = _reply(_clean(fields, chance), shares, chance)
            reply.finish_reason = "content_filter"
            return "content filter", False, False, reply
        if chance.random() < 0.3:
            return "refusal field", False, False, Reply([None], refusal="I can't grade this.")
        form = chance.choice(list(REFUSED))
        return f"refused {form}", False, False, Reply([REFUSED[form]])
    if kind == "truncated":
        form = chance.choice(list(CUT))
        readable = form == "cut in the reason" and fields.first
        return form, readable, False, _reply(CUT[form](fields, chance), shares, chance)
    drawn = chance.random()
    if drawn < 0.15:
        form = chance.choice(list(SPREAD))
        on_labels, readable = SPREAD[form]
        reply = _reply(_clean(fields, chance), shares, chance, on_labels)
        return form, readable and on_labels >= least, False, reply
    if drawn < 0.25:
        reply = clean(fields, shares, chance)
        reply.logprobs = None
        return "no log-probabilities", True, True, reply
    shapes = READABLE if drawn < 0.6 else UNREADABLE
    form = chance.choice(list(shapes))
    return form, shapes is READABLE, False, _reply(shapes[form](fields, chance), shares, chance)


def sample(fields: Fields, label: str, spoilt: bool, chance: random.Random) -> str:
    """One of several answers."""
    shapes = UNREADABLE if spoilt else READABLE
    return chance.choice(list(shapes.values()))(fields, chance).text.replace(MARK, label)


def _reply(said: Said, shares: dict[str, float], chance: random.Random, on_labels: float = 0.97) -> Reply:
    """The answer with the likeliest label in it, and every token's log-probabilities, the score's one of its own."""
    best = max(shares, key=lambda label: shares[label])
    content: list[dict[str, Any]] = []
    for i, part in enumerate(said.text.split(MARK)):
        if i:
            rows = [(label, on_labels * share) for label, share in shares.items()]
            rest = max(0.0, 1 - on_labels)
            rows += [("good", 0.7 * rest), ("10", 0.3 * rest)]
            ranked = top(rows)["content"][0]["top_logprobs"]
            own = next(row for row in ranked if row["token"] == best)
            content.append(own | {"top_logprobs": ranked})
        content += [top([(piece, 1.0)])["content"][0] for piece in _pieces(part, chance)]
    return Reply([said.text.replace(MARK, best)], said.finish_reason, logprobs={"content": content})


def _pieces(text: str, chance: random.Random) -> list[str]:
    """A text in tokens of a few letters."""
    found, at = [], 0
    while at < len(text):
        end = at + chance.randrange(1, 6)
        found.append(text[at:end])
        at = end
    return found
