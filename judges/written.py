"""A score inside a written answer: the JSON that is asked for, the score in it, and the distribution at its token.

The score is found by its place in the text, not as the first digit of the answer, and the token that stands at that
place has the distribution. A reason that is cut off loses words; a score that is cut off is none.
"""

import json
import math
import re
from collections.abc import Sequence
from typing import Any, NamedTuple

from judges.base import Unread, unread
from judges.labels import Shares, normal
from serving.chat import Choice, Reply, Token

SCORE = "score"
MARKER = f'"{SCORE}"'
"""What a judged text must not hold: a judge that quotes it would give its score."""
AROUND = " \t\r\n\"'{}[]:,"
"""What a token of JSON may hold beside the score."""


def schema(labels: Sequence[str], first: bool, text: str) -> dict[str, Any]:
    """An object of a score and a text, in the order in which they are written."""
    fields = {SCORE: {"type": "string", "enum": list(labels)}, text: {"type": "string"}}
    names = [SCORE, text] if first else [text, SCORE]
    return {
        "type": "object",
        "properties": {name: fields[name] for name in names},
        "required": names,
        "additionalProperties": False,
    }


class Written(NamedTuple):
    """What stands in an answer."""

    label: str
    offset: int
    """Of the label, in characters of the answer's text."""
    text: str
    cut_off: bool
    """The text ends where the answer ran into its longest."""


_KEY = re.compile(r'"score"\s*:\s*"?(?P<label>[^",}\s]*)"?\s*(?=[,}])')


def find(choice: Choice, labels: Sequence[str], text: str) -> Written:
    """The score and the text beside it: of the last object in the answer, after any thinking.

    Raises:
        Unread: refused, cut off before the score, no such object, or a score that is no label.
    """
    if choice.refusal or choice.finish_reason == "content_filter":
        raise unread(choice, "")
    said = choice.text
    start = len(said) - len(said.rpartition("</think>")[2])
    if said[start:].lstrip().startswith("<think>"):  # it never ended, so nothing was said
        start = len(said)
    found, at = None, start
    while (at := said.find("{", at)) >= 0:
        try:
            value, end = json.JSONDecoder().raw_decode(said, at)
        except json.JSONDecodeError:
            at += 1
            continue
        if isinstance(value, dict) and SCORE in value and text in value:
            found = value, at, end
        at = end
    if found is not None:
        value, at, end = found
        label, words, cut_off = str(value[SCORE]).strip(), str(value.get(text, "")), False
        key = _own_key(said, at, end)
    else:
        begun = re.match(r"\s*(?:```(?:json)?\s*)?\{\s*", said[start:])
        key = _KEY.match(said, start + begun.end()) if begun else None
        if key is None or choice.finish_reason != "length":
            raise unread(choice, f"no JSON with a {SCORE!r} in {' '.join(said[start:].split())[:60]!r}")
        label, words, cut_off = key["label"], said[key.end() :], True
    if key is None or label not in labels:
        raise Unread(f"{SCORE} {label[:20]!r} is none of {', '.join(labels)}")
    return Written(label, key.start("label"), words.strip(), cut_off)


def _own_key(said: str, at: int, end: int) -> re.Match[str] | None:
    """The object's own score: one inside a string has its quotes escaped, and of a doubled key the last counts."""
    own = [key for key in _KEY.finditer(said, at, end) if said[key.start() - 1] != "\\"]
    return own[-1] if own else None


def token_at(choice: Choice, offset: int) -> Token | None:
    """The token at that place of the text; None where tokens and text do not fit together.

    Some servers take marks off around the JSON. Tokens of half a letter print as something else, so that the text fits
    only from its beginning or from its end.
    """
    joined = "".join(token.text for token in choice.tokens)
    if (begins := joined.rfind(choice.text)) >= 0:
        place = begins + offset
    elif joined[: offset + 1] == choice.text[: offset + 1]:
        place = offset
    elif joined.endswith(choice.text[offset:]):
        place = len(joined) - (len(choice.text) - offset)
    else:
        return None
    for token in choice.tokens:
        if place < len(token.text):
            return token
        place -= len(token.text)
    return None


def shares(choice: Choice, written: Written, labels: Sequence[str], min_mass: float) -> Shares | None:
    """The distribution at the score's token; None where the endpoint gave no log-probabilities there.

    Raises:
        Unread: too little of it is on the labels.
    """
    token = token_at(choice, written.offset)
    if token is None or token.text.strip(AROUND) != written.label or not token.alternatives:
        return None
    weights: dict[str, float] = dict.fromkeys(labels, 0.0)
    for other, logprob in token.alternatives.items():
        if (label := other.strip(AROUND)) in weights:
            weights[label] += math.exp(logprob)
    return normal(weights, min_mass)


def lean(reply: Reply, labels: Sequence[str]) -> Reply:
    """The reply as it is stored: alternatives only of tokens that may be the score; twenty at each word are much."""
    choices = [
        Choice(
            choice.text,
            choice.finish_reason,
            tuple(
                token if token.text.strip(AROUND) in labels else Token(token.text, {})
                for token in choice.tokens
            ),
            choice.refusal,
        )
        for choice in reply.choices
    ]
    return Reply(tuple(choices), reply.usage, reply.server, reply.scores)
