"""Constraints a machine can check, as a prompt's `meta["constraints"]` writes them: {kind: max_words, n: 25}.

`check` says whether a text keeps one. `degree` is 1 exactly when it does; what is broken gets at most 0.5,
and less the further it is off, so an answer of 200 words ranks below one of 26 where 25 were asked for.
"""

import json
import re
from fractions import Fraction
from typing import Annotated, Any, Literal

from pydantic import Field, TypeAdapter, model_validator

from records.base import Strict

BROKEN = 0.5
"""Most a broken constraint is worth: breaking one always costs more than it can be nearly kept."""

Found = tuple[bool, float, str]
"""Whether the constraint is kept; how near, from 0 to 1, where it is not; what was found, in words."""


def count_words(text: str) -> int:
    """Pieces between white space that hold a letter or a digit: `well-known` is one, `-` is none."""
    return sum(any(c.isalnum() for c in piece) for piece in text.split())


_END = re.compile(
    r"""(?<!\b[Mm]r)(?<!\b[Mm]rs)(?<!\b[DdSs][rt])(?<!e\.g)(?<!i\.e)(?<![.!?…])[.!?…]+["'”’)\]*]*(?=\s|$)"""
)


def count_sentences(text: str) -> int:
    """Stretches of text between end marks or line ends; `3.5`, `Mr.`, `Dr.` and `e.g.` end nothing."""
    parts = (part for line in text.splitlines() for part in _END.split(line))
    return sum(any(c.isalnum() for c in part) for part in parts)


_DIGITS = r"[0-9]{1,40}(?:,[0-9]{3})*(?:\.[0-9]{1,40})?(?![0-9])"
_NUMBER = re.compile(rf"(?:(?<![\w)])[-−])?\$?(?<![\w.])(?:{_DIGITS})(?:/[0-9]{{1,40}})?")
_MARK = re.compile(
    r"^[ \t]*(?:A|Answer):(?P<line>.*)$|####(?P<hashes>.*)$"
    r"|\\boxed\{(?P<boxed>[^{}]*)\}|\banswer is(?P<said>.*)$",
    flags=re.MULTILINE | re.IGNORECASE,
)


def read_number(text: str) -> Fraction | None:
    """The number a text is: `$1,250.50`, `3/4`, `1 1/2`, `50%` (50), `18.`; None where it is no number."""
    plain = re.sub(r"[*$,]", "", text.replace("−", "-")).strip().rstrip(".%").strip()
    match = re.fullmatch(r"(-?)(?:([0-9]{1,40}) )?([0-9]{0,40}(?:\.[0-9]{1,40})?)(?:/([0-9]{1,40}))?", plain)
    if match is None or not match[3] or (match[2] and not match[4]) or (match[4] and not int(match[4])):
        return None
    value = Fraction(match[3]) / int(match[4] or 1) + int(match[2] or 0)
    return -value if match[1] else value


def final_number(text: str, read: Literal["marked", "last"]) -> Fraction | None:
    """The number a solution ends on; None where there is none.

    `marked` takes the last mark alone (`A:`, `Answer:`, `####`, `\\boxed{}`, `answer is`), and what is there
    must be a number: an earlier mark never stands in for it. `last` takes the last number in the text.
    """
    text = re.sub(r"\\d?frac\{([0-9.]+)\}\{([0-9]+)\}", r"\1/\2", text)
    if read == "last":
        numbers = _NUMBER.findall(text)
        return read_number(numbers[-1]) if numbers else None
    marks = list(_MARK.finditer(text))
    if not marks:
        return None
    if (said := marks[-1]["said"]) is not None:
        first = _NUMBER.search(re.split("answer is", said, flags=re.IGNORECASE)[-1])
        return read_number(first[0]) if first else None
    return read_number(next(part for part in marks[-1].groups() if part is not None))


class Rule(Strict):
    """What all constraints share."""

    def find(self, text: str) -> Found:
        raise NotImplementedError

    def describe(self) -> str:
        raise NotImplementedError

    def check(self, text: str) -> bool:
        """Whether `text` keeps the constraint. An empty text keeps none."""
        return bool(text.strip()) and self.find(text)[0]

    def degree(self, text: str) -> float:
        """1 where the constraint is kept, else 0 to 0.5, larger when it is nearly kept."""
        if self.check(text):
            return 1.0
        return BROKEN * min(max(self.find(text)[1], 0.0), 1.0) if text.strip() else 0.0


def _plural(n: int, what: str) -> str:
    return f"{n} {what}" if n == 1 else f"{n} {what}s"


class MaxWords(Rule):
    kind: Literal["max_words"]
    n: int = Field(ge=1)

    def find(self, text: str) -> Found:
        found = count_words(text)
        return 0 < found <= self.n, self.n / max(found, self.n), _plural(found, "word")

    def describe(self) -> str:
        return f"at most {_plural(self.n, 'word')}"


class MinWords(Rule):
    kind: Literal["min_words"]
    n: int = Field(ge=1)

    def find(self, text: str) -> Found:
        found = count_words(text)
        return found >= self.n, found / self.n, _plural(found, "word")

    def describe(self) -> str:
        return f"at least {_plural(self.n, 'word')}"


class MaxSentences(Rule):
    kind: Literal["max_sentences"]
    n: int = Field(ge=1)

    def find(self, text: str) -> Found:
        found = count_sentences(text)
        return 0 < found <= self.n, self.n / max(found, self.n), _plural(found, "sentence")

    def describe(self) -> str:
        return f"at most {_plural(self.n, 'sentence')}"


class EndsWithPunctuation(Rule):
    """A full stop, question or exclamation mark or ellipsis, inside or before closing quotes and brackets."""

    kind: Literal["ends_with_punctuation"]

    def find(self, text: str) -> Found:
        end = text.rstrip()
        return end.rstrip("\"'”’)]*_`").endswith((".", "!", "?", "…")), 0.0, f"it ends {end[-15:]!r}"

    def describe(self) -> str:
        return "ends with punctuation"


class _Listed(Rule):
    n: int | None = Field(default=None, ge=1)
    """Exactly so many."""
    at_least: int | None = Field(default=None, ge=1)

    @model_validator(mode="after")
    def _one_count(self) -> "_Listed":
        if (self.n is None) == (self.at_least is None):
            raise ValueError(f"n={self.n} and at_least={self.at_least}: wanted exactly one of the two")
        return self

    def _count(self, found: int, what: str) -> Found:
        wanted = self.n or self.at_least or 1
        kept = found == wanted if self.n else found >= wanted
        return kept, min(found, wanted) / max(found, wanted), _plural(found, what)

    def _wanted(self, what: str) -> str:
        return (
            f"exactly {_plural(self.n, what)}" if self.n else f"at least {_plural(self.at_least or 1, what)}"
        )


class BulletList(_Listed):
    kind: Literal["bullet_list"]

    def find(self, text: str) -> Found:
        return self._count(len(re.findall(r"^[ \t]*[-*•+][ \t]+\S", text, flags=re.MULTILINE)), "bullet")

    def describe(self) -> str:
        return self._wanted("bullet")


class NumberedList(_Listed):
    """Lines that open with 1. 2. 3. (or `1)`), in this order."""

    kind: Literal["numbered_list"]

    def find(self, text: str) -> Found:
        numbers = [int(n) for n in re.findall(r"^[ \t]*(\d{1,4})[.)][ \t]+\S", text, flags=re.MULTILINE)]
        kept, near, seen = self._count(len(numbers), "numbered line")
        ordered = numbers == list(range(1, len(numbers) + 1))
        return kept and ordered, near, seen if ordered else f"{seen}, numbered {numbers[:8]}"

    def describe(self) -> str:
        return self._wanted("numbered line")


class JsonObject(Rule):
    """The whole answer is one JSON object with at least these keys; a Markdown fence around it is allowed."""

    kind: Literal["json_object"]
    keys: tuple[str, ...] = ()

    def find(self, text: str) -> Found:
        fenced = re.fullmatch(r"```(?:json)?\s*\n(.*)\n```", text.strip(), flags=re.DOTALL)
        try:
            value = json.loads(fenced[1] if fenced else text)
        except (ValueError, RecursionError):
            return False, 0.0, "no JSON"
        if not isinstance(value, dict):
            return False, 0.0, f"JSON of type {type(value).__name__}"
        have = [key for key in self.keys if key in value]
        return have == list(self.keys), len(have) / max(len(self.keys), 1), f"keys {list(value)[:8]}"

    def describe(self) -> str:
        return f"a JSON object with {', '.join(self.keys)}" if self.keys else "a JSON object"


class _Phrases(Rule):
    phrases: tuple[Annotated[str, Field(min_length=1)], ...] = Field(min_length=1)

    def _present(self, text: str) -> list[str]:
        """Whole words, in any case."""
        return [p for p in self.phrases if re.search(rf"(?<!\w){re.escape(p)}(?!\w)", text, re.IGNORECASE)]


class Contains(_Phrases):
    kind: Literal["contains"]

    def find(self, text: str) -> Found:
        have = self._present(text)
        return len(have) == len(self.phrases), len(have) / len(self.phrases), f"it has {have}"

    def describe(self) -> str:
        return f"contains {', '.join(map(repr, self.phrases))}"


class Excludes(_Phrases):
    kind: Literal["excludes"]

    def find(self, text: str) -> Found:
        have = self._present(text)
        return not have, 1 - len(have) / len(self.phrases), f"it has {have}"

    def describe(self) -> str:
        return f"leaves out {', '.join(map(repr, self.phrases))}"


class StartsWith(Rule):
    kind: Literal["starts_with"]
    phrase: str = Field(min_length=1)

    def find(self, text: str) -> Found:
        start = text.lstrip()[: len(self.phrase)]
        return start.casefold() == self.phrase.casefold(), 0.0, f"it starts {start!r}"

    def describe(self) -> str:
        return f"starts with {self.phrase!r}"


class _Case(Rule):
    def _letters(self, text: str, right: str) -> Found:
        pairs = [(a, b) for a, b in zip(text, right, strict=False) if a.isalpha()]
        near = sum(a == b for a, b in pairs) / max(len(pairs), 1)
        return bool(pairs) and text == right, near, f"{near:.0%} of its letters"


class Lowercase(_Case):
    kind: Literal["lowercase"]

    def find(self, text: str) -> Found:
        return self._letters(text, text.lower())

    def describe(self) -> str:
        return "all in lower case"


class Uppercase(_Case):
    kind: Literal["uppercase"]

    def find(self, text: str) -> Found:
        return self._letters(text, text.upper())

    def describe(self) -> str:
        return "all in capitals"


class OneOf(Rule):
    """The whole answer is one of these, in any case, a closing stop aside."""

    kind: Literal["one_of"]
    options: tuple[str, ...] = Field(min_length=1)

    def find(self, text: str) -> Found:
        plain = text.strip().rstrip(".!").casefold()
        return plain in {option.casefold() for option in self.options}, 0.0, f"it reads {text.strip()[:20]!r}"

    def describe(self) -> str:
        return f"is one of {', '.join(map(repr, self.options))}"


class SingleParagraph(Rule):
    kind: Literal["single_paragraph"]

    def find(self, text: str) -> Found:
        found = len(re.split(r"\n\s*\n", text.strip()))
        return found == 1, 1 / max(found, 1), _plural(found, "paragraph")

    def describe(self) -> str:
        return "a single paragraph"


class NumberAnswer(Rule):
    """The final answer is this number; `$`, commas, a trailing stop and fractions are understood."""

    kind: Literal["number_answer"]
    value: str
    read: Literal["marked", "last"] = "last"
    """After the last mark, see `final_number`, or the last number in the text."""

    @model_validator(mode="before")
    @classmethod
    def _number_as_text(cls, data: Any) -> Any:
        if isinstance(data, dict) and isinstance(data.get("value"), int | float):
            return data | {"value": str(data["value"])}
        return data

    @model_validator(mode="after")
    def _value_is_a_number(self) -> "NumberAnswer":
        if read_number(self.value) is None:
            raise ValueError(f"value={self.value!r}, wanted a number such as 18, 1,250.5 or 3/4")
        return self

    def find(self, text: str) -> Found:
        found = final_number(text, self.read)
        return (
            found == read_number(self.value),
            0.0,
            "no final number" if found is None else f"it says {found}",
        )

    def describe(self) -> str:
        return f"the final answer is {self.value}"


Constraint = Annotated[
    MaxWords
    | MinWords
    | MaxSentences
    | EndsWithPunctuation
    | BulletList
    | NumberedList
    | JsonObject
    | Contains
    | Excludes
    | StartsWith
    | Lowercase
    | Uppercase
    | OneOf
    | SingleParagraph
    | NumberAnswer,
    Field(discriminator="kind"),
]
CONSTRAINT: TypeAdapter[Constraint] = TypeAdapter(Constraint)
