"""`zephyr doctor` without a recipe: what the machine has, and what is wrong with it before a run finds out."""

import json
import os
from pathlib import Path
from typing import Any

import pytest
from prefect.settings import PREFECT_API_URL, temporary_settings
from typer.testing import CliRunner

import flows.environment
from flows.cli import app
from flows.preferences import generate_responses
from flows.recipe import RecipeError
from serving.placement import Machine
from tests.flows.fakes import recipe


def looked(out: Path) -> tuple[int, dict[str, dict[str, Any]]]:
    """Exit code, and every check by what it is of."""
    ended = CliRunner().invoke(app, ["doctor", "--out", str(out), "--json"])
    found = json.loads(ended.stdout.splitlines()[-1])
    return ended.exit_code, {check["what"]: check for check in found["checks"]}


def test_a_machine_that_can_run_is_told_what_it_has(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setenv("HF_TOKEN", "hf_very_secret")
    code, checks = looked(tmp_path / "not" / "there")
    assert code == 0
    assert checks["Python"]["level"] == checks["disk"]["level"] == checks["server"]["level"] == "ok"
    assert checks["server"]["found"] == PREFECT_API_URL.value()
    assert checks["pools"] == {
        "what": "pools", "level": "note", "found": "without zephyr-cpu, zephyr-gpu", "fix": "`zephyr setup` makes them",
    }  # fmt: skip
    assert checks["HF_TOKEN"]["found"] == "set" and "hf_very" not in repr(checks)
    assert not (tmp_path / "not").exists(), "it looks and changes nothing"


def test_a_server_that_does_not_answer_is_an_error_with_what_to_do(tmp_path: Path):
    with temporary_settings({PREFECT_API_URL: "http://127.0.0.1:9/api"}):
        code, checks = looked(tmp_path)
    assert code == 1
    assert checks["server"]["level"] == "error" and "unset PREFECT_API_URL" in checks["server"]["fix"]


def test_gpus_that_torch_cannot_use_are_an_error(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(flows.environment, "detect", lambda: Machine(gpus=2, gpu_memory=80))
    monkeypatch.setattr("torch.cuda.is_available", lambda: False)
    code, checks = looked(tmp_path)
    assert code == 1 and checks["GPUs"]["found"] == "2 of 80 GiB"
    assert checks["CUDA"]["level"] == "error" and "on the CPU" in checks["CUDA"]["fix"]


def scarce(folder: Path) -> float:
    """Twice the bytes that are free."""
    there = os.statvfs(folder)
    return 2.0 * there.f_bavail * there.f_frsize


def test_a_full_disk_is_an_error(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(flows.environment, "LEAST_FREE", scarce(tmp_path))
    code, checks = looked(tmp_path)
    assert code == 1 and "make room" in checks["disk"]["fix"]


async def test_a_run_does_not_begin_on_a_full_disk(
    tmp_path: Path, prompt_file: Path, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setattr("flows.run.LEAST_FREE", scarce(tmp_path))
    with pytest.raises(RecipeError, match=r"GB are free for .*zephyr gc"):
        await generate_responses(recipe("http://127.0.0.1:9/v1", prompt_file), tmp_path)
    assert not (tmp_path / "flowtest").exists()
