"""Constraints on length: words, sentences, paragraphs, and how these are counted."""

import re
from typing import Literal

from pydantic import Field

from judges.constraints.rule import Counted, Found, Rule, plural

Split = Literal["space", "runs"]


def count_words(text: str, split: Split = "space") -> int:
    """`space`: pieces between white space that hold a letter or a digit; `well-known` is one, `-` is none.
    `runs`: runs of letters, digits and underscores, as IFEval counts; `well-known` and `don't` are two each.
    """
    if split == "runs":
        return len(re.findall(r"\w+", text))
    return sum(any(c.isalnum() for c in piece) for piece in text.split())


_END = re.compile(
    r"""(?<!\b[Mm]r)(?<!\b[Mm]rs)(?<!\b[DdSs][rt])(?<!e\.g)(?<!i\.e)(?<![.!?…])[.!?…]+["'”’)\]*]*(?=\s|$)"""
)


def count_sentences(text: str, lines: bool = True) -> int:
    """Stretches of text between end marks; `3.5`, `Mr.`, `Dr.`, `e.g.` and the number of a list item end nothing.

    `lines`: the end of a line ends a sentence too, so a heading or a list item is one.
    """
    text = re.sub(r"^[ \t]*[0-9]{1,4}[.)](?=[ \t])", "", text, flags=re.MULTILINE)
    stretches = text.splitlines() if lines else [text]
    parts = (part for stretch in stretches for part in _END.split(stretch))
    return sum(any(c.isalnum() for c in part) for part in parts)


def paragraphs(text: str, separator: str | None = None) -> list[str]:
    """Stripped, between blank lines or between separators; with a separator one may be empty."""
    if separator is None:
        return re.split(r"\n\s*\n", text.strip())
    return [part.strip() for part in text.strip().split(separator)]


class _Words(Rule):
    n: int = Field(ge=1)
    split: Split = "space"
    """What a word is, see `count_words`."""


class MaxWords(_Words):
    kind: Literal["max_words"]

    def find(self, text: str) -> Found:
        found = count_words(text, self.split)
        return Found(0 < found <= self.n, self.n / max(found, self.n), plural(found, "word"))

    def describe(self) -> str:
        return f"at most {plural(self.n, 'word')}"


class MinWords(_Words):
    kind: Literal["min_words"]

    def find(self, text: str) -> Found:
        found = count_words(text, self.split)
        return Found(found >= self.n, found / self.n, plural(found, "word"))

    def describe(self) -> str:
        return f"at least {plural(self.n, 'word')}"


class _Sentences(Rule):
    n: int = Field(ge=1)
    lines: bool = True
    """Whether the end of a line ends a sentence."""


class MaxSentences(_Sentences):
    kind: Literal["max_sentences"]

    def find(self, text: str) -> Found:
        found = count_sentences(text, self.lines)
        return Found(0 < found <= self.n, self.n / max(found, self.n), plural(found, "sentence"))

    def describe(self) -> str:
        return f"at most {plural(self.n, 'sentence')}"


class MinSentences(_Sentences):
    kind: Literal["min_sentences"]

    def find(self, text: str) -> Found:
        found = count_sentences(text, self.lines)
        return Found(found >= self.n, found / self.n, plural(found, "sentence"))

    def describe(self) -> str:
        return f"at least {plural(self.n, 'sentence')}"


class Paragraphs(Counted):
    """A separator may also open or close the text; nothing between two of them is a paragraph that is missing."""

    kind: Literal["paragraphs"]
    separator: str | None = Field(default=None, min_length=1)
    """What stands between two, such as `***`; None: a blank line."""

    def find(self, text: str) -> Found:
        parts = paragraphs(text, self.separator)
        if "" in parts[1:-1]:
            return Found(False, 0.0, f"two {self.separator!r} with nothing between them")
        return self.count(sum(map(bool, parts)), "paragraph")

    def describe(self) -> str:
        between = f", with {self.separator!r} between them" if self.separator else ""
        return self.wanted("paragraph") + between


class SingleParagraph(Rule):
    kind: Literal["single_paragraph"]

    def find(self, text: str) -> Found:
        found = len(paragraphs(text))
        return Found(found == 1, 1 / max(found, 1), plural(found, "paragraph"))

    def describe(self) -> str:
        return "a single paragraph"


class ParagraphStarts(Rule):
    """A text of so many paragraphs, one of which opens with a word."""

    kind: Literal["paragraph_starts"]
    word: str = Field(min_length=1)
    """In any case; punctuation around it is set aside."""
    paragraph: int = Field(ge=1)
    """From 1."""
    of: int = Field(ge=1)
    """Paragraphs in all, with blank lines between them."""

    def find(self, text: str) -> Found:
        parts = paragraphs(text)
        first = (
            re.match(r"""["'“‘]*([^\s.,?!'"”’]*)""", parts[self.paragraph - 1 :][0])
            if self.paragraph <= len(parts)
            else None
        )
        opens = first[1] if first else ""
        right = (opens.casefold() == self.word.casefold(), len(parts) == self.of)
        return Found(
            all(right),
            sum(right) / 2,
            f"{plural(len(parts), 'paragraph')}, number {self.paragraph} opens {opens!r}",
        )

    def describe(self) -> str:
        return f"{plural(self.of, 'paragraph')}, number {self.paragraph} opens with {self.word!r}"
