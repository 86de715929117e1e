"""The reference is computed once for a pair, whatever else changes, and never taken from another model."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from tests.trainers.conftest import ZEPHYR, pair
from trainers.reference import References, key_of_pair
from trainers.run import main


@pytest.fixture
def trained(job: Callable[..., Any], tmp_path: Path) -> Callable[..., dict[str, Any]]:
    """Train a model whose reference is kept in one place for all, and give its metrics."""

    def run(name: str, code: int = 0, **settings: Any) -> dict[str, Any]:
        out, references = str(tmp_path / name), str(tmp_path / "reference")
        asked = job(settings={"max_steps": 1, **settings}, out=out, references=references)
        (tmp_path / "job.json").write_text(json.dumps(asked))
        assert main([str(tmp_path / "job.json")]) == code
        return json.loads((tmp_path / name / "metrics.json").read_text()) if code == 0 else {}

    return run


def test_a_sweep_over_beta_makes_one_pass_and_another_template_makes_a_second(trained: Callable[..., Any]):
    first, *others = (trained(f"beta-{beta}", beta=beta)["reference"] for beta in (0.01, 0.05, 0.1))
    assert first == {"train": {"computed": 16, "kept": 0}, "eval": {"computed": 4, "kept": 0}}
    assert others == [{"train": {"computed": 0, "kept": 16}, "eval": {"computed": 0, "kept": 4}}] * 2
    another = trained("rate", learning_rate=1e-4, loss="ipo", seed=7)["reference"]
    assert another["train"] == {"computed": 0, "kept": 16}
    assert trained("template", template=ZEPHYR)["reference"] == first
    assert (
        trained("longer", max_length=100)["reference"] == others[0]
    )  # cuts nothing, so the tokens are the same
    assert trained("shorter", max_length=30)["reference"]["train"]["computed"] > 0


def test_the_kept_reference_is_the_computed_one(trained: Callable[..., Any]):
    fresh, kept = trained("fresh"), trained("kept", logging_every=2)
    assert kept["reference"]["train"]["kept"] == 16
    for when in ("eval_before", "eval_after"):
        assert kept[when] == pytest.approx(fresh[when], abs=1e-6)


def test_only_new_pairs_are_computed(trained: Callable[..., Any], tmp_path: Path, job: Callable[..., Any]):
    trained("first")
    asked = job(
        settings={"max_steps": 1},
        out=str(tmp_path / "more"),
        references=str(tmp_path / "reference"),
        eval=None,
    )
    pq.write_table(pa.Table.from_pylist([pair(i) for i in range(8, 24)]), asked["train"]["files"][0])
    (tmp_path / "job.json").write_text(json.dumps(asked))
    assert main([str(tmp_path / "job.json")]) == 0
    metrics = json.loads((tmp_path / "more" / "metrics.json").read_text())
    assert metrics["reference"] == {"train": {"computed": 4, "kept": 12}}  # 16 to 19 were held out before


def test_what_another_model_gave_is_not_believed(trained: Callable[..., Any], tmp_path: Path, capsys: Any):
    trained("first")
    for path in (tmp_path / "reference").glob("*/*.parquet"):
        table = pq.read_table(path).to_pydict()
        table["ref_chosen_logps"] = [value - 40 for value in table["ref_chosen_logps"]]
        pq.write_table(pa.table(table), path)
    trained("second", code=2, beta=0.5)
    assert "was not computed by this model; delete the folder" in capsys.readouterr().err


def test_a_pair_is_known_by_its_tokens():
    row = {"prompt_ids": [1, 2], "chosen_ids": [3], "rejected_ids": [4, 5]}
    moved = {"prompt_ids": [1], "chosen_ids": [2, 3], "rejected_ids": [4, 5]}
    assert key_of_pair(row) == key_of_pair(dict(row)) != key_of_pair(moved)


def test_a_number_format_is_a_place_of_its_own(tmp_path: Path):
    ours = References(tmp_path, "base", "float32", "float32")
    ours.add(["a"], [(-1.0, -2.0)])
    assert ours.known(["a", "b"]) == {"a": (-1.0, -2.0)}
    assert References(tmp_path, "base", "bfloat16", "bfloat16").known(["a"]) == {}
    assert References(tmp_path, "other", "float32", "float32").known(["a"]) == {}
