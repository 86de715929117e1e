"""Datasets that exist already -> the rows a trainer reads. Start at `prepare`.

    columns of a row                                  becomes
    chosen, rejected as dialogues (ultrafeedback_     {"prompt": [user], "chosen": [assistant],
      binarized and Argilla's cleaned one), as           "rejected": [assistant]}
      messages or text after `prompt`, or Argilla's
      instruction, chosen_response, rejected_response
    messages; data (UltraChat as it was published);   {"messages": [user, assistant, ...]}
      instruction, input, output (Alpaca); prompt
      and completion

A trainer gets exactly these columns: TRL misreads the published ones (`prompt` as text beside dialogues). Nothing is
left out without a count: a row that is no pair or no dialogue, what a filter drops, a test row whose prompt is in
train.
"""

import json
import shutil
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any, Literal, Self

from pydantic import Field, model_validator

from pairs.dataset import write_parquet
from pairs.rows import VIEWS
from pairs.splits import SPLITS, Split
from prompts.chat import alpaca_turn
from prompts.load import PromptError
from prompts.rows import Row, read_dataset, read_file
from prompts.sources import find_file
from prompts.ultrachat import Filter, Turns, apply
from records.base import Strict
from records.ids import chance, fingerprint, prompt_id
from records.schema import Message

Kind = Literal["pairs", "dialogues"]
COLUMNS: dict[Kind, tuple[tuple[str, ...], ...]] = {
    "pairs": (("chosen", "rejected"), ("instruction", "chosen_response", "rejected_response")),
    "dialogues": (("messages",), ("data",), ("instruction", "output"), ("prompt", "completion")),
}
"""Layouts, by the columns that tell them; the first that a dataset has is taken."""
DATA: dict[Literal["sft", "reward", "dpo"], Kind] = {"sft": "dialogues", "reward": "pairs", "dpo": "pairs"}
"""What a stage of training learns from."""
READ = {*(c for own in COLUMNS.values() for each in own for c in each), "prompt", "input"}
VIEW: dict[Kind, dict[str, Any]] = {
    "pairs": {name: VIEWS["trl"][name] for name in ("prompt", "chosen", "rejected")},
    "dialogues": VIEWS["trl_sft"],
}


class TrainingData(Strict):
    """A dataset that exists already, in place of the rows a run makes."""

    file: str | None = None
    """A .jsonl, .csv or .parquet file of rows, looked for beside the recipe and then from the project's root."""
    dataset: str | None = None
    """Instead of a file: a dataset's name on the Hugging Face Hub, or a folder `datasets` can read."""
    config: str | None = None
    """The dataset's configuration."""
    revision: str | None = None
    """The dataset's commit; None takes the newest."""
    license: str | None = None
    """Of the rows, as their source states it; for the cards of the models."""
    train: str = "train"
    """The split to train on, as it is named there."""
    test: str | None = None
    """The split to hold out; None: training is not watched on held-out rows. With a file: another file."""
    rows: dict[Split, int] = Field(default_factory=dict)
    """Rows the splits are known to have: a split with another number is refused, and `zephyr plan` counts with it
    before the dataset is there."""
    tokens: float | None = Field(default=None, gt=0)
    """Mean tokens of a dialogue under the base's tokenizer, if known: `zephyr plan` counts packed sequences with it."""
    limit: int | None = Field(default=None, ge=1)
    """Rows of each split, at most; drawn by prompt id."""
    seed: int = Field(default=0, ge=0)
    """Of that draw."""
    filters: tuple[Filter, ...] = ()
    """Of dialogues, in this order: truecase, refusals; each is counted. See prompts/ultrachat.py."""
    empty_system: bool = False
    """A dialogue that opens without a system turn gets an empty one, as in the pipeline Zephyr was trained with."""

    @model_validator(mode="after")
    def _one_place(self) -> Self:
        if (self.file is None) == (self.dataset is None):
            raise ValueError(
                f"file={self.file!r} and dataset={self.dataset!r}: wanted exactly one of the two"
            )
        return self

    @property
    def label(self) -> str:
        """What messages and cards call it."""
        return str(self.dataset or self.file)

    def place(self, split: Split) -> str | None:
        """The split's name, or the file that holds it; None: there is none."""
        if split == "test":
            return self.test
        return self.train if self.dataset else self.file

    def known(self, split: Split) -> int | None:
        """Rows a split will give, as far as the recipe says."""
        if self.place(split) is None or split not in self.rows:
            return None
        return min(self.rows[split], self.limit or self.rows[split])


def prepare(source: TrainingData, kind: Kind, out: Path) -> dict[str, Any]:
    """Write train.parquet and test.parquet to the folder `out`, whole, and say what became of every row.

    What an earlier run wrote under the same settings is taken as it is.

    Raises:
        PromptError: the source cannot be read, has another number of rows than the recipe says, or no row is left.
    """
    if source.filters and kind == "pairs":
        raise PromptError(
            f"{source.label}: filters={list(source.filters)} are for dialogues, and these are pairs"
        )
    asked = _asked(source, kind)
    if (known := prepared(source, kind, out)) is not None:
        return known
    part = out.with_name(f".{out.name}.part")
    shutil.rmtree(part, ignore_errors=True)
    part.mkdir(parents=True)
    receipt: dict[str, Any] = {"asked": asked, "source": source.label, "revision": source.revision}
    train: set[str] = set()
    try:
        for split in SPLITS:
            if source.place(split) is None:
                continue
            counts: dict[str, Any] = {"read": 0, "dropped": Counter(), "filters": {}}
            rows = _rows(source, kind, split, train, counts)
            counts["rows"] = write_parquet(rows, VIEW[kind], part / f"{split}.parquet")
            if not counts["rows"]:
                said = {name: own["dropped"] for name, own in counts["filters"].items()} | counts["dropped"]
                raise PromptError(
                    f"{source.label}, {source.place(split)}: no row is left of {counts['read']}; dropped: {said}"
                )
            receipt[split] = counts
        (part / "receipt.json").write_text(json.dumps(receipt, indent=2))
    except BaseException:
        shutil.rmtree(part, ignore_errors=True)
        raise
    shutil.rmtree(out, ignore_errors=True)
    part.rename(out)
    return receipt


def prepared(source: TrainingData, kind: Kind, out: Path) -> dict[str, Any] | None:
    """What `prepare` wrote to `out` under these settings, if it did."""
    try:
        receipt = json.loads((out / "receipt.json").read_text())
    except FileNotFoundError:
        return None
    return receipt if receipt["asked"] == _asked(source, kind) else None


def _asked(source: TrainingData, kind: Kind) -> str:
    return fingerprint(kind, source.model_dump(mode="json", exclude={"license"}))


def count_rows(source: TrainingData, split: Split) -> int:
    """Rows of a split as it lies there, before anything is left out; reads them all."""
    return sum(1 for _ in _open(source, split)[1])


def _rows(
    source: TrainingData, kind: Kind, split: Split, train: set[str], counts: dict[str, Any]
) -> Iterator[dict[str, Any]]:
    """The trainer's rows of one split. `train`: ids of train's prompts, filled here and kept out of test."""
    columns, rows = _open(source, split)
    layout = next((each for each in COLUMNS[kind] if set(each) <= set(columns)), None)
    if layout is None:
        wanted = " or ".join(", ".join(each) for each in COLUMNS[kind])
        raise PromptError(
            f"{source.label}, {source.place(split)} has the columns {', '.join(columns)}; for {kind} wanted {wanted}"
        )
    drawn = _drawn(source, kind, layout, split)
    for i, (where, row) in enumerate(rows):
        counts["read"] += 1
        if drawn is not None and i not in drawn:
            counts["dropped"]["not_drawn"] += 1
            continue
        found = _read(kind, layout, row, where)
        if isinstance(found, str):
            counts["dropped"][found] += 1
            continue
        id = _id(kind, found)
        if split == "train":
            train.add(id)
        elif id in train:
            counts["dropped"]["in_train"] += 1
            continue
        if source.filters:
            turns = apply(source.filters, found["messages"], counts["filters"])
            if turns is None:
                continue
            found = {"messages": turns}
        yield _with_system(found) if source.empty_system else found
    if (known := source.rows.get(split)) is not None and known != counts["read"]:
        raise PromptError(
            f"{source.label}, {source.place(split)}: {counts['read']} rows, and the recipe knows rows.{split}={known}; "
            "name the revision with that many, or correct `rows`"
        )


def _open(source: TrainingData, split: Split) -> tuple[list[str], Iterable[Row]]:
    place = str(source.place(split))
    if source.dataset is None:
        return read_file(find_file(place, None))
    return read_dataset(source.dataset, source.config, place, source.revision, READ)


def _drawn(source: TrainingData, kind: Kind, layout: tuple[str, ...], split: Split) -> set[int] | None:
    """Places of the rows that `limit` draws; None: all. Rows that cannot be read do not count."""
    if source.limit is None:
        return None
    ranked = []
    for i, (where, row) in enumerate(_open(source, split)[1]):
        found = _read(kind, layout, row, where)
        if not isinstance(found, str):
            ranked.append((chance(source.seed, "sample", _id(kind, found)).random(), i))
    return {i for _, i in sorted(ranked)[: source.limit]}


def _id(kind: Kind, row: Mapping[str, Turns]) -> str:
    """The published rule: of the first user turn for dialogues, of the prompt for pairs."""
    turns = row["prompt"] if kind == "pairs" else [t for t in row["messages"] if t["role"] == "user"][:1]
    return prompt_id([Message.model_validate(turn) for turn in turns])


def _read(kind: Kind, layout: tuple[str, ...], row: dict[str, Any], where: str) -> dict[str, Turns] | str:
    """A row as the trainer reads it, or why it cannot be one."""
    try:
        return _pair(layout, row) if kind == "pairs" else _dialogue(layout, row)
    except (TypeError, KeyError, AttributeError) as error:
        raise PromptError(
            f"{where}: {', '.join(f'{c}={row.get(c)!r}'[:80] for c in layout)} cannot be read as {kind}: {error!r}"
        ) from error


def _pair(layout: tuple[str, ...], row: dict[str, Any]) -> dict[str, Turns] | str:
    if "chosen" in layout:
        before = _turns(row.get("prompt") or [], "user")
        chosen, rejected = (_turns(row[side], "assistant") for side in layout)
        if len(chosen) == 1 or len(rejected) == 1:
            chosen, rejected = [*before, *chosen], [*before, *rejected]
    else:
        chosen, rejected = (
            [*_turns(row["instruction"], "user"), *_turns(row[s], "assistant")] for s in layout[1:]
        )
    if chosen[:-1] != rejected[:-1]:
        return "other_prompts"
    if not any(turn["role"] == "user" for turn in chosen[:-1]):
        return "no_prompt"
    if any(side[-1]["role"] != "assistant" for side in (chosen, rejected)):
        return "no_answer"
    return {"prompt": chosen[:-1], "chosen": chosen[-1:], "rejected": rejected[-1:]}


def _dialogue(layout: tuple[str, ...], row: dict[str, Any]) -> dict[str, Turns] | str:
    if "data" in layout:
        roles = ("user", "assistant")
        turns = [{"role": roles[i % 2], "content": text} for i, text in enumerate(row["data"])]
        turns = turns[: len(turns) // 2 * 2]
    elif "messages" in layout:
        turns = _turns(row["messages"], "user")
    elif "output" in layout:
        asked = alpaca_turn(row["instruction"], row.get("input") or "")
        turns = [*_turns(asked, "user"), *_turns(row["output"], "assistant")]
    else:
        turns = [*_turns(row["prompt"], "user"), *_turns(row["completion"], "assistant")]
    if not any(turn["role"] == "user" for turn in turns):
        return "no_prompt"
    return {"messages": turns} if turns[-1]["role"] == "assistant" else "no_answer"


def _turns(value: Any, role: str) -> Turns:
    """Messages as they are; a text as one turn of `role`."""
    if isinstance(value, str):
        return [{"role": role, "content": value}]
    return [{"role": turn["role"], "content": turn["content"] or ""} for turn in value]


def _with_system(row: dict[str, Turns]) -> dict[str, Turns]:
    first = "prompt" if "prompt" in row else "messages"
    if row[first][0]["role"] == "system":
        return row
    return row | {first: [{"role": "system", "content": ""}, *row[first]]}
