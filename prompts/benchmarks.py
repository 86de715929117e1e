"""Lists of benchmark prompts that no training prompt may hold: MT-Bench, AlpacaEval, Arena-Hard, IFEval, TruthfulQA, …

A list is a file or a dataset; a row's prompt is a text, a list of turns, or a list of messages. Some of the Hub's are
known by name alone.
"""

from collections.abc import Iterator, Mapping
from typing import Any, Self

from pydantic import Field, model_validator

from prompts.load import PromptError
from prompts.rows import COMMIT, read_dataset, stream_file
from prompts.sources import find_file
from records.base import Strict
from records.ids import fingerprint

KNOWN: dict[str, dict[str, str]] = {
    "mt_bench": {"dataset": "HuggingFaceH4/mt_bench_prompts"},
    "ifeval": {"dataset": "google/IFEval"},
    "truthful_qa": {"dataset": "truthfulqa/truthful_qa", "config": "generation", "split": "validation"},
    "humaneval": {"dataset": "openai/openai_humaneval", "split": "test"},
}
COLUMNS = ("prompt", "question", "instruction", "turns", "text")
"""Where a prompt is looked for, in this order."""


class BenchmarkList(Strict):
    """One benchmark's prompts."""

    name: str
    """In the card and in why a prompt was dropped. `mt_bench`, `ifeval`, `truthful_qa` and `humaneval` may stand alone:
    [ifeval, truthful_qa]."""
    file: str | None = None
    """A .jsonl, .json, .csv or .parquet file, looked for beside the recipe and then from the project's root."""
    dataset: str | None = None
    """Instead of a file: a dataset's name on the Hugging Face Hub, or a folder `datasets` can read."""
    config: str | None = None
    """The dataset's configuration."""
    split: str = "train"
    """The dataset's split; a file has none."""
    revision: str | None = None
    """The dataset's commit; None takes the newest."""
    column: str | None = Field(default=None)
    """Column with the prompts; None takes the first of prompt, question, instruction, turns and text."""

    @model_validator(mode="before")
    @classmethod
    def _known_by_name(cls, given: Any) -> Any:
        fields = {"name": given} if isinstance(given, str) else given
        if isinstance(fields, Mapping) and not {"file", "dataset"} & fields.keys():
            return {**KNOWN.get(str(fields.get("name")), {}), **fields}
        return fields

    @model_validator(mode="after")
    def _one_place(self) -> Self:
        if (self.file is None) == (self.dataset is None):
            raise ValueError(
                f"{self.name}: file={self.file!r} and dataset={self.dataset!r}: wanted exactly one of the two, or "
                f"one of the known names {', '.join(KNOWN)}"
            )
        return self

    def texts(self) -> Iterator[str]:
        """Every prompt, turn by turn.

        Raises:
            PromptError: it cannot be read, or has no such column.
        """
        if self.file is not None:
            rows, name = stream_file(find_file(self.file)), self.file
        else:
            name = str(self.dataset)
            wanted = {self.column} if self.column else set(COLUMNS)
            _, rows = read_dataset(name, self.config, self.split, self.revision, wanted)
        found = 0
        for where, row in rows:
            column = self.column or next((each for each in COLUMNS if row.get(each)), None)
            if column is None or column not in row:
                raise PromptError(
                    f"{where}: no column {self.column or ' or '.join(COLUMNS)} with a benchmark's prompt; it has "
                    f"{', '.join(row)}"
                )
            for text in _turns(row[column]):
                found += 1
                yield text
        if not found:
            raise PromptError(f"benchmark {self.name}: {name} has no prompts")

    def state(self) -> str | None:
        """Stands for what it gives; None where only reading tells."""
        if self.file is not None:
            return fingerprint(find_file(self.file).read_text(errors="replace"), self.column)
        return fingerprint(self) if COMMIT.fullmatch(self.revision or "") else None


def _turns(value: Any) -> Iterator[str]:
    if isinstance(value, str):
        if value.strip():
            yield value
    elif isinstance(value, Mapping):
        yield from _turns(value.get("content"))
    elif isinstance(value, list | tuple):
        for each in value:
            yield from _turns(each)
