"""Where answers live: a journal while a shard is open, sealed Parquet with a receipt when it is done.

    <root>/completions/<fingerprint>/asked.json       what was asked, for people
                                     00017.jsonl      open: one line per finished answer, appended at once
                                     00017.parquet    sealed: row i belongs to key i
                                     00017.json       its receipt

A killed run loses what was not yet answered and nothing else: lines are written when the answer comes and forced to
the disk about once a second, and a torn last line is dropped. Opening a shard first takes over every answer with the
same key that the folder holds, whatever shard it was asked for, so a changed prompt list asks only what is new.

`root` is a path or any fsspec address. Journals always stay on a local disk.
"""

import contextlib
import fcntl
import hashlib
import io
import os
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import fsspec
import orjson
import pyarrow as pa
import pyarrow.parquet as pq
from fsspec.implementations.local import LocalFileSystem

from records.arrow import schema_of
from records.base import Strict
from records.ids import digest, fingerprint
from records.schema import RETRYABLE, Usage


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


class Receipt(Strict):
    """A sealed shard: enough to find it, to trust it and to count it."""

    stage: str
    fingerprint: str
    index: int
    rows: int
    answers: int
    dropped: dict[str, int]
    """Reason -> rows without an answer."""
    key_digest: str
    """Digest of the keys, in order: which questions this file answers."""
    digest: str
    """SHA-256 of the file."""
    usage: Usage

    @property
    def name(self) -> str:
        return f"{self.stage}/{self.fingerprint}/{self.index:05d}.parquet"


_held_folders: set[Path] = set()


@contextlib.contextmanager
def exclusive(folder: Path) -> Iterator[None]:
    """Hold a run's folder for this process; may be nested. The lock falls with the process, however it ends.

    Raises:
        StoreError: another process holds it, or it cannot be written.
    """
    key = folder.absolute()
    if key in _held_folders:
        yield
        return
    try:
        folder.mkdir(parents=True, exist_ok=True)
        file = (folder / ".lock").open("a+")
    except OSError as error:
        raise StoreError(f"cannot write to {folder}: {error.strerror}; choose another --out") from error
    with file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError as error:
            file.seek(0)
            raise StoreError(
                f"{folder} is in use by process {file.read().strip() or '?'}; wait for it or choose another --out"
            ) from error
        file.truncate(0)
        file.write(str(os.getpid()))
        file.flush()
        _held_folders.add(key)
        try:
            yield
        finally:
            _held_folders.discard(key)


class Stage:
    """The answers to one thing that was asked: one folder per (stage, fingerprint)."""

    def __init__(
        self, root: str | Path, stage: str, asked: dict[str, Any], journals: Path | None = None
    ) -> None:
        """`asked`: everything that decides the answers; its fingerprint names the folder."""
        self.stage, self.asked, self.fingerprint = stage, asked, fingerprint(stage, asked)
        self._schema = schema_of(stage)
        self._fs, base = fsspec.core.url_to_fs(str(root))
        self._local = isinstance(self._fs, LocalFileSystem)
        self.folder = f"{base.rstrip('/')}/{stage}/{self.fingerprint}"
        if self._local:
            self.journals = Path(self.folder)
        else:
            cache = Path(os.environ.get("ZEPHYR_CACHE", Path.home() / ".cache/zephyr"))
            self.journals = (
                (journals or cache / "journals" / fingerprint(str(root))) / stage / self.fingerprint
            )
        self._held: dict[str, Row] | None = None
        try:
            self.journals.mkdir(parents=True, exist_ok=True)
            self._fs.makedirs(self.folder, exist_ok=True)
            if not self._fs.exists(f"{self.folder}/asked.json"):
                self._put("asked.json", orjson.dumps(asked, option=orjson.OPT_INDENT_2))
        except OSError as error:
            raise StoreError(f"cannot write to {self.folder}: {error.strerror or error}") from error

    def open(self, index: int, keys: Sequence[str]) -> "Shard":
        """The shard with these keys, holding every answer the folder already has for them."""
        if len(set(keys)) != len(keys):
            raise StoreError(
                f"{self.stage} shard {index}: the same key twice; duplicates must be dropped before"
            )
        return Shard(self, index, tuple(keys))

    def sealed(self, index: int, keys: Sequence[str]) -> Receipt | None:
        """The receipt of a sealed shard that answers exactly these keys and has nothing left to ask again.

        Raises:
            StoreError: the shard's file is gone or is not the one that was sealed.
        """
        receipt = self.receipt(index)
        if receipt is None or receipt.key_digest != digest(list(keys)) or RETRYABLE & receipt.dropped.keys():
            return None
        self._bytes(receipt)
        return receipt

    def receipt(self, index: int) -> Receipt | None:
        path = f"{self.folder}/{index:05d}.json"
        if not self._fs.exists(path):
            return None
        return Receipt.model_validate_json(self._fs.cat_file(path))

    def rows(self, receipt: Receipt) -> list[Row]:
        """A sealed shard's rows, in the order of its keys.

        Raises:
            StoreError: the file is gone or is not the one that was sealed.
        """
        table = pq.read_table(io.BytesIO(self._bytes(receipt)))
        return [Row(r["key"], [_thaw(a) for a in r["answers"]], r["dropped"]) for r in table.to_pylist()]

    def held(self) -> dict[str, Row]:
        """Every final answer in the folder, by key: sealed files first, then journals. Read once."""
        if self._held is None:
            self._held = {}
            for path in sorted(self._fs.glob(f"{self.folder}/*.json")):
                if path.endswith("/asked.json"):
                    continue
                receipt = Receipt.model_validate_json(self._fs.cat_file(path))
                kept = path.rsplit("/", 1)[1].startswith("kept-")
                name = path.rsplit("/", 1)[1].removesuffix(".json") + ".parquet" if kept else None
                table = pq.read_table(io.BytesIO(self._bytes(receipt, name)))
                for r in table.to_pylist():
                    self._hold(Row(r["key"], [_thaw(a) for a in r["answers"]], r["dropped"]))
            for journal in sorted(self.journals.glob("*.jsonl")):
                for row in replay(journal):
                    self._hold(row)
        return self._held

    def _hold(self, row: Row) -> None:
        if row.final and self._held is not None:
            self._held[row.key] = row

    def _bytes(self, receipt: Receipt, name: str | None = None) -> bytes:
        path = f"{self.folder}/{name or f'{receipt.index:05d}.parquet'}"
        try:
            data: bytes = self._fs.cat_file(path)
        except FileNotFoundError:
            data = b""
        if hashlib.sha256(data).hexdigest() != receipt.digest:
            raise StoreError(
                f"{path} is gone or was edited since it was sealed; put it back, or delete it and its receipt "
                f"{path.removesuffix('.parquet')}.json to have its {receipt.rows} rows asked again"
            )
        return data

    def _put(self, name: str, data: bytes) -> None:
        """Write a whole file; on a local disk, it is there completely or not at all."""
        if not self._local:
            self._fs.pipe_file(f"{self.folder}/{name}", data)
            return
        target = Path(self.folder) / name
        part = target.with_name(f".{name}.part")
        with part.open("wb") as file:
            file.write(data)
            file.flush()
            os.fsync(file.fileno())
        part.replace(target)
        folder = os.open(target.parent, os.O_RDONLY)
        os.fsync(folder)
        os.close(folder)

    def _retire(self, index: int) -> None:
        """Keep a sealed file whose keys are no longer this shard's: its answers were paid for."""
        old = self.receipt(index)
        if old is None:
            return
        for ending in ("parquet", "json"):
            source = f"{self.folder}/{index:05d}.{ending}"
            if self._fs.exists(source):
                self._fs.mv(source, f"{self.folder}/kept-{index:05d}-{old.digest[:8]}.{ending}")


class Shard:
    """One open file of a stage. Fill it with `put`, force it to the disk with `sync`, close it with `seal`."""

    def __init__(self, stage: Stage, index: int, keys: tuple[str, ...]) -> None:
        self.stage, self.index, self.keys = stage, index, keys
        wanted, held = set(keys), stage.held()
        self._rows: dict[str, Row] = {key: held[key] for key in wanted & held.keys()}
        self.taken_over = len(self._rows)
        self.path = stage.journals / f"{index:05d}.jsonl"
        _cut_torn_line(self.path)
        self._file = os.open(self.path, os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o644)
        self._dirty = False

    @property
    def missing(self) -> list[str]:
        """Keys without an answer, in order."""
        return [key for key in self.keys if key not in self._rows]

    def put(self, row: Row) -> None:
        """Keep one answer. It survives the process from here on, and a power cut after the next `sync`.

        Raises:
            StoreError: the disk is full or gone; everything put before is kept.
        """
        line = orjson.dumps({"key": row.key, "answers": row.answers, "dropped": row.dropped}) + b"\n"
        try:
            end = os.fstat(self._file).st_size
            if os.write(self._file, line) != len(line):
                os.ftruncate(self._file, end)
                raise OSError(28, "No space left on device")
        except OSError as error:
            raise StoreError(
                f"cannot write {self.path}: {error.strerror}; {len(self._rows)} of {len(self.keys)} answers are kept, "
                "make room and run the same command again"
            ) from error
        self._rows[row.key] = row
        if row.final:
            self.stage.held()[row.key] = row
        self._dirty = True

    def sync(self) -> None:
        """Force what was put to the disk."""
        if self._dirty:
            self._dirty = False
            os.fsync(self._file)

    def close(self) -> None:
        """Leave the shard open for the next run."""
        if self._file >= 0:
            self.sync()
            os.close(self._file)
            self._file = -1

    def seal(self) -> Receipt:
        """Write the Parquet file and its receipt, then let go of the journal.

        Raises:
            StoreError: a key has neither an answer nor a reason, or the file cannot be written.
        """
        if self.missing:
            raise StoreError(f"{self.path}: {len(self.missing)} of {len(self.keys)} rows have no answer yet")
        rows = [self._rows[key] for key in self.keys]
        table = pa.Table.from_pylist(
            [{"key": r.key, "answers": r.answers, "dropped": r.dropped} for r in rows],
            schema=self.stage._schema,
        )
        buffer = io.BytesIO()
        pq.write_table(table, buffer, compression="zstd")
        data = buffer.getvalue()
        receipt = Receipt(
            stage=self.stage.stage,
            fingerprint=self.stage.fingerprint,
            index=self.index,
            rows=len(rows),
            answers=sum(len(r.answers) for r in rows),
            dropped=dict(sorted(Counter(r.dropped["reason"] for r in rows if r.dropped).items())),
            key_digest=digest(list(self.keys)),
            digest=hashlib.sha256(data).hexdigest(),
            usage=sum((Usage(**a["usage"]) for r in rows for a in r.answers if "usage" in a), Usage()),
        )
        try:
            self.sync()
            old = self.stage.receipt(self.index)
            if old is not None and old.key_digest != receipt.key_digest:
                self.stage._retire(self.index)
            self.stage._put(f"{self.index:05d}.parquet", data)
            self.stage._put(f"{self.index:05d}.json", receipt.model_dump_json(indent=2).encode())
            self._let_go_of_journal()
        except OSError as error:
            raise StoreError(
                f"cannot seal {self.stage.folder}/{self.index:05d}.parquet: {error.strerror or error}; all answers are "
                f"kept in {self.path}, make room and run the same command again"
            ) from error
        return receipt

    def _let_go_of_journal(self) -> None:
        """Delete the journal, unless it holds answers to keys of another prompt list."""
        os.close(self._file)
        self._file = -1
        own = set(self.keys)
        foreign = [row for row in replay(self.path) if row.final and row.key not in own]
        if foreign:
            lines = b"".join(
                orjson.dumps({"key": r.key, "answers": r.answers, "dropped": r.dropped}) + b"\n"
                for r in foreign
            )
            kept = self.path.with_name(f"kept-{hashlib.sha256(lines).hexdigest()[:8]}.jsonl")
            kept.write_bytes(lines)
        self.path.unlink()


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


def _cut_torn_line(journal: Path) -> None:
    if not journal.exists():
        return
    data = journal.read_bytes()
    whole = data.rfind(b"\n") + 1
    if whole != len(data):
        os.truncate(journal, whole)


def _thaw(answer: dict[str, Any]) -> dict[str, Any]:
    """Arrow reads a map as a list of pairs."""
    if answer.get("distribution") is not None:
        answer["distribution"] = dict(answer["distribution"])
    return answer
