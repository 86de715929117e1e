"""Servers that a run starts itself share GPUs that hold one model at a time: each starts once, and no two overlap."""

import asyncio
import json
import os
import stat
import sys
from contextlib import nullcontext
from pathlib import Path
from typing import Any
from unittest.mock import patch

import pytest

import benchmarks
from flows import collect, conduct, tasks
from flows.answers import Answers
from flows.inputs import gather_prompts, models_of
from flows.recipe import Recipe
from flows.run import Run
from serving.models import open_models

ROOT = Path(benchmarks.__file__).parents[1]


@pytest.fixture
def gpus(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A `vllm` on PATH that is simulated, and the folder of its GPUs."""
    script = tmp_path / "bin/vllm"
    script.parent.mkdir()
    script.write_text(
        f'#!/bin/sh\nPYTHONPATH={ROOT} exec {sys.executable} -m benchmarks.vllm_stand_in "$@"\n'
    )
    script.chmod(script.stat().st_mode | stat.S_IEXEC)
    monkeypatch.setenv("PATH", f"{script.parent}:{os.environ['PATH']}")
    monkeypatch.delenv("ZEPHYR_VLLM_PYTHON", raising=False)
    monkeypatch.setenv("SIMULATED_GPUS", str(tmp_path / "gpus"))
    monkeypatch.setenv("SIMULATED_OPTIONS", json.dumps({"speed": 50, "start_delay": 0.3}))
    weights = tmp_path / "weights"
    weights.mkdir()
    (weights / "config.json").write_text("{}")
    (weights / "model.safetensors").write_bytes(b"\0" * 1000)
    return tmp_path / "gpus"


def recipe(folder: Path, models: dict[str, dict[str, Any]], judge: Any, **changes: Any) -> Recipe:
    prompts = folder / "prompts.jsonl"
    prompts.write_text("".join(json.dumps({"prompt": f"Question {i}."}) + "\n" for i in range(12)))
    weights = str(folder / "weights")
    judges = [m["model"] for m in judge.get("members", [judge]) if "model" in m]
    fields: dict[str, Any] = {
        "name": "turns",
        "prompts": [{"file": str(prompts)}],
        "machine": {"gpus": 1, "gpu_memory": 80},
        "models": {
            name: {"kind": "vllm", "model": weights, "revision": name, **own} for name, own in models.items()
        },
        "samplers": [
            {"name": name, "model": name, "seed": i, "max_tokens": 64}
            for i, name in enumerate(models)
            if name not in judges or name.startswith("both")
        ],
        "judge": judge,
        "shard_size": 5,
    }
    return Recipe.model_validate(fields | changes)


async def answered_and_judged(settings: Recipe, out: Path) -> tuple[list[Answers], list[str]]:
    run, said = Run.at(settings, out), []
    prompts, _ = gather_prompts(run)
    with (
        patch.object(conduct, "generate_shard", tasks.generate_shard.fn),
        patch.object(conduct, "judge_shard", tasks.judge_shard.fn),
        patch.object(collect, "progress_artifact", nullcontext),
    ):
        async with open_models(models_of(settings), run.servers, said.append, settings.machine) as engine:
            work = collect.answer_and_judge(run, settings.samplers, prompts, engine)
            answers = await asyncio.wait_for(work, 120)
    for own in answers:
        assert sum(receipt.answers for receipt in own.receipts.values()) == 12
        for receipts in own.judged.values():
            assert sum(sum(r.dropped.values()) for r in receipts.values()) == 0
    return answers, said


def starts(gpus: Path) -> list[str]:
    """Models in the order of their starts. An overlap would have ended one with an out-of-memory error."""
    events = [json.loads(line) for line in (gpus / "events.jsonl").read_text().splitlines()]
    return [event["model"] for event in events if event["event"] == "start"]


RATING = {"kind": "rating", "model": "judge"}
SIDE_BY_SIDE = {"kind": "pairwise", "name": "versus", "model": "judge"}


async def test_two_generators_and_a_judge_take_turns_on_one_gpu(tmp_path: Path, gpus: Path):
    settings = recipe(tmp_path, {"a": {}, "b": {}, "judge": {}}, RATING)
    answers, _ = await answered_and_judged(settings, tmp_path / "runs")
    assert sorted(starts(gpus)[:2]) == ["a", "b"] and starts(gpus)[2:] == ["judge"]
    assert all(len(own.judged["rating"]) == 3 for own in answers)

    again, said = await answered_and_judged(settings, tmp_path / "runs")
    assert len(starts(gpus)) == 3, "a second run finds everything there and starts nothing"
    assert [own.receipts for own in again] == [own.receipts for own in answers] and not said


async def test_a_new_judge_starts_alone(tmp_path: Path, gpus: Path):
    models: dict[str, dict[str, Any]] = {"a": {}, "b": {}, "judge": {}}
    await answered_and_judged(recipe(tmp_path, models, RATING), tmp_path / "runs")
    await answered_and_judged(recipe(tmp_path, models, RATING | {"aspects": ["honesty"]}), tmp_path / "runs")
    assert starts(gpus)[2:] == ["judge", "judge"]


@pytest.mark.parametrize("judge", [RATING, SIDE_BY_SIDE], ids=["one by one", "side by side"])
async def test_small_models_share_a_gpu(judge: dict[str, Any], tmp_path: Path, gpus: Path):
    small = {"gpu_memory": 25}
    settings = recipe(tmp_path, {"a": small, "b": small, "judge": small}, judge, max_unjudged=1.0)
    await answered_and_judged(settings, tmp_path / "runs")
    assert sorted(starts(gpus)) == ["a", "b", "judge"]


async def test_a_judge_that_answers_too_is_started_once(tmp_path: Path, gpus: Path):
    judge = {"kind": "rating", "model": "both"}
    settings = recipe(tmp_path, {"both": {}, "b": {}}, judge)
    await answered_and_judged(settings, tmp_path / "runs")
    assert starts(gpus) == ["b", "both"]


@pytest.mark.parametrize("sleeps", [False, True])
async def test_models_that_judge_each_other_come_back(sleeps: bool, tmp_path: Path, gpus: Path):
    """Both must judge what the other wrote, and there is room for one: one is served twice, and may sleep between."""
    members = [{"kind": "rating", "name": f"by-{name}", "model": name} for name in ("both-x", "both-y")]
    own = {"args": {"enable-sleep-mode": sleeps}}
    jury = {"kind": "jury", "members": members}
    settings = recipe(tmp_path, {"both-x": own, "both-y": own}, jury)
    answers, said = await answered_and_judged(settings, tmp_path / "runs")
    assert len(starts(gpus)) == (2 if sleeps else 3)
    assert sum("is awake" in line for line in said) == sleeps
    assert all(len(one.judged) == 2 for one in answers)


async def test_two_gpus_are_both_used(tmp_path: Path, gpus: Path):
    settings = recipe(
        tmp_path, {"a": {}, "b": {}, "c": {}, "judge": {}}, RATING, machine={"gpus": 2, "gpu_memory": 80}
    )
    await answered_and_judged(settings, tmp_path / "runs")
    assert sorted(starts(gpus)) == ["a", "b", "c", "judge"]
    assert {path.name for path in gpus.glob("gpu*")} == {"gpu0", "gpu1"}
