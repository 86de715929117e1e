"""Answers that people have compared: what a judge is measured on.

The project's own file is JSONL, one prompt per line, and `docs/judge-card.md` explains it:

    {"prompt": "Name a fruit.", "completions": ["An apple.", "Carrot"], "label": 0, "annotators": [0, 0, "tie"]}

`load_gold` also reads the files of PandaLM, JudgeBench, LLMBar, Auto-J and HHH (as Prometheus ships it) as they come.
A row without two readable answers says nothing about a judge: it is left out and counted.
"""

import hashlib
import json
from collections import Counter
from pathlib import Path
from typing import Any, Literal, NamedTuple, Self, get_args

from pydantic import Field, ValidationError, model_validator

from judges.layouts import MARKS, READERS, SAYS, Label, Layout
from records.base import Strict
from records.ids import chance, prompt_id
from records.schema import Message, Prompt


class GoldError(ValueError):
    """A gold file cannot be read as what it should be. Names the line, the field and what was wanted."""


class GoldItem(Strict):
    """One prompt, its completions, and which one people say is best."""

    prompt: str | tuple[Message, ...]
    """A user's turn, or a conversation that ends with one."""
    completions: tuple[str, ...] = Field(min_length=2)
    label: Label
    annotators: tuple[Label, ...] = ()
    """What each person said, where it is known; gives the agreement between people."""
    models: tuple[str, ...] = ()
    """Who wrote each completion, where it is known; gives the preference for one's own."""
    source: str = ""
    reference: str | None = None
    """A known right answer, for judges that compare with one."""
    constraints: tuple[dict[str, Any], ...] = ()
    """What a machine can check, for the judge `rules`; as in a prompt's `meta`."""
    tags: tuple[str, ...] = ()
    """Kind of task or style, in words of the file's own."""

    @model_validator(mode="after")
    def _labels_are_places(self) -> Self:
        count = len(self.completions)
        for name, label in (("label", self.label), *(("annotators", label) for label in self.annotators)):
            if isinstance(label, int) and not 0 <= label < count:
                raise ValueError(f"{name}: {label} is not one of 0 to {count - 1} or 'tie'")
        if self.models and len(self.models) != count:
            raise ValueError(f"models: {len(self.models)} names for {count} completions")
        return self

    def to_prompt(self) -> Prompt:
        messages = (
            (Message(role="user", content=self.prompt),) if isinstance(self.prompt, str) else self.prompt
        )
        meta: dict[str, Any] = {} if self.reference is None else {"reference": self.reference}
        if self.constraints:
            meta["constraints"] = list(self.constraints)
        return Prompt(id=prompt_id(messages), messages=messages, source=self.source or "gold", meta=meta)


class Gold(NamedTuple):
    """A gold file, read."""

    items: list[GoldItem]
    dropped: dict[str, int]
    """Rows left out, by reason: an answer that is no text (`not_text`) or that is blank (`empty_answer`)."""
    layout: Layout
    digest: str
    """SHA-256 of the file."""


def load_gold(path: Path, layout: Layout | Literal["auto"] = "auto") -> Gold:
    """A gold file's items, in its order.

    Raises:
        GoldError: the file is missing, of no known layout, or a row has a wrong field.
    """
    try:
        data = path.read_bytes()
    except OSError as error:
        raise GoldError(f"gold file {str(path)!r} cannot be read: {error.strerror}") from error
    rows = _rows(path, data)
    found = _layout_of(path, rows[0][1]) if layout == "auto" else layout
    items: list[GoldItem] = []
    dropped: Counter[str] = Counter()
    for where, row in rows:
        try:
            fields = READERS[found](row) if found != "gold" else row
        except (KeyError, TypeError, AttributeError, ValueError) as error:
            raise GoldError(
                f"{where}: not a row of layout {found!r}: {error!r}; wanted {SAYS[found]}"
            ) from error
        if reason := _unreadable(fields.get("completions")):
            dropped[reason] += 1
            continue
        try:
            item = GoldItem.model_validate(fields)
            item.to_prompt()
        except ValidationError as error:
            first = error.errors()[0]
            field = str(first["loc"][0]) + ": " if first["loc"] else ""
            said = first["msg"].removeprefix("Value error, ")
            raise GoldError(f"{where}: {field}{said}") from error
        items.append(item)
    if not items:
        raise GoldError(f"{path}: none of {len(rows)} rows has two readable answers ({dict(dropped)})")
    return Gold(items, dict(dropped), found, hashlib.sha256(data).hexdigest())


def layout_named(name: str) -> Layout | Literal["auto"]:
    """Raises: GoldError, where there is no such layout."""
    if name not in ("auto", *get_args(Layout)):
        raise GoldError(f"--layout {name!r} is none of auto, {', '.join(get_args(Layout))}")
    return name  # type: ignore[return-value]


def drawn(items: list[GoldItem], limit: int | None, seed: int = 0) -> list[GoldItem]:
    """At most `limit` items, drawn by their content and not by place, since files are often sorted; in file order."""
    if limit is None or limit >= len(items):
        return items

    def luck(i: int) -> tuple[float, int]:
        return chance(seed, "gold", items[i].to_prompt().id, *items[i].completions).random(), i

    order = sorted(range(len(items)), key=luck)
    return [items[i] for i in sorted(order[:limit])]


def _rows(path: Path, data: bytes) -> list[tuple[str, dict[str, Any]]]:
    """(where it stands, row) of a JSON list or of JSON lines."""
    try:
        text = data.decode()
        if text.lstrip().startswith("["):
            rows = [(f"{path.name} row {i}", row) for i, row in enumerate(json.loads(text), start=1)]
        else:
            rows = []
            for number, line in enumerate(text.split("\n"), start=1):
                where = f"{path.name} line {number}"
                if line.strip():
                    rows.append((where, json.loads(line)))
    except UnicodeDecodeError as error:
        raise GoldError(f"{path} is not UTF-8 text") from error
    except json.JSONDecodeError as error:
        raise GoldError(f"{path}: not JSON near line {error.lineno}: {error.msg}") from error
    for where, row in rows:
        if not isinstance(row, dict):
            raise GoldError(f"{where}: a {type(row).__name__}, wanted an object with fields")
    if not rows:
        raise GoldError(f"{path} has no rows")
    return rows


def _unreadable(completions: object) -> str | None:
    """Why a row's answers cannot be compared; None where they can, or where pydantic says it better."""
    if not isinstance(completions, list | tuple) or len(completions) < 2:
        return None
    if any(not isinstance(text, str) for text in completions):
        return "not_text"
    return "empty_answer" if any(not text.strip() for text in completions) else None


def _layout_of(path: Path, row: dict[str, Any]) -> Layout:
    for field, layout in MARKS.items():
        if field in row:
            return layout  # type: ignore[return-value]
    known = "; ".join(f"{name}: {says}" for name, says in SAYS.items())
    raise GoldError(f"{path}: fields {sorted(row)[:8]} are of no known layout ({known})")
