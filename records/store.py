"""Where answers live: a journal while a shard is open, sealed Parquet with a receipt when it is done.

    <root>/completions/<fingerprint>/asked.json       what was asked, for people
                                     read.json        how the answers are read, where that is not asked
                                     00017.jsonl      open: one line per finished answer, appended at once
                                     00017.parquet    sealed: row i belongs to key i
                                     00017.json       its receipt
                                     replaced-…       answers that were asked or read again since

A killed run loses what was not yet answered and nothing else: lines are written when the answer comes and forced to
the disk about once a second, and a torn last line is dropped. Opening a shard first takes over every answer with the
same key that the folder holds, whatever shard it was asked for, so a changed prompt list asks only what is new.

`root` is a path or any fsspec address. Journals always stay on a local disk.
"""

import hashlib
import os
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import fsspec
import orjson
from fsspec.implementations.local import LocalFileSystem

from records.held import Held
from records.ids import digest, fingerprint
from records.journal import Row, StoreError, cut_torn_line, line_of, replay
from records.schema import RETRYABLE
from records.sealed import Receipt, final_keys, rows_of, sealed

__all__ = ["Receipt", "Row", "Shard", "Stage", "StoreError", "replay"]

GATHERED = "gathered.json"
"""In a folder of prompts: from which state of their sources they were read."""
REPLACED = "replaced-"
"""How files begin that hold what was asked or read again since; nothing reads them but people."""
BESIDE = ("asked.json", "read.json", GATHERED)
"""Files of a folder that are no receipts."""
LOOKED_AT = 4
"""Files of earlier runs whose rows stay in memory while answers are taken over."""


class Stage:
    """The answers to one thing that was asked: one folder per (stage, fingerprint)."""

    def __init__(
        self, root: str | Path, stage: str, asked: dict[str, Any], journals: Path | None = None
    ) -> None:
        """`asked`: everything that decides the answers; its fingerprint names the folder."""
        self.stage, self.asked, self.fingerprint = stage, asked, fingerprint(stage, asked)
        # a listing that is kept would hide what another machine has written since
        self._fs, base = fsspec.core.url_to_fs(str(root), use_listings_cache=False)
        self._local = isinstance(self._fs, LocalFileSystem)
        self.folder = f"{base.rstrip('/')}/{stage}/{self.fingerprint}"
        if self._local:
            self.journals = Path(self.folder)
        else:
            cache = Path(os.environ.get("ZEPHYR_CACHE", Path.home() / ".cache/zephyr"))
            self.journals = (
                (journals or cache / "journals" / fingerprint(str(root))) / stage / self.fingerprint
            )
        self._held: Held | None = None
        self._looked_at: dict[str, dict[str, Row]] = {}
        try:
            self.journals.mkdir(parents=True, exist_ok=True)
            self._fs.makedirs(self.folder, exist_ok=True)
            if not self._fs.exists(f"{self.folder}/asked.json"):
                self._put("asked.json", orjson.dumps(asked, option=orjson.OPT_INDENT_2))
        except OSError as error:
            raise StoreError(f"cannot write to {self.folder}: {error.strerror or error}") from error

    def read_as(self, how: dict[str, Any]) -> dict[str, Any]:
        """How the folder's answers are read: what was said first, by this or an earlier run."""
        path = f"{self.folder}/read.json"
        if self._fs.exists(path):
            return orjson.loads(self._fs.cat_file(path))
        self._put("read.json", orjson.dumps(how, option=orjson.OPT_INDENT_2))
        return how

    def open(
        self, index: int, keys: Sequence[str] = (), without: Callable[[Row], bool] | None = None
    ) -> "Shard":
        """The shard with these keys, holding every answer the folder already has for them.

        `without`: rows that are to be asked again though there is an answer; the old one is kept beside the new.
        """
        return Shard(self, index, keys, without)

    def sealed(self, index: int, keys: Sequence[str], *, among: bool = False) -> Receipt | None:
        """The receipt of a sealed shard that answers exactly these keys and has nothing left to ask again.

        `among`: it may answer others too. One with a journal beside it is not closed: rows of it were being asked
        again when the run ended.

        Raises:
            StoreError: the shard's file is gone or is not the one that was sealed.
        """
        receipt, asked = self.finished(index), digest(list(keys))
        if receipt is None or (receipt.key_digest != asked and not among):
            return None
        data = self._bytes(receipt)
        return receipt if receipt.key_digest == asked or set(keys) <= set(final_keys(data)) else None

    def finished(self, index: int, *, key_digest: str = "", of: str = "") -> Receipt | None:
        """Like `sealed`, by the receipt alone: the digest of the keys, or of what they were made from, is compared.

        What is built on it has to `check` the file.
        """
        receipt = self.receipt(index)
        if receipt is None or RETRYABLE & receipt.dropped.keys():
            return None
        if (key_digest and receipt.key_digest != key_digest) or (of and receipt.of != of):
            return None
        return None if (self.journals / f"{index:05d}.jsonl").exists() else receipt

    def check(self, receipt: Receipt) -> None:
        """Compare a sealed shard's file with its receipt.

        Raises:
            StoreError: it is gone or is not the one that was sealed.
        """
        self._bytes(receipt)

    def certify(self, receipt: Receipt, of: str) -> Receipt:
        """A receipt that also says what its keys were made from."""
        receipt = receipt.model_copy(update={"of": of})
        self._put(f"{receipt.index:05d}.json", receipt.model_dump_json(indent=2).encode())
        return receipt

    def note(self, name: str, content: dict[str, Any] | None = None) -> dict[str, Any] | None:
        """A small file of the folder's own: written, or read where it is there."""
        if content is not None:
            self._put(name, orjson.dumps(content))
            return content
        path = f"{self.folder}/{name}"
        return orjson.loads(self._fs.cat_file(path)) if self._fs.exists(path) else None

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
        return rows_of(self._bytes(receipt))

    def held(self) -> Held:
        """Every key with a final answer in the folder, as it was when first asked. Of two answers the later holds.

        What was kept of other prompt lists comes first, then the sealed files, then the journals.
        """
        if self._held is None:
            self._held = Held(self._files())
        return self._held

    def _files(self) -> Iterator[tuple[str, list[str]]]:
        receipts = [path.rsplit("/", 1)[1] for path in self._fs.glob(f"{self.folder}/*.json")]
        for receipt in sorted(receipts, key=_age):
            if receipt in BESIDE or receipt.startswith(REPLACED):
                continue
            name = receipt.removesuffix(".json") + ".parquet"
            yield name, final_keys(self._sealed_bytes(name))
        for journal in sorted(self.journals.glob("*.jsonl"), key=lambda path: _age(path.name)):
            yield journal.name, [row.key for row in replay(journal) if row.final]

    def find(self, keys: Sequence[str]) -> dict[str, Row]:
        """The final answers that the folder already has to some of `keys`."""
        found: dict[str, Row] = {}
        for name, those in self.held().files_of(keys).items():
            held = self._looked_at.get(name)
            if held is None:
                if len(self._looked_at) >= LOOKED_AT:
                    del self._looked_at[next(iter(self._looked_at))]
                journal = self.journals / name
                if not name.endswith(".jsonl"):
                    rows = rows_of(self._sealed_bytes(name))
                else:
                    rows = list(replay(journal)) if journal.exists() else []
                held = self._looked_at[name] = {row.key: row for row in rows if row.final}
            found |= {key: held[key] for key in those if key in held}
        return found

    def _sealed_bytes(self, name: str) -> bytes:
        receipt = f"{self.folder}/{name.removesuffix('.parquet')}.json"
        return self._bytes(Receipt.model_validate_json(self._fs.cat_file(receipt)), name)

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

    def _retire(self, old: Receipt) -> str:
        """Keep a sealed file that makes room for another: its answers were paid for. Returns its new name."""
        kept = f"kept-{old.index:05d}-{old.digest[:8]}"
        for ending in ("parquet", "json"):
            source = f"{self.folder}/{old.index:05d}.{ending}"
            if self._fs.exists(source):
                self._fs.mv(source, f"{self.folder}/{kept}.{ending}")
        return kept

    def _let_go(self, kept: str, *, replaced: bool) -> None:
        """A kept file whose every row is in the new one: set aside for people, or deleted."""
        for ending in ("json", "parquet"):
            path = f"{self.folder}/{kept}.{ending}"
            if replaced:
                name = REPLACED + kept.removeprefix("kept-")
                self._fs.mv(path, f"{self.folder}/{name}.{ending}")
            else:
                self._fs.rm(path)


class Shard:
    """One open file of a stage. Fill it with `put`, force it to the disk with `sync`, close it with `seal`."""

    def __init__(
        self, stage: Stage, index: int, keys: Sequence[str], without: Callable[[Row], bool] | None = None
    ) -> None:
        self.stage, self.index, self._without = stage, index, without
        self.keys: list[str] = []
        self._rows: dict[str, Row] = {}
        self._set_aside: dict[str, Row] = {}
        self._wanted: set[str] = set()
        self.path = stage.journals / f"{index:05d}.jsonl"
        self._inherited = cut_torn_line(self.path)
        self.want(keys)
        self._file = os.open(self.path, os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o644)
        self._dirty = False

    def want(self, keys: Sequence[str]) -> list[str]:
        """Take further keys into the shard; returns those without an answer.

        Raises:
            StoreError: a key that the shard has already.
        """
        self._wanted.update(keys)
        self.keys += keys
        if len(self._wanted) != len(self.keys):
            raise StoreError(
                f"{self.stage.stage} shard {self.index}: the same key twice; duplicates must be dropped before"
            )
        found = self.stage.find(keys)
        if self._without is not None:
            aside = {key: row for key, row in found.items() if self._without(row)}
            self._set_aside |= aside
            found = {key: row for key, row in found.items() if key not in aside}
        self._rows |= found
        return [key for key in keys if key not in self._rows]

    @property
    def missing(self) -> list[str]:
        """Keys without an answer, in order."""
        return [key for key in self.keys if key not in self._rows]

    @property
    def taken_over(self) -> int:
        """Rows that are answered."""
        return len(self._rows)

    def row(self, key: str) -> Row | None:
        """What a key got, if it got anything yet."""
        return self._rows.get(key)

    def set_aside(self, key: str) -> Row | None:
        """The row that is there for a key and is asked again all the same, see `Stage.open`."""
        return self._set_aside.get(key)

    def put(self, row: Row) -> None:
        """Keep one answer. It survives the process from here on, and a power cut after the next `sync`.

        Raises:
            StoreError: the disk is full or gone; everything put before is kept.
        """
        line = line_of(row)
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
            self.stage._held, self.stage._looked_at = None, {}  # the journal has changed since it was read

    def seal(self, keys: Sequence[str] | None = None, of: str = "") -> Receipt:
        """Write the Parquet file and its receipt, then let go of the journal.

        `keys`: the same in another order. `of`: see `Receipt`.

        Raises:
            StoreError: a key has neither an answer nor a reason, or the file cannot be written.
        """
        if self.missing:
            raise StoreError(f"{self.path}: {len(self.missing)} of {len(self.keys)} rows have no answer yet")
        self.keys = self.keys if keys is None else list(keys)
        rows = [self._rows[key] for key in self.keys]
        data, receipt = sealed(self.stage.stage, self.stage.fingerprint, self.index, rows, of)
        try:
            self.sync()
            kept = self._make_room(receipt)
            self.stage._put(f"{self.index:05d}.parquet", data)
            self.stage._put(f"{self.index:05d}.json", receipt.model_dump_json(indent=2).encode())
            if kept is not None:
                self.stage._let_go(kept.name, replaced=kept.replaced)
            self.stage._looked_at.pop(f"{self.index:05d}.parquet", None)
            self._let_go_of_journal()
        except OSError as error:
            raise StoreError(
                f"cannot seal {self.stage.folder}/{self.index:05d}.parquet: {error.strerror or error}; all answers are "
                f"kept in {self.path}, make room and run the same command again"
            ) from error
        return receipt

    def _make_room(self, new: Receipt) -> "_Kept | None":
        """Move the sealed file of an earlier run out of the way. Until the new one is there, it is still read."""
        old, name = self.stage.receipt(self.index), f"{self.index:05d}.parquet"
        if old is None or old.digest == new.digest:
            return None
        rows = self.stage.rows(old)
        if any(row.key not in self._rows for row in rows):  # it holds answers to other keys too, and stays
            self.stage.held().renamed(name, f"{self.stage._retire(old)}.parquet")
            return None
        replaces = any(row.answers != self._rows[row.key].answers[: len(row.answers)] for row in rows)
        return _Kept(self.stage._retire(old), replaces)

    def _let_go_of_journal(self) -> None:
        """Delete the journal, unless it holds answers to keys of another prompt list."""
        os.close(self._file)
        self._file = -1
        rows = replay(self.path) if self._inherited else ()
        foreign = [row for row in rows if row.final and row.key not in self._wanted]
        if foreign:
            lines = b"".join(map(line_of, foreign))
            kept = self.path.with_name(f"kept-{hashlib.sha256(lines).hexdigest()[:8]}.jsonl")
            kept.write_bytes(lines)
            self.stage.held().renamed(self.path.name, kept.name)
        self.path.unlink()


class _Kept(NamedTuple):
    """A sealed file whose every row is in a newer one."""

    name: str
    replaced: bool
    """Some of its answers are not those of the newer one."""


def _age(name: str) -> tuple[bool, str]:
    """Sorts files so that a later one holds over an earlier one: kept ones are of an earlier prompt list."""
    return not name.startswith("kept-"), name
