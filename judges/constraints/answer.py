"""The final answer of a solution as an exact number, and the constraint that it is the right one.

A text without a number to compare is not wrong: it raises `NoAnswer`, and the judgement gets status `no_answer`.
"""

import re
from fractions import Fraction
from typing import Any, Literal, Self

from pydantic import model_validator

from judges.constraints.rule import Found, Graded, NoAnswer, Rule

Read = Literal["marked", "last"]

_DIGITS = r"[0-9]{1,40}(?:,[0-9]{3})*(?:\.[0-9]{1,40})?(?![0-9])"
_NUMBER = re.compile(
    rf"(?:(?<![\w)])[-−])?[$€£]?(?:(?<![\w./])[0-9]{{1,40}} (?=[0-9]+/))?(?<![\w.])(?:{_DIGITS})(?:/[0-9]{{1,40}})?"
)
_MARK = re.compile(
    r"^[ \t>*_]*(?:A|(?:the )?(?:final )?answer)[*_]*:(?!\s*.*\\boxed)(?P<line>\s*.*)$|####(?P<hashes>.*)$"
    r"|\\boxed\{(?P<boxed>(?:[^{}]|\{(?:[^{}]|\{[^{}]*\})*\})*)\}|\banswer is(?P<said>.*)$",
    flags=re.MULTILINE | re.IGNORECASE,
)
_LATEX = (
    (r"\\[dt]?frac\s*\{\s*([0-9.]+)\s*\}\s*\{\s*([0-9]+)\s*\}", r" \1/\2"),
    (r"\\[dt]?frac([0-9])([0-9])", r" \1/\2"),
    (r"\\(?:text|textbf|mathrm|mathbf|mbox)\s*\{([^{}]{0,80})\}", r" \1"),
    (r"\{,\}|\\[,!](?=[0-9]{3}(?![0-9]))", ","),
    (r"\\[,;:! ]|\\(?:left|right|quad)\b|\\[()\[\]]|~", " "),
    (r"\^\{?\\circ\}?|\\degree\b", " degrees"),
    (r"\\([$%])", r"\1"),
)
_UNIT = re.compile(
    r"(?:[a-z]{2}[a-z²³]*|[mgshl][²³]?|°[CF]?|[€£])(?:[ /.-]+[a-z²³]+){0,2}", flags=re.IGNORECASE
)
_NO_UNIT = re.compile(
    r"\b(?:and|billion|bn|by|divided|dozen|few|fifths?|hal(?:f|ves)|hundred|less|million|minus|mn|more|or|out|over|per|plus"
    r"|point|quarters?|so|than|thirds?|thousand|times|to|trillion)\b",
    flags=re.IGNORECASE,
)
"""Words that change the number they follow, or open another."""


_SCALED = re.compile(r"[\s-]*(?:hundred|thousand|dozen|[mbtr]+illion)", flags=re.IGNORECASE)


def without_latex(text: str) -> str:
    """Fractions as `3/4`, words of `\\text{}`, spaces and separators as plain text; `\\boxed{}` stays."""
    if "\\" not in text and "{,}" not in text:
        return text
    for pattern, plain in _LATEX:
        text = re.sub(pattern, plain, text)
    return text


def read_number(text: str) -> Fraction | None:
    """The number a text is: `$1,250.50`, `3/4`, `1 1/2`, `50%` (50), `18.`, `18 km`; None where it is no number.

    A unit is one to three words after it. `5 million`, `5 or so` and `5x` are no numbers: the words change it.
    """
    plain = re.sub(r"[*$€£]", "", without_latex(text).replace("−", "-")).strip()
    plain = re.sub(r"(?<=[0-9]),(?=[0-9]{3}(?![0-9]))", "", plain)
    match = re.match(
        r"([-+]?)\s?(?:([0-9]{1,40}) (?=[0-9]+/))?([0-9]{0,40}(?:\.[0-9]{1,40})?)(?:/([0-9]{1,40}))?(?P<rest>.*)",
        plain,
        re.DOTALL,
    )
    if match is None or not match[3] or (match[2] and not match[4]) or (match[4] and not int(match[4])):
        return None
    if not _is_unit(match["rest"]):
        return None
    value = Fraction(match[3]) / int(match[4] or 1) + int(match[2] or 0)
    return -value if match[1] == "-" else value


def _is_unit(rest: str) -> bool:
    rest = rest.strip().rstrip(".%").strip()
    return not rest or bool(_UNIT.fullmatch(rest) and not _NO_UNIT.search(rest))


def final_number(text: str, read: Read) -> Fraction | None:
    """The number a solution ends on; None where there is none.

    `marked` takes the last mark alone (`A:`, `Answer:`, `####`, `\\boxed{}`, `answer is`), and what is there
    must be a number: an earlier mark never stands in for it. `last` takes the last number in the text.
    """
    text = without_latex(text)
    if read == "last":
        numbers = list(_NUMBER.finditer(text))
        return _in_prose(text, numbers[-1]) if numbers else None
    marks = list(_MARK.finditer(text))
    if not marks:
        return None
    if (said := marks[-1]["said"]) is not None:
        said = re.split("answer is", said, flags=re.IGNORECASE)[-1]
        first = _NUMBER.search(said)
        return _in_prose(said, first) if first else None
    part = next(part for part in marks[-1].groups() if part is not None)
    if _MARK.search(part):  # `#### So the answer is 18`: the last mark stands in the line of another
        return final_number(part, "marked")
    return read_number(part.rpartition("=")[2])


def _in_prose(text: str, number: re.Match[str]) -> Fraction | None:
    """A number that stands in a text, where no word after it makes it a larger one."""
    return None if _SCALED.match(text, number.end()) else read_number(number[0])


class NumberAnswer(Rule):
    """The final answer is this number, exactly: 0.5 is 1/2, and 0.33 is not 1/3. A loose reading changes nothing."""

    kind: Literal["number_answer"]
    value: str
    read: Read = "last"
    """After the last mark, see `final_number`, or the last number in the text."""

    @model_validator(mode="before")
    @classmethod
    def _number_as_text(cls, data: Any) -> Any:
        if isinstance(data, dict) and isinstance(data.get("value"), int | float):
            return data | {"value": str(data["value"])}
        return data

    @model_validator(mode="after")
    def _value_is_a_number(self) -> Self:
        if read_number(self.value) is None:
            raise ValueError(f"value={self.value!r}, wanted a number such as 18, 1,250.5 or 3/4")
        return self

    def grade(self, text: str, loose: bool = False) -> Graded:
        found = final_number(text, self.read)
        if found is None:
            where = "after a mark such as `A:` or `answer is`" if self.read == "marked" else "in the text"
            raise NoAnswer(f"no final number {where}")
        return super().grade(text)

    def find(self, text: str) -> Found:
        found = final_number(text, self.read)
        return Found(found == read_number(self.value), 0.0, f"it says {found}")

    def describe(self) -> str:
        return f"the final answer is {self.value}"
