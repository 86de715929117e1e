"""Rows of a file or a dataset, each with the place it came from, as dicts of plain Python values."""

import csv
import json
import re
from collections.abc import Callable, Collection, Iterator
from pathlib import Path
from typing import Any

from prompts.load import PromptError

COMMIT = re.compile("[0-9a-f]{40}")
BATCH = 1000
"""Rows of a Parquet file in memory at a time."""

Row = tuple[str, dict[str, Any]]
"""Where it stands, for messages, and its fields."""


def read_file(path: Path) -> tuple[list[str], Iterator[Row]]:
    """A file's columns, and its rows as they are read.

    Raises:
        PromptError: an unknown kind of file, or, in whichever pass meets it, a line that cannot be read.
    """
    # A JSON line may lack fields that others have, so all are looked at before the first is used.
    return list(dict.fromkeys(column for _, row in stream_file(path) for column in row)), stream_file(path)


def stream_file(path: Path) -> Iterator[Row]:
    """A file's rows, one by one.

    Raises:
        PromptError: an unknown kind of file, or a line that cannot be read.
    """
    readers: dict[str, Callable[[Path], Iterator[Row]]] = {
        ".jsonl": _jsonl,
        ".json": _json,
        ".csv": _csv,
        ".parquet": _parquet,
    }
    if path.suffix not in readers:
        raise PromptError(f"{path} ends in {path.suffix!r}, wanted one of {', '.join(readers)}")
    try:
        yield from readers[path.suffix](path)
    except UnicodeDecodeError as error:
        raise PromptError(f"{path} is not UTF-8 text: {error}") from error


def read_dataset(
    name: str, config: str | None, split: str, revision: str | None, wanted: Collection[str | None]
) -> tuple[list[str], Iterator[Row]]:
    """A dataset's columns, and its rows with the wanted ones of them.

    `name` is a dataset on the Hugging Face Hub, a folder `datasets` can read, or one it saved.
    """
    import datasets

    try:
        if (Path(name) / "state.json").is_file() or (Path(name) / "dataset_dict.json").is_file():
            data = datasets.load_from_disk(name)
            data = data[split] if isinstance(data, datasets.DatasetDict) else data
        else:
            data = load_hub(name, config, split, revision)
    except (OSError, ValueError, KeyError) as error:
        asked = f"config={config!r}, split={split!r}, revision={revision!r}"
        raise PromptError(
            f"dataset {name!r} ({asked}) cannot be read: {type(error).__name__}: {error}"
        ) from error
    columns = list(data.column_names)
    data = data.select_columns([column for column in columns if column in wanted])
    return columns, ((f"{name} row {i}", dict(row)) for i, row in enumerate(data))


def load_hub(name: str, config: str | None, split: str, revision: str | None) -> Any:
    """A split of a dataset at its revision.

    Where the Hub cannot be reached, `datasets` takes what was cached last, whatever revision is asked for. A commit
    names one content alone, so its own place in the cache is looked for then.

    Raises:
        PromptError: the Hub is away, and the cache has other commits only.
        OSError, ValueError, KeyError: the dataset cannot be read, as `datasets` says it.
    """
    import datasets

    data: Any = datasets.load_dataset(name, config, split=split, revision=revision)
    places = {Path(file["filename"]).parent for file in data.cache_files}
    if Path(name).exists() or not COMMIT.fullmatch(revision or "") or {p.name for p in places} <= {revision}:
        return data
    wanted = places.pop().with_name(str(revision))
    files = sorted([*wanted.glob(f"*-{split}.arrow"), *wanted.glob(f"*-{split}-*-of-*.arrow")])
    if not files:
        raise PromptError(
            f"dataset {name!r}: the Hub cannot be reached, and its cache on this machine has another commit than "
            f"revision={revision!r}; connect once, or name the commit that is there"
        )
    return datasets.concatenate_datasets([datasets.Dataset.from_file(str(file)) for file in files])


def _jsonl(path: Path) -> Iterator[Row]:
    with path.open(encoding="utf-8") as lines:
        for number, line in enumerate(lines, start=1):
            if not line.strip():
                continue
            where = f"{path.name} line {number}"
            try:
                row = json.loads(line)
            except ValueError as error:
                raise PromptError(f"{where} is not JSON: {error}; it starts {line[:60]!r}") from error
            if not isinstance(row, dict):
                raise PromptError(f"{where} is {line.strip()[:60]!r}, wanted an object with fields")
            yield where, row


def _json(path: Path) -> Iterator[Row]:
    """A file that is one list of objects, as AlpacaEval's."""
    try:
        rows = json.loads(path.read_text(encoding="utf-8"))
    except ValueError as error:
        raise PromptError(f"{path.name} is not JSON: {error}") from error
    if not isinstance(rows, list) or not all(isinstance(row, dict) for row in rows):
        raise PromptError(
            f"{path.name} holds no list of objects; a file with an object in each line ends in .jsonl"
        )
    yield from ((f"{path.name} item {number}", row) for number, row in enumerate(rows, start=1))


def _csv(path: Path) -> Iterator[Row]:
    with path.open(encoding="utf-8-sig", newline="") as lines:
        reader = csv.DictReader(lines, strict=True)
        try:
            for row in reader:
                where = f"{path.name} line {reader.line_num}"
                if None in row or None in row.values():
                    fields = reader.fieldnames or []
                    cells = sum(v is not None for k, v in row.items() if k is not None) + len(
                        row.get(None) or []
                    )
                    raise PromptError(f"{where} has {cells} cells, wanted {len(fields)}: {', '.join(fields)}")
                yield where, row
        except csv.Error as error:
            raise PromptError(f"{path.name} line {reader.line_num} is not CSV: {error}") from error


def _parquet(path: Path) -> Iterator[Row]:
    import pyarrow as pa
    import pyarrow.parquet as pq

    number = 0
    try:
        for batch in pq.ParquetFile(path).iter_batches(BATCH):
            for row in batch.to_pylist():
                number += 1
                yield f"{path.name} row {number}", row
    except pa.ArrowException as error:
        raise PromptError(f"{path} is not a Parquet file: {error}") from error
