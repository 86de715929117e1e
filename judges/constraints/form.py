"""Constraints on form: lists, JSON, headings, marks, and how a text begins and ends."""

import json
import re
from typing import Literal

from pydantic import Field

from judges.constraints.rule import Counted, Found, Rule, plural


class BulletList(Counted):
    kind: Literal["bullet_list"]

    def find(self, text: str) -> Found:
        return self.count(len(re.findall(r"^[ \t]*[-*•+][ \t]+\S", text, flags=re.MULTILINE)), "bullet")

    def describe(self) -> str:
        return self.wanted("bullet")


class NumberedList(Counted):
    """Lines that open with 1. 2. 3. (or `1)`), in this order."""

    kind: Literal["numbered_list"]

    def find(self, text: str) -> Found:
        numbers = [int(n) for n in re.findall(r"^[ \t]*(\d{1,4})[.)][ \t]+\S", text, flags=re.MULTILINE)]
        found = self.count(len(numbers), "numbered line")
        if numbers == list(range(1, len(numbers) + 1)):
            return found
        return Found(False, found.near, f"{found.seen}, numbered {numbers[:8]}")

    def describe(self) -> str:
        return self.wanted("numbered line")


class Json(Rule):
    """The whole answer is JSON of any type; a Markdown fence around it is allowed."""

    kind: Literal["json"]

    def find(self, text: str) -> Found:
        try:
            return Found(True, 1.0, f"JSON of type {type(_json(text)).__name__}")
        except (ValueError, RecursionError):
            return Found(False, 0.0, "no JSON")

    def describe(self) -> str:
        return "JSON"


class JsonObject(Rule):
    """The whole answer is one JSON object with at least these keys; a Markdown fence around it is allowed."""

    kind: Literal["json_object"]
    keys: tuple[str, ...] = ()

    def find(self, text: str) -> Found:
        try:
            value = _json(text)
        except (ValueError, RecursionError):
            return Found(False, 0.0, "no JSON")
        if not isinstance(value, dict):
            return Found(False, 0.0, f"JSON of type {type(value).__name__}")
        have = [key for key in self.keys if key in value]
        near = len(have) / max(len(self.keys), 1)
        return Found(have == list(self.keys), near, f"keys {list(value)[:8]}")

    def describe(self) -> str:
        return f"a JSON object with {', '.join(self.keys)}" if self.keys else "a JSON object"


def _json(text: str) -> object:
    fenced = re.fullmatch(r"```(?:json)?\s*\n(.*)\n```", text.strip(), flags=re.DOTALL | re.IGNORECASE)
    return json.loads(fenced[1] if fenced else text)


class Title(Rule):
    """A title in double angle brackets, anywhere: `<<On tea>>`."""

    kind: Literal["title"]

    def find(self, text: str) -> Found:
        titles = [title for title in re.findall(r"<<([^<>\n]+)>>", text) if title.strip()]
        return Found(bool(titles), 0.0, f"titles {titles[:3]}")

    def describe(self) -> str:
        return "a title in double angle brackets"


class Highlights(Counted):
    """Stretches of one line between single or double asterisks, without space inside these."""

    kind: Literal["highlights"]

    def find(self, text: str) -> Found:
        spans = re.findall(r"(\*\*?)(?![\s*])[^\n*]+(?<!\s)\1", text)
        return self.count(len(spans), "highlighted section")

    def describe(self) -> str:
        return self.wanted("highlighted section")


class Sections(Counted):
    """Headings of a name and a number: `Section 1`."""

    kind: Literal["sections"]
    name: str = Field(min_length=1)

    def find(self, text: str) -> Found:
        return self.count(
            len(re.findall(rf"{re.escape(self.name)}\s?\d+", text)), f"{self.name!r} with a number"
        )

    def describe(self) -> str:
        return self.wanted(f"{self.name!r} with a number")


class Placeholders(Counted):
    """Anything in square brackets on one line: `[name]`."""

    kind: Literal["placeholders"]

    def find(self, text: str) -> Found:
        return self.count(len(re.findall(r"\[.*?\]", text)), "placeholder")

    def describe(self) -> str:
        return self.wanted("placeholder")


class Postscript(Rule):
    kind: Literal["postscript"]
    marker: str = Field(min_length=1)
    """`P.S.` or `P.P.S`; in any case, and a space may follow a stop."""

    def find(self, text: str) -> Found:
        pattern = r"\.\s?".join(map(re.escape, self.marker.split(".")))
        return Found(bool(re.search(pattern, text, re.IGNORECASE)), 0.0, f"no {self.marker!r}")

    def describe(self) -> str:
        return f"a postscript after {self.marker!r}"


class Responses(Rule):
    """So many answers in one, all different. A separator may also open or close the text."""

    kind: Literal["responses"]
    n: int = Field(default=2, ge=2)
    separator: str = Field(default="******", min_length=1)

    def find(self, text: str) -> Found:
        parts = [part.strip() for part in text.split(self.separator)]
        answers = [part for part in parts if part]
        whole = "" not in parts[1:-1] and len(answers) == self.n
        different = len(set(answers)) == len(answers)
        near = min(len(set(answers)), self.n) / max(len(answers), self.n)
        return Found(
            whole and different, near, plural(len(answers), "answer") + ("" if different else ", some equal")
        )

    def describe(self) -> str:
        return f"{self.n} different answers, with {self.separator!r} between them"


class OneOf(Rule):
    """The answer is one of these, in any case, a closing stop aside."""

    kind: Literal["one_of"]
    options: tuple[str, ...] = Field(min_length=1)
    anywhere: bool = False
    """Whether more may stand around it; it must then be there to the letter, and not within a word."""

    def find(self, text: str) -> Found:
        if self.anywhere:
            kept = any(re.search(rf"(?<!\w){re.escape(option)}(?!\w)", text) for option in self.options)
        else:
            kept = _plain(text) in [_plain(option) for option in self.options]
        return Found(kept, 0.0, f"it reads {text.strip()[:20]!r}")

    def describe(self) -> str:
        return f"{'has' if self.anywhere else 'is'} one of {', '.join(map(repr, self.options))}"


def _plain(text: str) -> str:
    return text.strip().rstrip(".!").casefold()


class StartsWith(Rule):
    """White space before it and case set aside."""

    kind: Literal["starts_with"]
    phrase: str = Field(min_length=1)

    def find(self, text: str) -> Found:
        start = text.lstrip()
        kept = start.casefold().startswith(self.phrase.casefold())
        return Found(kept, 0.0, f"it starts {start[: min(len(self.phrase), 40)]!r}")

    def describe(self) -> str:
        return f"starts with {self.phrase!r}"


class EndsWith(Rule):
    """White space and double quotation marks after it and case set aside."""

    kind: Literal["ends_with"]
    phrase: str = Field(min_length=1)

    def find(self, text: str) -> Found:
        end = text.rstrip(' \n\t\r"”')
        return Found(end.casefold().endswith(self.phrase.casefold()), 0.0, f"it ends {end[-40:]!r}")

    def describe(self) -> str:
        return f"ends with {self.phrase!r}"


class EndsWithPunctuation(Rule):
    """A full stop, question or exclamation mark or ellipsis, inside or before closing quotes and brackets."""

    kind: Literal["ends_with_punctuation"]

    def find(self, text: str) -> Found:
        end = text.rstrip()
        kept = end.rstrip("\"'”’)]*_`").endswith((".", "!", "?", "…"))
        return Found(kept, 0.0, f"it ends {end[-15:]!r}")

    def describe(self) -> str:
        return "ends with punctuation"


class Quoted(Rule):
    """The whole answer stands between double quotation marks."""

    kind: Literal["quoted"]

    def find(self, text: str) -> Found:
        plain = text.strip()
        kept = len(plain) > 1 and plain[0] in '"“' and plain[-1] in '"”'
        return Found(kept, 0.0, f"it is {plain[:1]}…{plain[-1:]}")

    def describe(self) -> str:
        return "between double quotation marks"
