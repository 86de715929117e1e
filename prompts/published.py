"""Preference datasets as others publish them -> one shape. Start at `open_published`. Two layouts are read:

    answers   instruction, models, completions: [{model, response, annotations, critique, overall_score, …}]
              openbmb/UltraFeedback, original or with its scores corrected
    pairs     prompt, chosen, rejected, and what there is of scores, ratings and models
              HuggingFaceH4/ultrafeedback_binarized, Argilla's, a dataset folder of this project

A name is a .jsonl or .parquet file, a folder of such files, or a dataset on the Hugging Face Hub. Rows come one by one:
a dataset is never in memory whole.
"""

import hashlib
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from itertools import chain
from pathlib import Path
from typing import Any, Literal

from pydantic import ValidationError

from prompts.annotations import ASPECTS, OVERALL, Annotation, annotation, plain, rating
from prompts.load import PromptError
from prompts.rows import Row, load_hub, stream_file
from records.ids import prompt_id
from records.schema import Message

Layout = Literal["answers", "pairs"]
UNKNOWN = "unknown"
"""Model of an answer whose dataset does not say who wrote it."""


@dataclass(frozen=True, slots=True)
class Answer:
    """One answer with all that was said of it."""

    model: str
    text: str
    annotations: dict[str, Annotation]
    """By aspect; `overall` is the single score."""
    critique: str = ""
    principle: str | None = None
    principle_text: str | None = None
    fine: float | None = None
    """The mean of the aspects as the dataset has it."""


@dataclass(frozen=True, slots=True)
class Entry:
    """One row: a prompt and its answers, in the dataset's order. Of a pair the chosen is the first."""

    where: str
    split: str
    prompt_id: str
    messages: tuple[Message, ...]
    source: str
    answers: tuple[Answer, ...]
    meta: dict[str, Any] = field(default_factory=dict)

    @property
    def text(self) -> str:
        return self.messages[-1].content if self.messages else ""


@dataclass(frozen=True)
class Published:
    """A dataset that can be read, again and again."""

    name: str
    layout: Layout
    splits: dict[str, list[Path] | None]
    """Split -> its files; None: `datasets` has it."""
    revision: str | None = None

    def entries(self) -> Iterator[Entry]:
        """Every row, in the dataset's order.

        Raises:
            PromptError: a row is not of the layout.
        """
        read = _answers if self.layout == "answers" else _pair
        for split, files in self.splits.items():
            for where, row in _rows(self, split, files):
                try:
                    yield read(row, where, split, self.label)
                except (KeyError, TypeError, ValidationError) as error:
                    raise PromptError(
                        f"{where}: a turn is no message with role and content: {error}"
                    ) from error

    @property
    def label(self) -> str:
        return self.name if not Path(self.name).exists() else Path(self.name).resolve().stem

    @property
    def digest(self) -> str:
        """SHA-256 of the files, or the dataset's name and revision."""
        digest = hashlib.sha256()
        files = [file for found in self.splits.values() for file in found or ()]
        for file in files:
            with file.open("rb") as data:
                while block := data.read(1 << 20):
                    digest.update(block)
        if not files:
            digest.update(f"{self.name}@{self.revision}".encode())
        return digest.hexdigest()


def open_published(name: str, revision: str | None = None) -> Published:
    """Which layout a dataset has, and where its splits lie. Splits that repeat others (`_sft`, `_gen`) are left out.

    Raises:
        PromptError: it cannot be found or read, or has neither layout.
    """
    path = Path(name)
    if path.is_file():
        splits: dict[str, list[Path] | None] = {path.stem: [path]}
    elif path.is_dir():
        splits = _folder(path)
    else:
        splits = dict.fromkeys(_hub_splits(name, revision))
    if any(split.endswith("_prefs") for split in splits):
        splits = {split: files for split, files in splits.items() if split.endswith("_prefs")}
    found = Published(name, "answers", splits, revision)
    first = next(chain.from_iterable(_rows(found, split, files) for split, files in splits.items()), None)
    if first is None:
        raise PromptError(f"{name} has no rows")
    columns = first[1].keys()
    if {"instruction", "completions"} <= columns:
        return found
    if {"chosen", "rejected"} <= columns:
        return Published(name, "pairs", splits, revision)
    raise PromptError(
        f"{name} has the columns {', '.join(columns)}; wanted instruction and completions (UltraFeedback's layout) or "
        "chosen and rejected (pairs)"
    )


def _folder(path: Path) -> dict[str, list[Path] | None]:
    """Split -> files. A split is how its files' names begin: train-00000-of-00002.parquet."""
    base = path / "data" if (path / "data").is_dir() else path
    splits: dict[str, list[Path] | None] = {}
    for file in sorted((*base.rglob("*.parquet"), *base.rglob("*.jsonl"))):
        splits.setdefault(file.stem.split("-0")[0], [])
        splits[file.stem.split("-0")[0]] += [file]  # type: ignore[operator]
    if not splits:
        raise PromptError(f"{path} holds no .parquet or .jsonl file")
    return splits


def _hub_splits(name: str, revision: str | None) -> list[str]:
    import datasets

    try:
        return list(datasets.get_dataset_split_names(name, revision=revision))
    except Exception as error:  # the library raises what its many backends raise
        raise PromptError(
            f"{name!r} is no file and no folder, and as a dataset of the Hub it cannot be read: "
            f"{type(error).__name__}: {error}"
        ) from error


def _rows(of: Published, split: str, files: list[Path] | None) -> Iterator[Row]:
    if files is not None:
        for file in files:
            yield from stream_file(file)
        return
    for i, row in enumerate(load_hub(of.name, None, split, of.revision)):
        yield f"{of.name} {split} row {i}", dict(row)


def _answers(row: Mapping[str, Any], where: str, split: str, label: str) -> Entry:
    instruction, given = row.get("instruction"), row.get("completions")
    if not isinstance(instruction, str) or not isinstance(given, list):
        raise PromptError(f"{where}: wanted a text as instruction and a list as completions")
    models = row.get("models")
    answers = []
    for i, one in enumerate(given):
        if not isinstance(one, Mapping):
            raise PromptError(f"{where}: completions.{i} is {one!r}, wanted model, response, annotations")
        named = models[i] if isinstance(models, list) and i < len(models) else UNKNOWN
        cells = one.get("annotations") if isinstance(one.get("annotations"), Mapping) else {}
        assert isinstance(cells, Mapping)
        annotations = {aspect: annotation(cells.get(aspect)) for aspect in ASPECTS}
        annotations |= {name: annotation(cell) for name, cell in cells.items() if name not in ASPECTS}
        standing, value = rating(one.get("overall_score"))
        critique = str(one.get("critique") or "")
        raw = plain({"overall_score": one.get("overall_score"), "critique": critique})
        annotations[OVERALL] = Annotation(standing, value, raw, critique)
        answers.append(
            Answer(
                model=str(one.get("model") or named),
                text=str(one.get("response") or ""),
                annotations=annotations,
                critique=critique,
                principle=one.get("principle"),
                principle_text=one.get("custom_system_prompt"),
                fine=rating(one.get("fine-grained_score"))[1],
            )
        )
    known = {key: row[key] for key in ("correct_answers", "incorrect_answers") if _told(row.get(key))}
    messages = (Message(role="user", content=instruction),)
    source = str(row.get("source") or label)
    return Entry(where, split, prompt_id(messages), messages, source, tuple(answers), known)


def _told(value: Any) -> bool:
    """UltraFeedback's rows without known answers hold the text "None"."""
    return isinstance(value, list) and bool(value) and value != ["None"]


def _pair(row: Mapping[str, Any], where: str, split: str, label: str) -> Entry:
    messages, answers = (), []
    for side in ("chosen", "rejected"):
        said, given = row.get(side), _first(row, f"score_{side}", f"{side}-rating", f"{side}_avg_rating")
        if isinstance(said, list) and said:
            turns = [Message(role=turn["role"], content=turn["content"] or "") for turn in said]
            messages, text = messages or tuple(turns[:-1]), turns[-1].content
        elif isinstance(said, str):
            text = said
        else:
            raise PromptError(f"{where}: {side} is {said!r}, wanted a text or a list of messages")
        standing, value = rating(given)
        model = _first(row, f"{side}_model", f"{side}-model")
        answers.append(
            Answer(str(model or UNKNOWN), text, {OVERALL: Annotation(standing, value, plain(given))})
        )
    prompt = row.get("prompt") or row.get("instruction")
    if not messages:
        if isinstance(prompt, list):
            messages = tuple(Message(role=turn["role"], content=turn["content"]) for turn in prompt)
        elif isinstance(prompt, str):
            messages = (Message(role="user", content=prompt),)
        else:
            raise PromptError(f"{where}: no prompt: it is {prompt!r}, and chosen is no dialogue")
    source = str(row.get("source") or label)
    return Entry(where, split, prompt_id(messages), messages, source, tuple(answers))


def _first(row: Mapping[str, Any], *names: str) -> Any:
    return next((row[name] for name in names if row.get(name) is not None), None)
