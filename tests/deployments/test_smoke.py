"""From nothing to a finished run: server, setup, deploy, worker, and the smoke deployment started through the API."""

from collections.abc import Iterator
from pathlib import Path

import httpx
import pytest

from tests.deployments.place import PREFECT, ZEPHYR, Place, place, postgres

pytestmark = [pytest.mark.deployments, pytest.mark.timeout(1500)]


@pytest.fixture(scope="module", params=["sqlite", "postgres"])
def fresh(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Place]:
    home = tmp_path_factory.mktemp("fresh")
    if request.param == "sqlite":
        with place(home) as made:
            yield made
        return
    with postgres(home / "postgres") as url, place(home, url) as made:
        yield made


def test_the_smoke_deployment_completes_with_all_that_it_shows(fresh: Place, tmp_path: Path):
    first = fresh.call(*ZEPHYR, "setup", "--gpus", "2")
    again = fresh.call(*ZEPHYR, "setup", "--gpus", "2")
    assert {line.split()[-1] for line in first.splitlines()} == {"made"}
    assert {line.split()[-1] for line in again.splitlines()} == {"there"}
    fresh.call(*PREFECT, "deploy", "--all")
    fresh.worker("zephyr-cpu", "worker")
    run = fresh.submit("zephyr/smoke", {"out": str(tmp_path)})

    ended = fresh.wait(run, 900)
    assert ended["state_type"] == "COMPLETED", ended["state"]
    assert (tmp_path / "smoke" / "report.html").stat().st_size > 10_000
    assert (tmp_path / "smoke" / "models" / "dpo" / "model.json").exists()
    shown = fresh.artifacts()
    assert {
        "plan", "progress", "summary", "funnel", "judge-summary", "preference-summary", "training-sft", "training-dpo",
        "report", "dataset",
    } <= set(shown)  # fmt: skip
    assert "smoke" in shown["summary"]["data"]


def test_what_cannot_be_meant_is_refused_at_submission_and_leaves_no_run(fresh: Place):
    before = fresh.api("/flow_runs/count", {})
    for parameters in ({"recepi": 1}, {"recipe": 7}, {"recipe": "no"}, {"elsewhere": {"shards": 0}}):
        with pytest.raises(AssertionError, match="409"):
            fresh.submit("zephyr/smoke", parameters)
    assert fresh.api("/flow_runs/count", {}) == before


def test_the_server_keeps_no_secret_in_the_clear(fresh: Place):
    """A key in a block is encrypted; that of a run is in `test_secrets`."""
    fresh.call(*ZEPHYR, "setup", "--secret", "SOME_KEY", SOME_KEY="sk-very-secret-0815")
    block = fresh.api("/block_types/slug/secret/block_documents/name/some-key", method="GET")
    assert block["data"]["value"] == "********"
    with httpx.Client() as client:
        everything = client.post(f"{fresh.url}/block_documents/filter", json={}).text
    assert "0815" not in everything
