"""Questions of published suites, in the layouts they are published in: MT-Bench, AlpacaEval, Arena-Hard.

A place is a file (.jsonl, .json, .csv, .parquet), or a dataset of the Hugging Face Hub as OWNER/NAME, with @REVISION
and :SPLIT after it where they matter. None of their text is part of this project.
"""

import re
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from prompts.load import PromptError
from prompts.rows import Row, read_dataset, stream_file
from records.base import Strict

HUB = re.compile(r"(?P<name>[\w.-]+/[\w.-]+)(?:@(?P<revision>[\w.-]+))?(?::(?P<split>[\w.-]+))?")
ID = ("question_id", "prompt_id", "uid")
TURNS = ("turns", "prompt", "instruction")
COLUMNS = (
    *ID,
    *TURNS,
    "category",
    "choices",
    "messages",
    "output",
    "generator",
    "model",
    "model_id",
    "dataset",
)


class Question(Strict):
    """One question of a suite, of one turn or more."""

    id: str
    """As published; the instruction itself where there is none."""
    turns: tuple[str, ...]
    category: str = ""
    reference: tuple[str, ...] = ()
    """A right answer to each turn; empty where there is none."""


class Known(Strict):
    """Somebody's published answer to a question."""

    turns: tuple[str, ...]
    model: str


def rows_of(place: str) -> Iterator[Row]:
    """Raises: PromptError, where there is neither such a file nor such a dataset."""
    path = Path(place)
    if path.is_file():
        yield from stream_file(path)
        return
    hub = HUB.fullmatch(place)
    if hub is None or path.suffix in (".jsonl", ".json", ".csv", ".parquet"):
        raise PromptError(f"no file {place!r}; wanted a file, or a dataset of the Hub as OWNER/NAME:SPLIT")
    yield from read_dataset(hub["name"], None, hub["split"] or "train", hub["revision"], COLUMNS)[1]


def questions(place: str, references: str | None = None) -> list[Question]:
    """A suite's questions, in their order; `references` has right answers to some, by question id.

    Raises:
        PromptError: one cannot be read: its place, the field and what was wanted; or two have one id.
    """
    found: dict[str, Question] = {}
    known = answers(references) if references else {}
    for where, row in rows_of(place):
        turns = _turns(row, TURNS)
        if not turns or not all(turn.strip() for turn in turns):
            raise PromptError(f"{where}: no question; wanted {', '.join(TURNS)}, a text or a list of texts")
        id = _id(row, turns)
        if id in found:
            raise PromptError(f"{where}: question {id[:60]!r} was there before")
        # MT-Bench's own `reference` column is notes of its authors, which no judge was shown
        reference = known[id].turns if id in known else ()
        if reference and len(reference) != len(turns):
            raise PromptError(f"{where}: {len(turns)} turns and {len(reference)} reference answers")
        category = str(row.get("category") or row.get("dataset") or "")
        found[id] = Question(id=id, turns=turns, category=category, reference=reference)
    if not found:
        raise PromptError(f"{place} has no questions")
    if strange := sorted(known.keys() - found.keys()):
        raise PromptError(f"{references}: question {strange[0]!r} is none of {place}")
    return list(found.values())


def answers(place: str) -> dict[str, Known]:
    """Published answers, by question id: FastChat's and Arena-Hard's model_answer, AlpacaEval's model_outputs.

    Raises:
        PromptError: one cannot be read, or two are to one question.
    """
    found: dict[str, Known] = {}
    for where, row in rows_of(place):
        turns = _answer(row)
        if turns is None:
            raise PromptError(f"{where}: no answer; wanted choices with turns, messages, or output")
        id = _id(row, _turns(row, TURNS))
        if id in found:
            raise PromptError(f"{where}: a second answer to question {id[:60]!r}")
        name = row.get("model") or row.get("model_id") or row.get("generator") or Path(place).stem
        found[id] = Known(turns=turns, model=str(name))
    return found


def _answer(row: Mapping[str, Any]) -> tuple[str, ...] | None:
    if isinstance(row.get("output"), str):
        return (row["output"],)
    if isinstance(choices := row.get("choices"), list) and choices and isinstance(choices[0], Mapping):
        return _texts(choices[0].get("turns")) or None
    if isinstance(messages := row.get("messages"), list) and messages:
        said = messages[-1].get("content") if isinstance(messages[-1], Mapping) else None
        said = said.get("answer") if isinstance(said, Mapping) else said
        return (said,) if isinstance(said, str) else None
    return None


def _id(row: Mapping[str, Any], turns: tuple[str, ...]) -> str:
    named = next((row[name] for name in ID if row.get(name) is not None), None)
    return str(named) if named is not None else "\n\n".join(turns)


def _turns(row: Mapping[str, Any], names: tuple[str, ...]) -> tuple[str, ...]:
    return next((turns for name in names if (turns := _texts(row.get(name)))), ())


def _texts(value: Any) -> tuple[str, ...]:
    """A text, a list of texts, or a list of objects with a `content`; nothing of anything else."""
    if isinstance(value, str):
        return (value,)
    if not isinstance(value, list | tuple):
        return ()
    each = [one.get("content") if isinstance(one, Mapping) else one for one in value]
    texts = tuple(one for one in each if isinstance(one, str))
    return texts if len(texts) == len(each) else ()
