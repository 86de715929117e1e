"""A sealed shard: its Parquet file as bytes, and the receipt by which it is found, trusted and counted."""

import hashlib
import io
from collections import Counter
from collections.abc import Sequence
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
from pydantic import Field

from records.arrow import schema_of
from records.base import Strict
from records.ids import digest
from records.journal import Row
from records.schema import Usage


class Receipt(Strict):
    """A sealed shard: enough to find it, to trust it and to count it."""

    stage: str
    fingerprint: str
    index: int
    rows: int
    answers: int
    dropped: dict[str, int]
    """Reason -> rows without an answer."""
    statuses: dict[str, int] = Field(default_factory=dict)
    """Status -> answers that have it, where they are judgements."""
    key_digest: str
    """Digest of the keys, in order: which questions this file answers."""
    digest: str
    """SHA-256 of the file."""
    usage: Usage
    of: str = ""
    """Digest of what the keys were made from, where that is cheaper to compare than the keys."""

    @property
    def name(self) -> str:
        return f"{self.stage}/{self.fingerprint}/{self.index:05d}.parquet"


def sealed(
    stage: str, fingerprint: str, index: int, rows: Sequence[Row], of: str = ""
) -> tuple[bytes, Receipt]:
    """The file of these rows, in their order, and its receipt. `of`: see there."""
    table = pa.Table.from_pylist(
        [{"key": r.key, "answers": r.answers, "dropped": r.dropped} for r in rows], schema=schema_of(stage)
    )
    buffer = io.BytesIO()
    pq.write_table(table, buffer, compression="zstd")
    data = buffer.getvalue()
    statuses = Counter(a["status"] for r in rows for a in r.answers if "status" in a)
    return data, Receipt(
        stage=stage,
        fingerprint=fingerprint,
        index=index,
        rows=len(rows),
        answers=sum(len(r.answers) for r in rows),
        dropped=dict(sorted(Counter(r.dropped["reason"] for r in rows if r.dropped).items())),
        statuses=dict(sorted(statuses.items())),
        key_digest=digest([row.key for row in rows]),
        digest=hashlib.sha256(data).hexdigest(),
        usage=_used(rows),
        of=of,
    )


def _used(rows: Sequence[Row]) -> Usage:
    used: Counter[str] = Counter()
    for row in rows:
        for answer in row.answers:
            used.update(answer.get("usage", {}))
    return Usage(**used)


def rows_of(parquet: bytes) -> list[Row]:
    """Every row, in the order of the keys."""
    table = _table(parquet)
    return [Row(r["key"], [_thaw(a) for a in r["answers"]], r["dropped"]) for r in table.to_pylist()]


def _table(parquet: bytes, columns: list[str] | None = None) -> pa.Table:
    """Like `read_table`, which would load Arrow's dataset machinery and wake threads for a few hundred rows."""
    return pq.ParquetFile(pa.BufferReader(parquet)).read(columns=columns, use_threads=False)


def final_keys(parquet: bytes) -> list[str]:
    """Keys of the rows that are not to be asked again."""
    table = _table(parquet, ["key", "dropped"])
    keys, dropped = table["key"].to_pylist(), table["dropped"]
    if dropped.null_count == len(keys):
        return keys
    return [key for key, why in zip(keys, dropped.to_pylist(), strict=True) if Row(key, [], why).final]


def _thaw(answer: dict[str, Any]) -> dict[str, Any]:
    """Arrow reads a map as a list of pairs."""
    if answer.get("distribution") is not None:
        answer["distribution"] = dict(answer["distribution"])
    return answer
