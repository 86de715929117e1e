"""Two preference datasets side by side, prompt by prompt. In go two folders, out comes what changed."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any, Literal, NamedTuple

from pairs.splits import SPLITS

Change = Literal["same", "swapped", "chosen", "rejected", "both", "only here", "only there"]
CHANGES: dict[Change, str] = {
    "swapped": "chosen and rejected have changed places",
    "chosen": "another chosen",
    "rejected": "another rejected",
    "both": "another chosen and another rejected",
    "only here": "a pair only here",
    "only there": "a pair only there",
    "same": "the same pair",
}


class Sides(NamedTuple):
    """One pair as a dataset has it."""

    chosen: str
    rejected: str
    chosen_model: str
    rejected_model: str
    margin: float | None


class Changed(NamedTuple):
    """One prompt in both. Where a dataset has several pairs of it, the one with the widest margin stands for it."""

    prompt_id: str
    prompt: str
    change: Change
    here: Sides | None
    there: Sides | None


def diff(here: Path, there: Path) -> list[Changed]:
    """Every prompt of two dataset folders, those of the first in its order, then the others.

    Raises:
        FileNotFoundError: a folder has no pairs.
        ValueError: a file of it is of other columns.
    """
    ours, theirs = read(here), read(there)
    found = []
    for id in [*ours, *(id for id in theirs if id not in ours)]:
        prompt, own = ours.get(id, ("", None))
        other_prompt, other = theirs.get(id, ("", None))
        found.append(Changed(id, prompt or other_prompt, change_of(own, other), own, other))
    return found


def change_of(here: Sides | None, there: Sides | None) -> Change:
    if here is None or there is None:
        return "only there" if here is None else "only here"
    chosen, rejected = here.chosen == there.chosen, here.rejected == there.rejected
    if chosen and rejected:
        return "same"
    if (here.chosen, here.rejected) == (there.rejected, there.chosen):
        return "swapped"
    return "rejected" if chosen else "chosen" if rejected else "both"


def folder_of(path: Path) -> Path:
    """The dataset folder of a run's folder, or the folder itself.

    Raises: FileNotFoundError, where there is none.
    """
    for folder in (path / "dataset", path):
        if any((folder / f"data/{split}_prefs.parquet").exists() for split in SPLITS):
            return folder
    raise FileNotFoundError(
        f"{path} has no pairs; wanted a run's folder, or a dataset folder with data/train_prefs.parquet"
    )


def read(folder: Path) -> dict[str, tuple[str, Sides]]:
    """Prompt id -> its text and its widest pair."""
    found: dict[str, tuple[str, Sides]] = {}
    for row in _rows(folder):
        sides = Sides(
            row["chosen"][-1]["content"],
            row["rejected"][-1]["content"],
            row.get("chosen_model") or "",
            row.get("rejected_model") or "",
            row.get("margin"),
        )
        before = found.get(row["prompt_id"])
        if before is None or (sides.margin or 0.0) > (before[1].margin or 0.0):
            found[row["prompt_id"]] = row["prompt"], sides
    return found


def _rows(folder: Path) -> Iterator[dict[str, Any]]:
    import pyarrow.parquet as pq

    wanted = ["prompt", "prompt_id", "chosen", "rejected", "chosen_model", "rejected_model", "margin"]
    for split in SPLITS:
        path = folder_of(folder) / f"data/{split}_prefs.parquet"
        if not path.exists():
            continue
        file = pq.ParquetFile(path)
        names = set(file.schema_arrow.names)
        if missing := {"prompt", "prompt_id", "chosen", "rejected"} - names:
            raise ValueError(f"{path} has no column {', '.join(sorted(missing))}")
        for batch in file.iter_batches(columns=[name for name in wanted if name in names]):
            yield from batch.to_pylist()
