"""kill -9 of a command that had Prefect start a server leaves nothing of it. Apart from the server of tests/flows."""

import os
import subprocess
import sys
import time
from pathlib import Path

import pytest
import yaml

from serving import guard
from tests.fake_model import fake_model
from tests.flows.conftest import write_prompts
from tests.flows.fakes import answer, recipe


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


@pytest.mark.long
@pytest.mark.timeout(240)  # Prefect's own start, with a new database, is most of it
@pytest.mark.skipif(not Path("/proc/self/environ").exists(), reason="looks through /proc")
def test_a_killed_command_leaves_no_prefect_server(tmp_path: Path):
    file, home = write_prompts(tmp_path / "prompts.jsonl", 60), tmp_path / "prefect"
    with fake_model(answer) as fake:
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
        deadline = time.monotonic() + 200
        while not fake.asked and process.poll() is None and time.monotonic() < deadline:
            time.sleep(0.05)
        assert fake.asked and len(servers_of(home)) > 1, "it has a server of its own"
        process.kill()
        process.wait()
        deadline = time.monotonic() + 20
        while servers_of(home) and time.monotonic() < deadline:
            time.sleep(0.1)
        assert not servers_of(home)
