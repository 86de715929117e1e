"""Log-probabilities of the reference, computed once for a pair and kept for every run that needs them again.

    <store>/3f9a1c…/about.json       what gave them: base, dtype, engine
    <store>/3f9a1c…/0b77e2….parquet  key, ref_chosen_logps, ref_rejected_logps

A pair's key is its tokens, so template, length and cutting are in it; the folder's name is the model and its number
format. Another beta, learning rate, loss or seed finds everything here, another template or base finds nothing.
"""

import hashlib
import json
import os
from array import array
from collections.abc import Iterable, Sequence
from importlib.metadata import version
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from records.ids import fingerprint

COLUMNS = ("ref_chosen_logps", "ref_rejected_logps")
Logps = tuple[float, float]
"""Sums over the tokens of the chosen and of the rejected answer, in nats."""


def key_of_pair(row: dict[str, Any]) -> str:
    """Stands for the tokens of prompt, chosen and rejected."""
    digest = hashlib.sha256()
    for column in ("prompt_ids", "chosen_ids", "rejected_ids"):
        digest.update(len(row[column]).to_bytes(4, "little"))
        digest.update(array("i", row[column]).tobytes())
    return digest.hexdigest()[:32]


class References:
    """The log-probabilities one model has given so far."""

    def __init__(self, store: Path, base: str, dtype: str, compute: str) -> None:
        """`base`: digest of the weights. `dtype`: of the weights in memory; `compute`: of the matrix products."""
        what = {"base": base, "dtype": dtype, "compute": compute}
        self.name = fingerprint("reference", 1, what)[:16]
        self.folder = store / self.name
        self._about = what | {name: version(name) for name in ("torch", "transformers", "trl")}

    def known(self, keys: Iterable[str]) -> dict[str, Logps]:
        """Of the pairs that were computed before."""
        wanted, found = set(keys), {}
        for path in sorted(self.folder.glob("*.parquet")):
            table = pq.read_table(path)
            for key, *logps in zip(*(table[name].to_pylist() for name in ("key", *COLUMNS)), strict=True):
                if key in wanted:
                    found[key] = tuple(logps)
        return found

    def add(self, keys: Sequence[str], logps: Sequence[Logps]) -> None:
        """Keep some; on the disk, whole, when this returns."""
        self.folder.mkdir(parents=True, exist_ok=True)
        if not (self.folder / "about.json").exists():
            _put(self.folder / "about.json", json.dumps(self._about, indent=2).encode())
        chosen, rejected = zip(*logps, strict=True)
        sink = pa.BufferOutputStream()
        pq.write_table(pa.table({"key": keys, COLUMNS[0]: chosen, COLUMNS[1]: rejected}), sink)
        name = hashlib.sha256("".join(keys).encode()).hexdigest()[:16]
        _put(self.folder / f"{name}.parquet", sink.getvalue().to_pybytes())


def _put(path: Path, data: bytes) -> None:
    part = path.with_name(f".{path.name}.{os.getpid()}.part")
    with part.open("wb") as file:
        file.write(data)
        file.flush()
        os.fsync(file.fileno())
    part.replace(path)
