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
from serving import guard
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


def servers_of(home: Path) -> list[int]:
    """Processes that keep their Prefect files in `home`."""
    found = []
    for entry in Path("/proc").glob("[0-9]*"):
        try:
            if f"PREFECT_HOME={home}\0".encode() in (entry / "environ").read_bytes() and guard.started(
                int(entry.name)
            ):
                found.append(int(entry.name))
        except OSError:  # another user's, or gone
            continue
    return found


@pytest.mark.skipif(not Path("/proc/self/environ").exists(), reason="looks through /proc")
def test_a_killed_command_leaves_no_prefect_server(tmp_path: Path):
    file, home = write_prompts(tmp_path / "prompts.jsonl", 60), tmp_path / "prefect"
    with fake_model(slow) as fake:
        settings = recipe(fake.url, file, shard_size=20)
        path = tmp_path / "recipe.yaml"
        path.write_text(yaml.safe_dump(settings.model_dump(mode="json")))
        environment = {name: value for name, value in os.environ.items() if name != "PREFECT_API_URL"}
        environment |= {"PREFECT_HOME": str(home), "PREFECT_SERVER_ALLOW_EPHEMERAL_MODE": "true"}
        command = [sys.executable, "-m", "flows.cli", "generate", str(path), "--out", str(tmp_path / "runs")]
        process = subprocess.Popen(
            command,
            env=environment,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
            start_new_session=True,
        )
        deadline = time.monotonic() + 110
        while not fake.asked and process.poll() is None and time.monotonic() < deadline:
            time.sleep(0.05)
        assert fake.asked and len(servers_of(home)) > 1, "it has a server of its own"
        process.kill()
        process.wait()
        deadline = time.monotonic() + 20
        while servers_of(home) and time.monotonic() < deadline:
            time.sleep(0.1)
        assert not servers_of(home)
