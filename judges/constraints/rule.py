"""What every constraint is: it finds something in a text, and says whether and how nearly that is what was wanted."""

from typing import NamedTuple, Self

from pydantic import Field, model_validator

from records.base import Strict

BROKEN = 0.5
"""Most a broken constraint is worth: breaking one always costs more than it can be nearly kept."""


class Found(NamedTuple):
    kept: bool
    near: float
    """How near, from 0 to 1, where it is not kept."""
    seen: str
    """What the text has, in words."""


class Graded(NamedTuple):
    kept: bool
    degree: float
    """1 where the constraint is kept, else 0 to 0.5, larger when it is nearly kept."""
    seen: str


class NoAnswer(Exception):
    """The text has nothing the constraint could be held against, which is not the same as breaking it."""


class Rule(Strict):
    """What all constraints share."""

    def find(self, text: str) -> Found:
        """What `text`, which is not empty, has.

        Raises:
            NoAnswer: see there.
        """
        raise NotImplementedError

    def describe(self) -> str:
        raise NotImplementedError

    def grade(self, text: str, loose: bool = False) -> Graded:
        """Whether and how nearly `text` keeps the constraint. An empty text keeps none.

        `loose`: one of `loosely(text)` is enough. Raises `NoAnswer`.
        """
        if not text.strip():
            return Graded(False, 0.0, "nothing")
        found = self.find(text)
        if found.kept:
            return Graded(True, 1.0, found.seen)
        if loose and any(self.find(version).kept for version in loosely(text)):
            return Graded(True, 1.0, found.seen)
        return Graded(False, BROKEN * min(max(found.near, 0.0), 1.0), found.seen)

    def check(self, text: str) -> bool:
        """Whether `text` keeps the constraint; one without an answer keeps none."""
        try:
            return self.grade(text).kept
        except NoAnswer:
            return False


def loosely(text: str) -> list[str]:
    """A text without its first line, its last, or both, each with and without asterisks: an answer that opens with
    `Sure, here it is:` or sets a word in bold may still have what was asked for. IFEval's eight, less the text itself.
    """
    lines = text.split("\n")
    cut = [text, *("\n".join(part).strip() for part in (lines[1:], lines[:-1], lines[1:-1]))]
    versions = dict.fromkeys([*cut, *(version.replace("*", "") for version in cut)])
    return [version for version in versions if version != text and version.strip()]


class Counted(Rule):
    """A rule about how many there are of something."""

    n: int | None = Field(default=None, ge=1)
    """Exactly so many."""
    at_least: int | None = Field(default=None, ge=1)
    at_most: int | None = Field(default=None, ge=0)

    @model_validator(mode="after")
    def _one_count(self) -> Self:
        given = {"n": self.n, "at_least": self.at_least, "at_most": self.at_most}
        if sum(value is not None for value in given.values()) != 1:
            said = ", ".join(f"{name}={value}" for name, value in given.items())
            raise ValueError(f"{said}: wanted exactly one of the three")
        return self

    def count(self, found: int, what: str) -> Found:
        seen = plural(found, what)
        if self.at_most is not None:
            return Found(found <= self.at_most, self.at_most / max(found, 1), seen)
        wanted = self.n or self.at_least or 1
        kept = found == wanted if self.n else found >= wanted
        return Found(kept, min(found, wanted) / max(found, wanted), seen)

    def wanted(self, what: str) -> str:
        for name, words in (("n", "exactly"), ("at_least", "at least"), ("at_most", "at most")):
            if (value := getattr(self, name)) is not None:
                return f"{words} {plural(value, what)}"
        raise AssertionError("one count is always given")


def plural(n: int, what: str) -> str:
    return f"{n} {what}" if n == 1 else f"{n} {what}s"
