"""Prompts in IFEval's layout: instructions become constraints when they are read, or the row is refused."""

import json
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from prompts.load import PromptError
from prompts.sources import PromptSource, load_prompts

ROW = {
    "prompt": "Write 300 words, no commas.",
    "instruction_id_list": ["length_constraints:number_words", "punctuation:no_comma"],
    "kwargs": [{"relation": "at least", "num_words": 300}, {}],
}
MADE = [
    {"kind": "min_words", "n": 300, "split": "runs"},
    {"kind": "excludes", "phrases": [","], "whole_words": False},
]


def constraints(path: Path, **source: Any) -> list[Any]:
    [prompt] = load_prompts(PromptSource(file=str(path), **source)).prompts
    return prompt.meta.get("constraints", [])


def written(folder: Path, row: dict[str, Any]) -> Path:
    path = folder / "ifeval.jsonl"
    path.write_text(json.dumps(row))
    return path


def test_instructions_become_constraints(tmp_path: Path):
    assert constraints(written(tmp_path, ROW)) == MADE


def test_constraints_of_the_row_itself_are_kept_too(tmp_path: Path):
    own = {"kind": "max_words", "n": 400}
    assert constraints(written(tmp_path, ROW | {"constraints": [own]})) == [own, *MADE]


def test_instructions_can_be_left_out(tmp_path: Path):
    assert constraints(written(tmp_path, ROW), meta={"constraints": None}) == []


def test_a_table_with_nulls_for_arguments_that_are_not_there_gives_the_same(tmp_path: Path):
    nulls = [
        {"relation": "at least", "num_words": 300.0, "keyword": None},
        dict.fromkeys(["relation", "keyword"]),
    ]
    pq.write_table(pa.Table.from_pylist([ROW | {"kwargs": nulls}]), tmp_path / "ifeval.parquet")
    assert constraints(tmp_path / "ifeval.parquet") == MADE


def test_less_than_is_at_most_one_less(tmp_path: Path):
    ids = ["length_constraints:number_sentences", "keywords:frequency"]
    given = [
        {"relation": "less than", "num_sentences": 4},
        {"relation": "less than", "frequency": 1, "keyword": "tea"},
    ]
    sentences, tea = constraints(written(tmp_path, ROW | {"instruction_id_list": ids, "kwargs": given}))
    assert sentences == {"kind": "max_sentences", "n": 3, "lines": False}
    assert tea == {"kind": "phrase_count", "phrase": "tea", "whole_words": False, "at_most": 0}


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (
            {"instruction_id_list": ["punctuation:no_comma", "count:emoji"]},
            "instruction 'count:emoji' is none",
        ),
        (
            {"kwargs": [{"relation": "at least", "num_words": None}, {}]},
            ".* has no 'num_words' in its kwargs",
        ),
        ({"kwargs": [{"relation": "around", "num_words": 3}, {}]}, "relation 'around', wanted 'at least' or"),
        ({"kwargs": [{}]}, "2 instructions with 1 kwargs"),
        ({"kwargs": "many"}, "kwargs is 'many', wanted a list or its JSON"),
        ({"kwargs": ["many"]}, r"kwargs is \['many'\], wanted a list of instructions' arguments"),
        ({"instruction_id_list": 3}, "instruction_id_list is 3, wanted a list of ids"),
    ],
)
def test_a_row_that_cannot_be_checked_is_refused(tmp_path: Path, change: dict[str, Any], message: str):
    with pytest.raises(PromptError, match=f"line 1: {message}"):
        load_prompts(PromptSource(file=str(written(tmp_path, ROW | change))))
