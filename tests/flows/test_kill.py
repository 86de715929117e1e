"""kill -9 in the middle, the same command again: nothing is lost or asked twice, and the dataset is the same."""

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
import yaml
from prefect.settings import PREFECT_API_URL

from flows.preferences import build_preferences
from tests.fake_model import Body, Reply, fake_model
from tests.flows.conftest import write_prompts
from tests.flows.fakes import answer, is_judging, recipe

IN_FLIGHT = 8


def slow(body: Body) -> Reply:
    time.sleep(0.02)
    return answer(body)


@pytest.mark.parametrize("at", [20, 110], ids=["while generating", "while judging"])
async def test_a_killed_run_goes_on_where_it_was(tmp_path: Path, at: int):
    file = write_prompts(tmp_path / "prompts.jsonl", 60)
    with fake_model(slow) as fake:
        models = {"fake": {"kind": "endpoint", "model": "fake", "base_url": fake.url, "dialect": "vllm"}}
        models["fake"]["max_in_flight"] = IN_FLIGHT  # type: ignore[assignment]
        settings = recipe(fake.url, file, models=models, shard_size=20, shards_in_flight=2)
        path = tmp_path / "recipe.yaml"
        path.write_text(yaml.safe_dump(settings.model_dump(mode="json")))
        command = [
            sys.executable,
            "-m",
            "flows.cli",
            "pairs",
            str(path),
            "--out",
            str(tmp_path / "killed"),
            "--json",
        ]
        environment = os.environ | {"PREFECT_API_URL": str(PREFECT_API_URL.value())}

        process = subprocess.Popen(
            command, env=environment, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL
        )
        deadline = time.monotonic() + 100
        while len(fake.asked) < at and time.monotonic() < deadline:
            time.sleep(0.005)
        process.send_signal(signal.SIGKILL)
        process.wait()
        time.sleep(0.1)  # what the server still had in hand
        before = len(fake.asked)
        assert at <= before < 240, "killed in the middle"

        ended = subprocess.run(command, env=environment, capture_output=True, text=True)
        assert ended.returncode == 0, ended.stderr
        result = json.loads(ended.stdout.splitlines()[-1])
        assert len(fake.asked) <= 240 + IN_FLIGHT, "only what was in flight is asked twice"
        judging = sum(is_judging(body) for body in fake.asked)
        assert 120 <= judging <= 120 + IN_FLIGHT

        whole = await build_preferences(settings, tmp_path / "whole")
    assert result["dataset"]["digest"] == whole["dataset"]["digest"]
