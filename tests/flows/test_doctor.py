"""`zephyr doctor` on a run: every stage that is to be trained is looked at, with what is there of it."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import yaml
from typer.testing import CliRunner

from flows.cli import app
from tests.trainers.conftest import pair, tiny

tiny = tiny  # a fixture


@pytest.fixture
def doctor(tiny: Path, tmp_path: Path) -> Callable[..., tuple[int, dict[str, Any]]]:
    def run(rows: list[dict[str, Any]], **dpo: Any) -> tuple[int, dict[str, Any]]:
        fields: dict[str, Any] = {
            "name": "sick",
            "prompts": [{"file": "prompts/quickstart/prompts.jsonl"}],
            "models": {"m": {"kind": "endpoint", "model": "m", "base_url": "http://127.0.0.1:9/v1"}},
            "samplers": [{"name": "a", "model": "m", "n": 2}],
            "judge": {"kind": "rules"},
            "training": {"base": str(tiny), "dpo": {"batch": 8, "max_length": 128, "epochs": 4} | dpo},
        }
        (tmp_path / "sick.yaml").write_text(yaml.safe_dump(fields))
        if rows:
            folder = tmp_path / "sick" / "dataset" / "data"
            folder.mkdir(parents=True, exist_ok=True)
            pq.write_table(pa.Table.from_pylist(rows), folder / "train_prefs.parquet")
        ended = CliRunner().invoke(
            app, ["doctor", str(tmp_path / "sick.yaml"), "--out", str(tmp_path), "--json"]
        )
        return ended.exit_code, json.loads(ended.stdout.splitlines()[-1])

    return run


def test_a_run_whose_data_contradicts_itself_is_found_out(doctor: Callable[..., Any]):
    rows = [pair(i) for i in range(30)]
    turned = {**rows[0], "chosen": rows[0]["rejected"], "rejected": rows[0]["chosen"]}
    code, found = doctor([*rows, turned])
    assert (code, found["ok"]) == (1, False)
    (finding,) = found["stages"]["dpo"]["findings"]
    assert finding["what"] == "contradictions"


def test_a_good_run_has_a_cost(doctor: Callable[..., Any]):
    code, found = doctor([pair(i) for i in range(30)])
    assert (code, found["ok"]) == (0, True)
    assert found["stages"]["dpo"]["cost"]["steps"] == 16


def test_without_a_dataset_it_says_so(doctor: Callable[..., Any]):
    code, found = doctor([])
    (finding,) = found["stages"]["dpo"]["findings"]
    assert code == 0 and finding["what"] == "no_dataset" and "zephyr pairs" in finding["fix"]
