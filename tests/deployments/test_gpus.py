"""Two deployments that want the only GPU take turns, and both finish."""

import json
import stat
import sys
from pathlib import Path

import pytest

from flows.gpus import gpu_limit
from tests.deployments.place import ROOT, Place, wait_for
from tests.deployments.recipes import served

pytestmark = [pytest.mark.deployments, pytest.mark.timeout(900)]


def test_two_deployments_that_want_one_gpu_never_overlap_and_both_finish(
    here: Place, out: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    script = tmp_path / "bin/vllm"
    script.parent.mkdir()
    script.write_text(
        f'#!/bin/sh\nPYTHONPATH={ROOT} exec {sys.executable} -m benchmarks.vllm_stand_in "$@"\n'
    )
    script.chmod(script.stat().st_mode | stat.S_IEXEC)
    (tmp_path / "weights").mkdir()
    (tmp_path / "weights/config.json").write_text("{}")
    (tmp_path / "weights/model.safetensors").write_bytes(bytes(1000))
    gpus = tmp_path / "simulated"
    here.worker(
        "zephyr-cpu",
        "gpus",
        PATH=f"{script.parent}:{here.environment['PATH']}",
        SIMULATED_GPUS=str(gpus),
        SIMULATED_OPTIONS=json.dumps({"speed": 0.5, "start_delay": 1}),
        ZEPHYR_VLLM_PYTHON="",
    )
    runs = [
        here.submit("build-preferences/local", {"recipe": served(tmp_path, name, i), "out": str(out)})
        for i, name in enumerate(("one", "two"))
    ]
    most = 0

    def both() -> bool:
        nonlocal most
        most = max(most, here.limits()[gpu_limit()])
        return all(here.run(id)["state_type"] in ("COMPLETED", "FAILED", "CRASHED") for id in runs)

    wait_for(both, 500, "both runs")
    assert [here.run(id)["state_type"] for id in runs] == ["COMPLETED"] * 2, [
        here.run(id)["state"] for id in runs
    ]
    events = [json.loads(line) for line in (gpus / "events.jsonl").read_text().splitlines()]
    assert [event["event"] for event in sorted(events, key=lambda event: event["at"])] == ["start", "end"] * 2
    assert most == 1
    assert here.limits()[gpu_limit()] == 0
