"""Ctrl-C and SIGTERM: a run says that it was stopped, and goes on where it was. kill -9 is in `test_kills`."""

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

from flows.recipe import Recipe
from tests.fake_model import Body, Fake, Reply, fake_model
from tests.flows.conftest import write_prompts
from tests.flows.fakes import answer, recipe

IN_FLIGHT = 8


def slow(body: Body) -> Reply:
    time.sleep(0.1)  # a second and a half for all: the signal comes in the middle
    return answer(body)


def started(folder: Path, settings: Recipe, verb: str) -> tuple[list[str], dict[str, str]]:
    """The command line of a verb, and its environment."""
    path = folder / "recipe.yaml"
    path.write_text(yaml.safe_dump(settings.model_dump(mode="json")))
    command = [sys.executable, "-m", "flows.cli", verb, str(path), "--out", str(folder / "killed"), "--json"]
    return command, os.environ | {"PREFECT_API_URL": str(PREFECT_API_URL.value())}


def hears_ctrl_c() -> None:
    """A shell that starts the tests in the background has all its children ignore it."""
    signal.signal(signal.SIGINT, signal.SIG_DFL)


def asked(fake: Fake, count: int) -> None:
    deadline = time.monotonic() + 100
    while len(fake.asked) < count and time.monotonic() < deadline:
        time.sleep(0.005)


@pytest.mark.parametrize("told", [signal.SIGINT, signal.SIGTERM], ids=["Ctrl-C", "SIGTERM"])
def test_a_run_that_is_told_to_stop_says_so_and_keeps_what_it_has(tmp_path: Path, told: signal.Signals):
    file = write_prompts(tmp_path / "prompts.jsonl", 60)
    with fake_model(slow) as fake:
        models = {"fake": {"kind": "endpoint", "model": "fake", "base_url": fake.url, "dialect": "vllm"}}
        models["fake"]["max_in_flight"] = IN_FLIGHT  # type: ignore[assignment]
        settings = recipe(fake.url, file, models=models, shard_size=20, shards_in_flight=2)
        command, environment = started(tmp_path, settings, "generate")

        process = subprocess.Popen(
            command,
            env=environment,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            preexec_fn=hears_ctrl_c,
        )
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
