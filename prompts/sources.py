"""Files and datasets -> prompts. A row of prompts/quickstart/prompts.jsonl (shortened):

    {"prompt": "Explain tea in at most 25 words.", "kind": "brief", "split": "train", "topic": "tea",
     "constraints": [{"kind": "max_words", "n": 25}, {"kind": "ends_with_punctuation"}]}

A row gives a prompt, or `Dropped` where it is empty or was there before. A row that cannot be read stops
everything: its line, the field, the value and what was wanted are in the message.
"""

import hashlib
import heapq
import json
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, Literal, NamedTuple, Self

from pydantic import Field, ValidationError, model_validator

from prompts.ifeval import constraints_of
from prompts.load import ROOT, PromptError
from prompts.rows import COMMIT, Row, read_dataset, read_file
from records.base import Strict
from records.ids import chance, fingerprint, prompt_id
from records.schema import Dropped, Message, Prompt

Split = Literal["train", "test"]
Value = str | int | float | bool

KNOWN = ("constraints", "reference", "split", "kind")
"""Columns that become the prompt's `meta` wherever they exist."""

IFEVAL = ("instruction_id_list", "kwargs")
"""Columns of IFEval's layout, which become `constraints` wherever both exist."""

STAGE = "prompts"


class PromptSource(Strict):
    """Where prompts come from, and which of them."""

    file: str | None = None
    """A .jsonl, .json, .csv or .parquet file, looked for beside the recipe and then from the project's root."""
    dataset: str | None = None
    """Instead of a file: a dataset's name on the Hugging Face Hub, or a folder `datasets` can read."""
    config: str | None = None
    """The dataset's configuration."""
    split: str = "train"
    """The dataset's split, as it is named there; a file has none."""
    revision: str | None = None
    """The dataset's commit; None takes the newest."""
    license: str | None = None
    """Of the prompts, as their source states it; for the dataset's card."""
    name: str | None = None
    """Stands for the source in records; None takes the file's stem or the dataset's name."""
    prompt: str = "prompt"
    """Column with the prompt's text."""
    messages: str | None = None
    """Column with a conversation instead: messages with role and content. It must end with a user turn; an
    answer after that is cut off."""
    meta: dict[str, str | None] = Field(default_factory=dict)
    """Further columns to keep, as {name in meta: column}. `constraints`, `reference`, `split` and `kind` are
    kept wherever they exist; {split: null} leaves one out. Instructions in IFEval's layout (`instruction_id_list`
    and `kwargs`) become constraints."""
    where: dict[str, Value | tuple[Value, ...]] = Field(default_factory=dict)
    """Keeps the rows whose column, or meta entry, equals this, or one of these."""
    rows: int | None = Field(default=None, ge=1)
    """Prompts a dataset is known to give, before `limit`; `zephyr plan` counts with it before the dataset is there."""
    limit: int | None = Field(default=None, ge=1)
    """Prompts, at most; drawn by prompt id, so that order and additions to the file move nothing else."""
    seed: int = Field(default=0, ge=0)
    """Of that draw."""
    part: tuple[int, int] | None = None
    """[2, 3] is the second of three parts of what is left, dealt by prompt id; parts differ by one prompt at most."""

    @model_validator(mode="after")
    def _one_place(self) -> Self:
        if (self.file is None) == (self.dataset is None):
            raise ValueError(
                f"file={self.file!r} and dataset={self.dataset!r}: wanted exactly one of the two"
            )
        if self.part is not None and not 1 <= self.part[0] <= self.part[1]:
            raise ValueError(f"part={list(self.part)}: wanted [number, parts] with a number from 1 to parts")
        return self

    @property
    def label(self) -> str:
        """What records and messages call the source."""
        return self.name or self.dataset or Path(str(self.file)).stem


class Loaded(NamedTuple):
    prompts: list[Prompt]
    """In the source's order."""
    dropped: list[Dropped]


def load_prompts(source: PromptSource, beside: Path | None = None) -> Loaded:
    """Every prompt of a source, once, and what was dropped. `beside` is the recipe's folder.

    Raises:
        PromptError: the source or one of its rows cannot be read, or no prompt is left.
    """
    prompts: list[Prompt] = []
    dropped: list[Dropped] = []
    for found in read_prompts(source, beside):
        prompts.append(found) if isinstance(found, Prompt) else dropped.append(found)
    return Loaded(prompts, dropped)


def read_prompts(source: PromptSource, beside: Path | None = None) -> Iterator[Prompt | Dropped]:
    """Like `load_prompts`, one by one in the source's order: of all of them, only their ids are in memory."""
    if source.limit is None and source.part is None:
        yield from _each(source, beside)
        return
    ids = [found.id for found in _each(source, beside) if isinstance(found, Prompt)]
    chosen = set(_dealt(_drawn(ids, source.limit, source.seed), source.part, source.seed))
    for found in _each(source, beside):
        if isinstance(found, Dropped) or found.id in chosen:
            yield found


def _drawn(ids: list[str], limit: int | None, seed: int) -> list[str]:
    if limit is None:
        return ids
    return heapq.nsmallest(limit, ids, key=lambda id: (chance(seed, "sample", id).random(), id))


def _dealt(ids: list[str], part: tuple[int, int] | None, seed: int) -> list[str]:
    if part is None:
        return ids
    number, parts = part
    return sorted(ids, key=lambda id: (chance(seed, "part", id).random(), id))[number - 1 :: parts]


def _each(source: PromptSource, beside: Path | None) -> Iterator[Prompt | Dropped]:
    columns, rows, name = _opened(source, beside)
    _check_columns(source, columns, name)
    seen: set[int] = set()
    read = kept = lost = 0
    for where, row in rows:
        read += 1
        if not _matches(source, row):
            continue
        kept += 1
        messages = _messages(source, row, where)
        try:
            id = prompt_id(messages)
        except UnicodeEncodeError as error:
            raise PromptError(f"{where}: the prompt is not text that UTF-8 can hold: {error}") from error
        mark = short(id)
        if not messages[-1].content.strip() or mark in seen:
            lost += 1
            reason = "duplicate" if mark in seen else "empty_prompt"
            yield Dropped(id=id, stage=STAGE, reason=reason, detail=where)
        else:
            seen.add(mark)
            yield Prompt(id=id, messages=messages, source=source.label, meta=_meta(source, row, where))
    if not seen:
        raise PromptError(
            f"no prompts in {name}: {read} rows, {kept} with {source.where or 'no filter'}, "
            f"{lost} dropped as empty or duplicate"
        )


def short(id: str) -> int:
    """The first 64 bits of an id, by which duplicates are told in a fifth of its memory."""
    return int(id[:16], 16)


def _opened(source: PromptSource, beside: Path | None) -> tuple[list[str], Iterator[Row], str]:
    """Columns, rows and the name for messages."""
    if source.file is not None:
        return *read_file(find_file(source.file, beside)), source.file
    wanted = {source.messages or source.prompt, *KNOWN, *IFEVAL, *source.meta.values(), *source.where}
    name = str(source.dataset)
    return *read_dataset(name, source.config, source.split, source.revision, wanted), name


def state_of(source: PromptSource, beside: Path | None = None) -> str | None:
    """Stands for what a source gives: its file's content or its dataset's commit, and the code that reads it.

    None where only reading tells.

    Raises:
        PromptError: there is no such file.
    """
    if source.file is not None:
        with find_file(source.file, beside).open("rb") as file:
            return fingerprint(_reader(), hashlib.file_digest(file, "sha256").hexdigest())
    return fingerprint(_reader(), source.revision) if COMMIT.fullmatch(source.revision or "") else None


def _reader() -> list[str]:
    here = Path(__file__).parent
    return [(here / name).read_text() for name in ("sources.py", "rows.py", "ifeval.py")]


def split_of(prompt_id: str, seed: int, test_fraction: float) -> Split:
    """The split a prompt is drawn into, by its id: other prompts, order and sharding move nothing."""
    return "test" if chance(seed, "split", prompt_id).random() < test_fraction else "train"


def split_prompt(prompt: Prompt, seed: int, test_fraction: float) -> Split:
    """The split a prompt's own row names, else the one it is drawn into."""
    return prompt.meta.get("split") or split_of(prompt.id, seed, test_fraction)


def find_file(file: str, beside: Path | None = None) -> Path:
    """The file, beside the recipe or else from the project's root."""
    tried = [folder / file for folder in (beside, ROOT.parent) if folder is not None]
    for path in tried:
        if path.is_file():
            return path
    raise PromptError(f"no prompt file {file!r}; looked at {' and '.join(map(str, dict.fromkeys(tried)))}")


def _check_columns(source: PromptSource, columns: list[str], name: str) -> None:
    entries = {entry for entry, column in _kept(source).items() if column in columns}
    asked = [("messages" if source.messages else "prompt", source.messages or source.prompt, set(columns))]
    asked += [(f"meta.{entry}", column, set(columns)) for entry, column in source.meta.items() if column]
    asked += [("where", column, {*columns, *entries}) for column in source.where]
    for setting, column, exist in asked:
        if column not in exist:
            raise PromptError(
                f"{setting} names the column {column!r}; {name} has {', '.join(columns) or 'no rows'}"
            )


def _kept(source: PromptSource) -> dict[str, str]:
    """Name in meta -> column."""
    columns: dict[str, str | None] = {name: name for name in KNOWN} | source.meta
    return {entry: column for entry, column in columns.items() if column is not None}


def _matches(source: PromptSource, row: Mapping[str, Any]) -> bool:
    columns = _kept(source)
    for key, wanted in source.where.items():
        value = row.get(key if key in row else columns.get(key, key))
        if value not in (wanted if isinstance(wanted, tuple) else (wanted,)):
            return False
    return True


def _messages(source: PromptSource, row: Mapping[str, Any], where: str) -> tuple[Message, ...]:
    if source.messages is None:
        text = _cell(row, source.prompt, where)
        if text is None or isinstance(text, str):
            return (Message(role="user", content=text or ""),)
        raise PromptError(f"{where}: {source.prompt} is {text!r}, wanted text")
    raw = _parsed(_cell(row, source.messages, where), source.messages, where)
    if not isinstance(raw, list):
        raise PromptError(
            f"{where}: {source.messages} is {raw!r}, wanted a list of messages with role and content"
        )
    messages = [_message(item, f"{where}: {source.messages}.{i}") for i, item in enumerate(raw)]
    while messages and messages[-1].role == "assistant":
        messages.pop()
    if not messages or messages[-1].role != "user":
        roles = [message.role for message in messages]
        raise PromptError(f"{where}: {source.messages} has the turns {roles}, wanted a user turn at the end")
    return tuple(messages)


def _cell(row: Mapping[str, Any], column: str, where: str) -> Any:
    if column not in row:
        raise PromptError(f"{where} has no field {column!r}; it has {', '.join(row)}")
    return row[column]


def _message(item: Any, where: str) -> Message:
    try:
        # Other fields, such as a name or a weight, are no part of what a model reads.
        return Message.model_validate({key: item[key] for key in ("role", "content")})
    except (KeyError, TypeError) as error:
        raise PromptError(f"{where} is {item!r}, wanted role and content") from error
    except ValidationError as error:
        first = error.errors()[0]
        raise PromptError(f"{where}.{first['loc'][0]} is {first['input']!r}: {first['msg']}") from error


def _meta(source: PromptSource, row: Mapping[str, Any], where: str) -> dict[str, Any]:
    meta = {
        entry: row[column] for entry, column in _kept(source).items() if row.get(column) not in (None, "")
    }
    if "constraints" in meta:
        meta["constraints"] = _dicts(meta["constraints"], "constraints", "{kind: …}", where)
    if "constraints" in _kept(source) and all(row.get(column) not in (None, "") for column in IFEVAL):
        ids = _parsed(row[IFEVAL[0]], IFEVAL[0], where)
        if not isinstance(ids, list) or not all(isinstance(id, str) for id in ids):
            raise PromptError(f"{where}: {IFEVAL[0]} is {ids!r}, wanted a list of ids")
        given = _dicts(row[IFEVAL[1]], IFEVAL[1], "instructions' arguments", where)
        try:
            meta["constraints"] = [*meta.get("constraints", []), *constraints_of(ids, given)]
        except ValueError as error:
            raise PromptError(f"{where}: {error}; meta: {{constraints: null}} ignores them") from error
    if meta.get("split", "train") not in ("train", "test"):
        raise PromptError(
            f"{where}: split is {meta['split']!r}, wanted train or test; meta: {{split: null}} ignores it"
        )
    return meta


def _dicts(value: Any, field: str, what: str, where: str) -> list[dict[str, Any]]:
    found = _parsed(value, field, where)
    if not isinstance(found, list) or not all(isinstance(item, dict) for item in found):
        raise PromptError(f"{where}: {field} is {found!r}, wanted a list of {what}")
    return found


def _parsed(value: Any, field: str, where: str) -> Any:
    """A list as it is, or from the JSON text a CSV cell holds."""
    if not isinstance(value, str):
        return value
    try:
        return json.loads(value)
    except ValueError as error:
        raise PromptError(f"{where}: {field} is {value!r}, wanted a list or its JSON") from error
