"""A run that is cancelled, wherever it is, leaves no process and no slot, and the same deployment goes on."""

import time
from pathlib import Path

import pytest

from flows.gpus import gpu_limit
from tests.deployments.place import Place, processes_with, serve, wait_for
from tests.deployments.recipes import asked_of, smoke

pytestmark = [pytest.mark.deployments, pytest.mark.timeout(1500)]


def answers(folder: Path) -> int:
    return sum(path.read_bytes().count(b"\n") for path in folder.glob("*/*.jsonl"))


def test_cancelled_while_it_answers_judges_and_trains_it_ends_and_goes_on(here: Place, out: Path):
    recipe = smoke(name="life", machine={"gpus": 1})
    recipe["prompts"][0]["limit"] = 32
    recipe["training"]["sft"]["max_steps"] = 40
    run = out / "life"
    here.worker("zephyr-cpu", "life")
    phases = {
        "generate": lambda: answers(run / "completions") >= 2,
        "judge": lambda: answers(run / "judgements") >= 8 or any((run / "judgements").glob("*/*.parquet")),
        "train": lambda: (run / "models/sft.partial/progress.jsonl").exists(),
    }
    for phase, begun in phases.items():
        id = here.submit("zephyr/local", {"recipe": recipe, "out": str(out)})
        wait_for(begun, 400, phase)
        assert here.run(id)["state_type"] == "RUNNING", (phase, here.run(id)["state"])
        assert processes_with(f"PREFECT__FLOW_RUN_ID={id}"), phase
        if phase == "train":
            assert here.limits()[gpu_limit()] == 1, "the training holds the GPU"
        began = time.monotonic()
        here.cancel(id)
        wait_for(
            lambda id=id: not processes_with(f"PREFECT__FLOW_RUN_ID={id}"), 30, f"{phase}: no process left"
        )
        ended = here.wait(id, 30)
        print(f"\n{phase}: cancelled in {time.monotonic() - began:.0f} s")
        assert ended["state_type"] == "CANCELLED", (phase, ended["state"])
        assert here.limits()[gpu_limit()] == 0, phase

    kept = sorted(path.name for path in run.glob("completions/*/*.parquet"))
    id = here.submit("zephyr/local", {"recipe": recipe, "out": str(out)})
    ended = here.wait(id, 600)
    assert ended["state_type"] == "COMPLETED", ended["state"]
    assert kept and (run / "models/dpo/model.json").exists()


def test_a_server_that_restarts_and_a_killed_worker_cost_nothing_but_time(
    here: Place, out: Path, tmp_path: Path
):
    from benchmarks.simulator import simulator

    with simulator(speed=0.1, mean=60) as model:
        recipe = asked_of(model.url, tmp_path, "restart", 400, models=2, shard_size=50)
        here.worker("zephyr-cpu", "restart-0")
        id = here.submit("build-preferences/local", {"recipe": recipe, "out": str(out)})
        wait_for(lambda: any((out / "restart/completions").glob("*/*.parquet")), 300, "first shard")
        port = int(here.url.split(":")[2].split("/")[0])
        here.kill("server")
        time.sleep(3)
        serve(here, port)
        ended = here.wait(id, 300)
        assert ended["state_type"] == "COMPLETED", ended["state"]

        recipe = recipe | {"name": "killed"}
        id = here.submit("build-preferences/local", {"recipe": recipe, "out": str(out)})
        wait_for(lambda: any((out / "killed/completions").glob("*/*.parquet")), 300, "first shard")
        here.kill("restart-0")
        sealed = {
            path.name: path.stat().st_mtime_ns for path in (out / "killed").glob("completions/*/*.parquet")
        }
        assert not processes_with(f"PREFECT__FLOW_RUN_ID={id}")
        ended = here.wait(id, 300)
        assert ended["state_type"] == "CRASHED", "found by its silence"
        here.worker("zephyr-cpu", "restart-1")
        here.api(
            f"/flow_runs/{id}/set_state",
            {"state": {"type": "SCHEDULED", "name": "AwaitingRetry"}, "force": True},
        )
        ended = here.wait(id, 300)
        assert ended["state_type"] == "COMPLETED", ended["state"]
        assert sealed and all(
            path.stat().st_mtime_ns == sealed[path.name]
            for path in (out / "killed").glob("completions/*/*.parquet")
            if path.name in sealed and len(sealed) == 1
        )
