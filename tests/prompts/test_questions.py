"""Question files in the layouts they are published in, and rows that are none."""

import json
from pathlib import Path
from typing import Any

import pytest

from prompts.load import PromptError
from prompts.questions import answers, questions


def written(folder: Path, *rows: Any, name: str = "rows.jsonl") -> str:
    (folder / name).write_text("".join(json.dumps(row) + "\n" for row in rows))
    return str(folder / name)


@pytest.mark.parametrize(
    ("row", "id", "turns"),
    [
        ({"question_id": 81, "category": "writing", "turns": ["A?", "B?"]}, "81", ("A?", "B?")),
        ({"prompt_id": 7, "prompt": ["A?", "B?"], "reference": ["notes"]}, "7", ("A?", "B?")),
        ({"instruction": "A?", "output": "b", "generator": "m", "dataset": "koala"}, "A?", ("A?",)),
        ({"uid": "u", "cluster": "c", "prompt": "A?"}, "u", ("A?",)),
        ({"question_id": "q", "turns": [{"content": "A?"}]}, "q", ("A?",)),
    ],
)
def test_a_question_is_read_from_every_published_layout(tmp_path: Path, row: Any, id: str, turns: Any):
    [found] = questions(written(tmp_path, row))
    assert (found.id, found.turns, found.reference) == (id, turns, ())


@pytest.mark.parametrize(
    ("row", "text", "model"),
    [
        (
            {"question_id": 1, "model_id": "gpt-4", "choices": [{"index": 0, "turns": ["a", "b"]}]},
            "a",
            "gpt-4",
        ),
        ({"question_id": 1, "model": "g", "choices": [{"turns": [{"content": "a"}]}]}, "a", "g"),
        ({"uid": 1, "model": "g", "messages": [{"content": "q"}, {"content": {"answer": "a"}}]}, "a", "g"),
        ({"uid": 1, "model": "g", "messages": [{"content": "q"}, {"content": "a"}]}, "a", "g"),
    ],
)
def test_an_answer_is_read_from_every_published_layout(tmp_path: Path, row: Any, text: str, model: str):
    found = answers(written(tmp_path, row))["1"]
    assert (found.turns[0], found.model) == (text, model)


def test_a_reference_belongs_to_its_question_and_to_every_turn(tmp_path: Path):
    row = {"question_id": 1, "turns": ["A?", "B?"]}
    asked = written(tmp_path, row, {"question_id": 2, "turns": ["C?"]})
    right = {"question_id": 1, "choices": [{"turns": ["a", "b"]}]}
    first, second = questions(asked, written(tmp_path, right, name="right.jsonl"))
    assert first.reference == ("a", "b") and second.reference == ()
    with pytest.raises(PromptError, match="2 turns and 1 reference answers"):
        questions(asked, written(tmp_path, {"question_id": 1, "output": "a"}, name="short.jsonl"))
    with pytest.raises(PromptError, match="question '9' is none of"):
        questions(asked, written(tmp_path, {"question_id": 9, "output": "a"}, name="other.jsonl"))


@pytest.mark.parametrize(
    ("rows", "message"),
    [
        ([{"question_id": 1, "turns": []}], "line 1: no question"),
        ([{"question_id": 1, "turns": ["A?", " "]}], "line 1: no question"),
        ([{"question_id": 1, "turns": ["A?"]}] * 2, "line 2: question '1' was there before"),
        ([], "has no questions"),
    ],
)
def test_what_is_no_list_of_questions_is_refused_with_its_line(tmp_path: Path, rows: Any, message: str):
    with pytest.raises(PromptError, match=message):
        questions(written(tmp_path, *rows))


def test_a_place_that_is_neither_a_file_nor_a_dataset_is_refused():
    with pytest.raises(
        PromptError, match=r"no file 'nowhere\.jsonl'; wanted a file, or a dataset of the Hub"
    ):
        questions("nowhere.jsonl")
