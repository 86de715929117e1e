import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pyarrow as pa
import pytest
from datasets import Dataset

from tests.trainers.conftest import text
from trainers.job import Data
from trainers.pretrain import in_blocks, texts_to_tokens
from trainers.rows import read
from trainers.run import main
from trainers.settings import PretrainSettings

SETTINGS = PretrainSettings(max_length=16)


def test_documents_follow_each_other_with_their_ends_and_every_token_is_trained(tokenizer: Any):
    texts = [text(i)["text"] for i in range(6)]
    rows, counts = texts_to_tokens(Dataset.from_list([{"text": t} for t in texts]), tokenizer, SETTINGS)
    every = [token for ids in rows["input_ids"] for token in ids]
    assert every == [t for one in texts for t in [*tokenizer(one)["input_ids"], tokenizer.eos_token_id]]
    assert list(rows["labels"]) == list(rows["input_ids"])
    assert {len(ids) for ids in rows["input_ids"][:-1]} == {16}
    assert counts["tokens"] == len(every) and counts["sequences"] == len(rows)


def test_a_tokenizer_that_begins_texts_with_bos_begins_documents_with_it(tiny: Path):
    from tokenizers.processors import TemplateProcessing
    from transformers import AutoTokenizer

    tokenizer: Any = AutoTokenizer.from_pretrained(tiny)
    tokenizer.backend_tokenizer.post_processor = TemplateProcessing(
        single="<|im_start|> $A", special_tokens=[("<|im_start|>", 1)]
    )
    rows, _ = texts_to_tokens(Dataset.from_list([{"text": "tea"}, {"text": "rain"}]), tokenizer, SETTINGS)
    (ids,) = rows["input_ids"]
    assert ids.count(1) == ids.count(2) == 2 and ids[0] == 1 and ids[-1] == 2
    assert ids[ids.index(2) + 1] == 1


def test_no_token_is_alone_in_a_sequence_or_lost():
    tokens = pa.array(range(33), pa.int32())
    assert [len(block) for block in in_blocks(tokens, 16).to_pylist()] == [16, 15, 2]
    assert [len(block) for block in in_blocks(tokens[:32], 16).to_pylist()] == [16, 16]
    assert [token for block in in_blocks(tokens, 16).to_pylist() for token in block] == list(range(33))


def test_a_pretraining_job_learns_the_texts(job: Callable[..., Any], tmp_path: Path):
    asked = job("pretrain", settings={"max_length": 32, "epochs": 4})
    base = Path(asked["base"])
    bare = tmp_path / "bare"  # a base that has no chat template
    bare.mkdir()
    for file in base.iterdir():
        if file.name != "chat_template.jinja":
            (bare / file.name).write_bytes(file.read_bytes())
    (tmp_path / "job.json").write_text(json.dumps(asked | {"base": str(bare)}))
    assert main([str(tmp_path / "job.json")]) == 0
    metrics = json.loads((Path(asked["out"]) / "metrics.json").read_text())
    assert metrics["eval_after"]["loss"] < metrics["eval_before"]["loss"] - 0.05
    assert metrics["rows"]["train"]["sequences"] > metrics["rows"]["train"]["tokens"] / 32 - 1


def test_texts_come_from_parquet_json_lines_and_plain_files(tmp_path: Path):
    (tmp_path / "a.jsonl").write_text('{"text": "one"}\n{"text": "two"}\n')
    (tmp_path / "b.txt").write_text("three\nlines\nlong")
    rows = read(Data(files=(tmp_path / "a.jsonl", tmp_path / "b.txt")))
    assert list(rows["text"]) == ["one", "two", "three\nlines\nlong"]
    (tmp_path / "c.jsonl").write_text("{")
    with pytest.raises(ValueError, match=r"c.jsonl' cannot be read"):
        read(Data(files=(tmp_path / "c.jsonl",)))


def test_a_column_that_is_not_there_is_refused_with_those_that_are(tokenizer: Any):
    with pytest.raises(ValueError, match=r"column='text' is not there; the rows have \['body'\]"):
        texts_to_tokens(Dataset.from_list([{"body": "tea"}]), tokenizer, SETTINGS)
