"""One server for all tests of a file; what a test does to it, it undoes."""

import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.deployments.place import PREFECT, ZEPHYR, Place, place


@pytest.fixture(scope="module")
def here(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Place]:
    """SQLite, with every deployment of prefect.yaml, and no worker yet."""
    with place(tmp_path_factory.mktemp("place")) as made:
        made.call(*ZEPHYR, "setup", "--gpus", "1")
        made.call(*PREFECT, "deploy", "--all")
        yield made


@pytest.fixture
def worker(here: Place, request: pytest.FixtureRequest) -> Iterator["subprocess.Popen[bytes]"]:
    """One that takes runs of zephyr-cpu."""
    process = here.worker("zephyr-cpu", f"worker-{request.node.name[:20].strip('[')}")
    yield process
    here.stop(process)


@pytest.fixture
def out(tmp_path: Path) -> Path:
    """Where runs go."""
    folder = tmp_path / "runs"
    folder.mkdir()
    return folder
