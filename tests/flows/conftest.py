"""One Prefect server for all flow tests: it takes 20 to 50 seconds to start."""

import os
from collections.abc import Iterator
from pathlib import Path

import pytest

os.environ.setdefault("PREFECT_LOGGING_LEVEL", "CRITICAL")
os.environ.setdefault("PREFECT_SERVER_ANALYTICS_ENABLED", "false")
os.environ.setdefault("DO_NOT_TRACK", "1")


@pytest.fixture(scope="session", autouse=True)
def prefect_server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    """A real server with a database of its own."""
    os.environ["PREFECT_HOME"] = str(tmp_path_factory.mktemp("prefect"))
    from prefect.testing.utilities import prefect_test_harness

    with prefect_test_harness(server_startup_timeout=180):
        yield


@pytest.fixture
def prompt_file(tmp_path: Path) -> Path:
    return write_prompts(tmp_path / "prompts.jsonl", 12)


def write_prompts(path: Path, count: int, first: int = 0) -> Path:
    """Prompts with a constraint; every fourth is held out."""
    import json

    rows = [
        {
            "prompt": f"Say something about number {i} in at most 6 words.",
            "split": "test" if i % 4 == 3 else "train",
            "constraints": [{"kind": "max_words", "n": 6}],
        }
        for i in range(first, first + count)
    ]
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return path
