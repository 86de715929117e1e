"""Datasets of the Hub by name and revision, through `datasets` itself, from a stand-in Hub and then from its cache."""

import json
import os
import subprocess
import sys
from io import BytesIO
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from tests.pairs.published_rows import binarized, ultrachat_200k
from tests.standin_hub import standin_hub

OLD, FIXED, OTHER = "1" * 40, "2" * 40, "3" * 40
READS = """
import json, sys
from pairs.training_data import TrainingData, prepare
from pathlib import Path
from prompts.benchmarks import BenchmarkList
from prompts.load import PromptError
from prompts.published import open_published
from prompts.sources import PromptSource, load_prompts

out, old, fixed, *others = Path(sys.argv[1]), *sys.argv[2:]
name = "HuggingFaceH4/ultrafeedback_binarized"
found = {}
for which, revision in (("old", old), ("fixed", fixed)):
    source = TrainingData(dataset=name, revision=revision, train="train_prefs", test="test_prefs")
    receipt = prepare(source, "pairs", out / which)
    found[which] = [receipt[split]["rows"] for split in ("train", "test")]
    found[which].append(sum(1 for _ in open_published(name, revision).entries()))
for split in ("train_sft", "train_gen"):
    source = PromptSource(dataset="HuggingFaceH4/ultrachat_200k", split=split, messages="messages")
    found[split] = [[m.role for m in prompt.messages] for prompt in load_prompts(source).prompts]
found["benchmark"] = list(BenchmarkList(name="some", dataset=name, split="test_prefs", revision=old).texts())
for other in others:
    try:
        load_prompts(PromptSource(dataset=name, revision=other, split="train_prefs"))
    except PromptError as error:
        found["refused"] = str(error)
print(json.dumps(found))
"""


def parquet(rows: list[dict[str, Any]]) -> bytes:
    held = BytesIO()
    pq.write_table(pa.Table.from_pylist(rows), held)
    return held.getvalue()


def gen(i: int) -> dict[str, Any]:
    """A row of a `_gen` split: as `_sft`, without the last turn."""
    row = ultrachat_200k(i)
    return row | {"messages": row["messages"][:-1]}


def read(tmp_path: Path, url: str, offline: bool) -> dict[str, Any]:
    env = os.environ | {
        "HF_ENDPOINT": url, "HF_HOME": str(tmp_path / "home"), "HF_HUB_OFFLINE": str(int(offline)),
        "HF_HUB_DISABLE_XET": "1", "HF_DATASETS_OFFLINE": str(int(offline)), "PYTHONPATH": os.getcwd(),
    }  # fmt: skip
    command = [sys.executable, "-c", READS, str(tmp_path / str(offline)), OLD, FIXED, *[OTHER] * offline]
    done = subprocess.run(command, env=env, capture_output=True, text=True, timeout=100)
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout.splitlines()[-1])


def test_a_dataset_of_the_hub_is_read_at_its_revision_and_later_without_the_hub(tmp_path: Path):
    with standin_hub() as hub:
        for commit, count in ((OLD, 7), (FIXED, 5)):
            hub.commits[commit] = {
                "data/train_prefs-00000-of-00001.parquet": parquet([binarized(i) for i in range(count)]),
                "data/test_prefs-00000-of-00001.parquet": parquet([binarized(i) for i in range(20, 22)]),
            }
        hub.files["HuggingFaceH4/ultrafeedback_binarized"] = hub.commits[FIXED]
        hub.files["HuggingFaceH4/ultrachat_200k"] = {
            "data/train_sft-00000-of-00001.parquet": parquet([ultrachat_200k(i) for i in range(3)]),
            "data/train_gen-00000-of-00001.parquet": parquet([gen(i) for i in range(3)]),
        }
        first = read(tmp_path, hub.url, offline=False)
        assert {path.split("/")[0] for path in hub.read} >= {OLD, FIXED}
        hub.read.clear()
        again = read(tmp_path, hub.url, offline=True)
        assert not hub.read
    refused = again.pop("refused")
    assert first == again, "the newest in the cache is another revision"
    assert "has another commit than" in refused and OTHER in refused
    assert first["old"] == [7, 2, 9] and first["fixed"] == [5, 2, 7]
    asked = [["user", "assistant", "user"]] * 3
    assert first["train_sft"] == first["train_gen"] == asked, (
        "a prompt ends with the user, whichever split it is of"
    )
    assert first["benchmark"] == ["What is 20 plus one?", "What is 21 plus one?"]
