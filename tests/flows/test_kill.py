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
from flows.recipe import Recipe
from tests.fake_model import Body, Fake, Reply, fake_model
from tests.flows.conftest import write_prompts
from tests.flows.fakes import answer, is_judging, recipe

IN_FLIGHT = 8


def slow(body: Body) -> Reply:
    time.sleep(0.02)
    return answer(body)


def started(folder: Path, settings: Recipe, verb: str) -> tuple[list[str], dict[str, str]]:
    """The command line of a verb, and its environment."""
    path = folder / "recipe.yaml"
    path.write_text(yaml.safe_dump(settings.model_dump(mode="json")))
    command = [sys.executable, "-m", "flows.cli", verb, str(path), "--out", str(folder / "killed"), "--json"]
    return command, os.environ | {"PREFECT_API_URL": str(PREFECT_API_URL.value())}


def asked(fake: Fake, count: int) -> None:
    deadline = time.monotonic() + 100
    while len(fake.asked) < count and time.monotonic() < deadline:
        time.sleep(0.005)


@pytest.mark.parametrize("at", [20, 110], ids=["while generating", "while judging"])
async def test_a_killed_run_goes_on_where_it_was(tmp_path: Path, at: int):
    file = write_prompts(tmp_path / "prompts.jsonl", 60)
    with fake_model(slow) as fake:
        models = {"fake": {"kind": "endpoint", "model": "fake", "base_url": fake.url, "dialect": "vllm"}}
        models["fake"]["max_in_flight"] = IN_FLIGHT  # type: ignore[assignment]
        settings = recipe(fake.url, file, models=models, shard_size=20, shards_in_flight=2)
        command, environment = started(tmp_path, settings, "pairs")

        process = subprocess.Popen(
            command, env=environment, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL
        )
        asked(fake, at)
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


@pytest.mark.parametrize("told", [signal.SIGINT, signal.SIGTERM], ids=["Ctrl-C", "SIGTERM"])
def test_a_run_that_is_told_to_stop_says_so_and_keeps_what_it_has(tmp_path: Path, told: signal.Signals):
    file = write_prompts(tmp_path / "prompts.jsonl", 60)
    with fake_model(slow) as fake:
        models = {"fake": {"kind": "endpoint", "model": "fake", "base_url": fake.url, "dialect": "vllm"}}
        models["fake"]["max_in_flight"] = IN_FLIGHT  # type: ignore[assignment]
        settings = recipe(fake.url, file, models=models, shard_size=20, shards_in_flight=2)
        command, environment = started(tmp_path, settings, "generate")

        process = subprocess.Popen(command, env=environment, stdout=subprocess.PIPE, stderr=subprocess.PIPE)
        asked(fake, 30)
        process.send_signal(told)
        said, errors = process.communicate(timeout=60)
        before = len(fake.asked)
        assert before < 120, "stopped in the middle"
        assert process.returncode == 130, errors.decode()
        end = json.loads(said.splitlines()[-1])
        assert (end["ok"], end["exit"]) == (False, 130)
        assert "what was answered is kept" in end["error"]
        assert b"Traceback" not in errors

        again = subprocess.run(command, env=environment, capture_output=True, text=True)
        assert again.returncode == 0, again.stderr
        assert len(fake.asked) <= 120 + IN_FLIGHT, "only what was in flight is asked twice"
