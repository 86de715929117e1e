"""A Hugging Face dataset folder from pairs, SFT rows and prompts. Start at `write_dataset`.

    folder = "runs/x/dataset"
    load_dataset(folder)                  train_prefs train_sft train_gen test_prefs test_sft test_gen, of the
                                          columns of HuggingFaceH4/ultrafeedback_binarized, then lineage
    load_dataset(folder, "trl")           train test: prompt, chosen, rejected, completion (= chosen), for
                                         DPOTrainer and, as it is, SFTTrainer
    load_dataset(folder, "trl_sft")       train test: messages, the best of n answers, for SFTTrainer
    load_dataset(folder, "trl_prompts")   train test: prompt, for online trainers

The trainers' views are configs of their own: `datasets` gives all splits of one config the same columns and
fills what a split lacks with null, which TRL would read. It cannot load a split without rows: such a split is
not in the folder.
"""

import ctypes
import json
import os
import shutil
from collections.abc import Iterable, Iterator, Mapping, Sequence
from itertools import islice
from pathlib import Path
from typing import Any

from pairs.best_of_n import SftRow
from pairs.card import Card, render_card
from pairs.croissant import croissant
from pairs.rows import COLUMNS, VIEWS, Row, gen_row, pair_row, sft_row, trl_row
from pairs.splits import SPLITS, Split
from pairs.texts import dicts
from records.base import Strict
from records.ids import digest
from records.schema import Pair, Prompt

ROW_GROUP = 5000
"""Rows; what a reader holds at a time."""


class DatasetReceipt(Strict):
    """What was written."""

    path: str
    digest: str
    """SHA-256 of the rows of the default config: the same rows have the same digest, whatever the file
    format, the machine, the time they took or the tokens they cost."""
    rows: dict[str, int]
    """By split of the default config; a split without rows is not in the folder."""


def write_dataset(
    pairs: Mapping[Split, Sequence[Pair]],
    sft: Mapping[Split, Sequence[SftRow]],
    prompts: Mapping[Split, Sequence[Prompt]],
    out: Path,
    card: Card,
) -> DatasetReceipt:
    """Write the folder `out` whole, or leave what was there.

    Rows stand in the order of `prompts`, pairs of one prompt by their completion ids; rows of prompts that
    are not among them follow by prompt id. The same input gives the same bytes.

    Raises:
        ValueError: a prompt in both splits, or no rows at all.
    """
    _refuse_overlap(pairs, sft, prompts)
    part = out.parent / f".{out.name}.part"
    shutil.rmtree(part, ignore_errors=True)
    part.mkdir(parents=True)
    rows: dict[str, int] = {}
    digests: dict[str, str] = {}
    files: dict[str, dict[str, str]] = {"default": {}}
    try:
        for split in SPLITS:
            place = {prompt.id: i for i, prompt in enumerate(prompts.get(split, ()))}
            in_order = sorted(
                pairs.get(split, ()), key=lambda p: (*_key(place, p.prompt), p.chosen.id, p.rejected.id)
            )
            best_pair: dict[str, Pair] = {}
            for pair in in_order:
                if pair.prompt.id not in best_pair or pair.margin > best_pair[pair.prompt.id].margin:
                    best_pair[pair.prompt.id] = pair
            sft_rows = sorted(
                sft.get(split, ()), key=lambda row: (*_key(place, row.prompt), row.completion.id)
            )
            kinds: dict[str, Iterable[Row]] = {
                "prefs": map(pair_row, in_order),
                "sft": (sft_row(row, best_pair.get(row.prompt.id)) for row in sft_rows),
                "gen": (gen_row(prompt, best_pair.get(prompt.id)) for prompt in prompts.get(split, ())),
            }
            for kind, found in kinds.items():
                name, file = f"{split}_{kind}", f"data/{split}_{kind}.parquet"
                hashes: list[str] = []
                if write_parquet(_hashed(found, hashes), COLUMNS, part / file):
                    rows[name], digests[name], files["default"][name] = len(hashes), digest(hashes), file
            views: dict[str, Iterable[Row]] = {
                "trl": map(trl_row, in_order),
                "trl_sft": ({"messages": dicts(row.messages)} for row in sft_rows),
                "trl_prompts": ({"prompt": dicts(prompt.messages)} for prompt in prompts.get(split, ())),
            }
            for view, found in views.items():
                if write_parquet(found, VIEWS[view], part / view / f"{split}.parquet"):
                    files.setdefault(view, {})[split] = f"{view}/{split}.parquet"
        if not rows:
            raise ValueError("a dataset of 0 pairs, 0 SFT rows and 0 prompts; wanted at least one row")
        receipt = DatasetReceipt(path=str(out), digest=digest(digests), rows=rows)
        (part / "README.md").write_text(render_card(card, receipt.digest, rows, files), encoding="utf-8")
        known = croissant(card, receipt.digest, files, {"default": COLUMNS, **VIEWS}, part)
        (part / "croissant.json").write_text(
            json.dumps(known, indent=1, ensure_ascii=False), encoding="utf-8"
        )
        _replace(part, out)
    except BaseException:
        shutil.rmtree(part, ignore_errors=True)
        raise
    return receipt


def _key(place: Mapping[str, int], prompt: Prompt) -> tuple[int, str]:
    return place.get(prompt.id, len(place)), prompt.id


def _hashed(rows: Iterable[Row], hashes: list[str]) -> Iterator[Row]:
    for row in rows:
        hashes.append(digest(row))
        yield row


def _refuse_overlap(*kinds: Mapping[Split, Sequence[Any]]) -> None:
    sides = [
        {getattr(row, "prompt", row).id for rows in kinds for row in rows.get(split, ())} for split in SPLITS
    ]
    if both := sorted(sides[0] & sides[1]):
        raise ValueError(f"{len(both)} prompts are in train and in test; wanted none. The first: {both[0]}")


def write_parquet(rows: Iterable[Row], columns: Mapping[str, Any], path: Path) -> int:
    """Rows written; no file when there are none."""
    import pyarrow as pa
    import pyarrow.parquet as pq

    def arrow(kind: Any) -> pa.DataType:
        if isinstance(kind, list):
            return pa.list_(pa.struct([(name, pa.type_for_alias(inner)) for name, inner in kind]))
        return pa.type_for_alias(kind)

    schema = pa.schema([(name, arrow(kind)) for name, kind in columns.items()])
    writer, count, source = None, 0, iter(rows)
    try:
        for batch in iter(lambda: list(islice(source, ROW_GROUP)), []):
            if writer is None:
                path.parent.mkdir(exist_ok=True)
                writer = pq.ParquetWriter(path, schema, compression="zstd")
            writer.write_table(pa.Table.from_pylist(batch, schema=schema))
            count += len(batch)
    finally:
        if writer:
            writer.close()
    return count


def _replace(new: Path, old: Path) -> None:
    """Give `new` the name of `old`, which goes; on Linux there is no moment without either."""
    for file in new.rglob("*"):
        descriptor = os.open(file, os.O_RDONLY)
        try:
            os.fsync(descriptor)
        finally:
            os.close(descriptor)
    if not old.exists():
        new.rename(old)
    elif _exchange(new, old):
        shutil.rmtree(new)
    else:
        aside = old.parent / f".{old.name}.old"
        shutil.rmtree(aside, ignore_errors=True)
        old.rename(aside)
        new.rename(old)
        shutil.rmtree(aside)


def _exchange(one: Path, other: Path) -> bool:
    """Swap two folders in one step (Linux: renameat2, RENAME_EXCHANGE); False where that does not exist."""
    try:
        swap = ctypes.CDLL(None).renameat2
    except (AttributeError, OSError, TypeError):
        return False
    here, exchange = -100, 2  # AT_FDCWD, RENAME_EXCHANGE
    return swap(here, os.fsencode(one.absolute()), here, os.fsencode(other.absolute()), exchange) == 0
