"""A shard while it is open: a file of lines, one per key, appended as answers come."""

import os
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import orjson

from records.schema import RETRYABLE


class StoreError(Exception):
    """A folder or file of the store cannot be trusted or written. What it holds is left as it is."""


@dataclass(frozen=True, slots=True)
class Row:
    """What one key got: answers (records as plain dicts), or the reason it has none."""

    key: str
    answers: list[dict[str, Any]]
    dropped: dict[str, str] | None = None

    @property
    def final(self) -> bool:
        return self.dropped is None or self.dropped["reason"] not in RETRYABLE


def line_of(row: Row) -> bytes:
    return orjson.dumps({"key": row.key, "answers": row.answers, "dropped": row.dropped}) + b"\n"


def replay(journal: Path) -> Iterator[Row]:
    """A journal's rows. The last line may be torn by a crash and is then left out.

    Raises:
        StoreError: a line before the last cannot be read; no crash does that.
    """
    lines = journal.read_bytes().split(b"\n")
    for number, line in enumerate(lines[:-1], start=1):
        try:
            row = orjson.loads(line)
            yield Row(row["key"], row["answers"], row["dropped"])
        except (orjson.JSONDecodeError, KeyError, TypeError) as error:
            raise StoreError(
                f"{journal} line {number} cannot be read: {line[:60]!r}; delete the line to ask it again"
            ) from error


def cut_torn_line(journal: Path) -> bool:
    """Make a journal end with a whole line; whether it holds any."""
    if not journal.exists():
        return False
    data = journal.read_bytes()
    whole = data.rfind(b"\n") + 1
    if whole != len(data):
        os.truncate(journal, whole)
    return whole > 0
