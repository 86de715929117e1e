"""Reads a judge's prompt as a person would: which answers are shown, under which name, and what verdict is asked for.

Where a correct judge could not tell, `Unanswerable` says why: a wording that nobody can answer makes no labels.
"""

import re
from collections.abc import Mapping
from dataclasses import dataclass

from oracle.tasks import TAG, Answer

INVISIBLE = str.maketrans("", "", "\u200b")


class Unanswerable(Exception):
    """What a judge prompt lacks."""


@dataclass(frozen=True, slots=True)
class Shown:
    """A judge's prompt, taken apart."""

    answers: tuple[Answer, ...]
    """In the order in which they are named: A before B, Text 1 before Text 2."""
    first: int
    """Which of them stands first on the page."""
    wording: str
    """Everything but the answers."""


def shown(prompt: str, written: Mapping[str, Answer]) -> Shown:
    """The answers in a prompt, found by their tags, and the words around them.

    Raises:
        Unanswerable: no answer is shown whole, or one can pass for a part of the prompt.
    """
    plain = prompt.translate(INVISIBLE)
    places: list[tuple[int, int, Answer]] = []
    for tag in dict.fromkeys(TAG.findall(plain.lower())):
        answer = written.get(tag)
        if answer is None:
            continue
        text = answer.text.translate(INVISIBLE).strip()
        at = plain.find(text)
        if at < 0:
            raise Unanswerable("the prompt does not show the whole answer as it was written")
        places.append((at, at + len(text), answer))
    if not places:
        raise Unanswerable("the prompt shows no answer")
    places.sort()
    parts, ends = [], 0
    for start, end, _ in places:
        parts.append(plain[ends:start])
        ends = end
    parts.append(plain[ends:])
    _unforged(prompt, parts)
    order = _named(parts[:-1])
    ranked = sorted(range(len(places)), key=lambda i: order[i])
    return Shown(tuple(places[i][2] for i in ranked), ranked.index(0), "\n\x00\n".join(parts))


def _unforged(prompt: str, parts: list[str]) -> None:
    """No line of an answer, as the judge sees it, is one of the prompt's own headings."""
    own = [line.strip() for part in parts for line in part.splitlines() if line.strip().startswith("#")]
    seen = [line.strip() for line in prompt.splitlines()]
    for line in set(own):
        if seen.count(line) > own.count(line):
            raise Unanswerable(f"an answer can pass for the part {line!r} of the prompt")


_NAME = re.compile(r"\b(?:(?P<letter>[ABC])|(?P<number>[0-9]{1,3})|(?P<word>first|second))\b")


def _named(before: list[str]) -> list[int]:
    """Each answer's rank by the name in the last words before it; by its place where names are missing."""
    if len(before) == 1:
        return [0]
    ranks: list[int | None] = []
    for part in before:
        lines = [line for line in part.splitlines() if any(c.isalnum() for c in line)]
        found = list(_NAME.finditer(lines[-1])) if lines else []
        ranks.append(_rank(found[-1]) if found else None)
    known = [rank for rank in ranks if rank is not None]
    if not known:
        return list(range(len(before)))
    if len(known) < len(before) or sorted(known) != list(range(len(before))):
        raise Unanswerable(f"the {len(before)} answers are not told apart by their headings")
    return known


def _rank(name: re.Match[str]) -> int:
    if name["letter"]:
        return "ABC".index(name["letter"])
    return int(name["number"]) - 1 if name["number"] else ("first", "second").index(name["word"])


def named_labels(wording: str, labels: str) -> None:
    """Whether the wording says which letters may be answered.

    Raises:
        Unanswerable: it does not.
    """
    missing = [label for label in labels if not re.search(rf"(?<!\w){label}(?!\w)", wording)]
    if missing:
        raise Unanswerable(f"the wording never says that {' or '.join(missing)} may be answered")


_SCALE = re.compile(
    r"\b([0-9]+)\b\s*(\([^)]*\))?\s*(?:to|-|–|through|and)\s+(?:a\s+)?([0-9]+)\b\s*(\([^)]*\))?"
)
_GOOD, _BAD = r"\b(best|perfect|excellent|flawless)\b", r"\b(worst|useless|terrible|poor)\b"


def check_scale(wording: str, low: int, high: int) -> None:
    """Whether the wording asks for the scale on which the judge is read, worst first.

    Raises:
        Unanswerable: another scale, none, or one that runs the other way.
    """
    scales = [(int(m[1]), m[2] or "", int(m[3]), m[4] or "") for m in _SCALE.finditer(wording)]
    ours = [scale for scale in scales if (scale[0], scale[2]) == (low, high)]
    if not ours:
        numbers = {int(n) for n in re.findall(r"(?<![\w.])([0-9]+)(?![\w.]*[0-9])", wording)}
        if scales:
            raise Unanswerable(
                f"its scale is {scales[-1][0]} to {scales[-1][2]}; the judge is read from {low} to {high}"
            )
        if not {low, high} <= numbers:
            raise Unanswerable(f"the wording names no scale from {low} to {high}")
        return
    for _, at_low, _, at_high in ours:
        if re.search(_GOOD, at_low, re.I) or re.search(_BAD, at_high, re.I):
            raise Unanswerable(f"{low} is its best score; the judge is read with {high} as the best")


_LINE = re.compile(
    r"^[\W_]*(?P<name>[A-Za-z][A-Za-z _-]{1,30}?)[\W_]*[:：=][ \t]*(?P<what>.*)$", re.MULTILINE
)


def score_line(wording: str, high: int) -> str:
    """What stands before the score on the line that the wording asks for, such as `Overall score`.

    Raises:
        Unanswerable: it asks for no such line.
    """
    asked = [
        m["name"]
        for m in _LINE.finditer(wording)
        if re.search(rf"\bnumber\b|\b{high}\b|\bN\b|\bX\b", m["what"])
    ]
    if not asked:
        raise Unanswerable(
            "the wording shows no line on which the score is to stand, such as `Overall score: a number`"
        )
    return asked[-1]


@dataclass(frozen=True, slots=True)
class Block:
    """How the wording wants the verdict on one text."""

    heading: str
    """With {n} for the text's number."""
    fields: tuple[str, ...]
    """Names of the lines under it, in order."""
    rating: int
    """Which of them is the number."""


def block(wording: str) -> Block:
    """The block that the wording shows for text 1.

    Raises:
        Unanswerable: it shows none with a number in it.
    """
    lines = wording.splitlines()
    for i, line in enumerate(lines):
        if not re.search(r"\b1\W*$", line.strip()) or not re.match(r"\W*[A-Za-z ]+1\W*$", line.strip()):
            continue
        fields: list[tuple[str, str]] = []
        for under in lines[i + 1 :]:
            match = _LINE.match(under)
            if not match:
                break
            fields.append((match["name"], match["what"]))
        numbers = [k for k, (_, what) in enumerate(fields) if re.search(r"\ba number\b|\b1\b.*\b5\b", what)]
        if numbers:
            heading = re.sub(r"1(\W*)$", r"{n}\1", line.strip())
            return Block(heading, tuple(name for name, _ in fields), numbers[0])
    raise Unanswerable("the wording shows no block with a rating for each text")


@dataclass(frozen=True, slots=True)
class Fields:
    """The JSON that the wording asks for: a score and a text."""

    names: tuple[str, str]
    """In the order in which they are to be written."""
    score: str
    """Which of them is the score."""

    @property
    def first(self) -> bool:
        """The score stands before the text."""
        return self.names[0] == self.score

    @property
    def reason(self) -> str:
        return self.names[1] if self.first else self.names[0]


def json_fields(wording: str, low: int, high: int) -> Fields:
    """The fields of the JSON that the wording shows.

    Raises:
        Unanswerable: it shows none of a score and a text.
    """
    for shown_json in reversed(re.findall(r"\{[^{}]*\}", wording)):
        fields = re.findall(r'"([^"]+)"\s*:\s*"([^"]*)"', shown_json)
        scores = [name for name, what in fields if re.search(rf"\b{low}\b.*\b{high}\b", what)]
        if len(fields) == 2 and len(scores) == 1:
            return Fields((fields[0][0], fields[1][0]), scores[0])
    raise Unanswerable("the wording shows no JSON with a score and a text")
