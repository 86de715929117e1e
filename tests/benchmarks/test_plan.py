"""What the plan says against what simulated machines then do: tokens, and the time until the last verdict."""

import asyncio
import dataclasses
import json
from pathlib import Path

import pytest

from benchmarks.batching import Machine
from benchmarks.ideal import makespan
from benchmarks.replies import Lengths
from benchmarks.workload import Load, machines_of, opened, samplers_of, steps_of, write_recipe
from flows.plan import plan, plan_text
from flows.recipe import Recipe
from flows.run import Run

MACHINE = Machine()
FULL_STEP = (MACHINE.a + MACHINE.b * MACHINE.slots) / 1000
THROUGHPUT = {"prefill": MACHINE.prefill, "decode": MACHINE.slots / FULL_STEP}


def planned(load: Load, folder: Path) -> Run:
    """A load whose recipe says how fast its machines are; the sampler that nobody asks is left out."""
    folder.mkdir(exist_ok=True)
    path = write_recipe(load, dict.fromkeys(machines_of(load, MACHINE), "http://127.0.0.1:9/v1"), folder)
    fields = json.loads(path.read_text())
    for model in fields["models"].values():
        model["throughput"] = THROUGHPUT
    path.write_text(json.dumps(fields))
    return opened(path)


@pytest.mark.parametrize(("rows", "models"), [(300, 2), (1500, 2), (1500, 4), (4000, 2)])
@pytest.mark.long
def test_prompt_tokens_are_within_5_percent_answers_10_and_the_time_20(
    rows: int, models: int, tmp_path: Path
):
    # longer than 1,024 tokens is cut off: what is left has the mean that the plan takes where it knows nothing
    load = Load(rows, models=models, judged=True, lengths=Lengths(mean=365))
    run = planned(load, tmp_path)
    steps = asyncio.run(steps_of(run, load.lengths))
    recipe = run.recipe.model_copy(update={"samplers": samplers_of(run)})
    found = plan(dataclasses.replace(run, recipe=recipe))
    jobs = [step.job for step in steps] + [step.then.job for step in steps if step.then]
    content = found.content()
    assert content["requests"] == len(jobs)
    assert content["tokens_in"] == pytest.approx(sum(job.prompt for job in jobs), rel=0.05)
    assert content["tokens_out"] == pytest.approx(sum(sum(job.outputs) for job in jobs), rel=0.1)
    assert found.eta == pytest.approx(makespan(steps, machines_of(load, MACHINE)), rel=0.2)
    assert not found.unknown


def one_gpu(folder: Path, **changes: object) -> Recipe:
    prompts = folder / "prompts.jsonl"
    prompts.write_text("".join(json.dumps({"prompt": f"Question {i}. " * 20}) + "\n" for i in range(1000)))
    fields = {
        "name": "turns",
        "prompts": [{"file": str(prompts)}],
        "machine": {"gpus": 1},
        "models": {
            name: {"kind": "vllm", "model": f"some/{name}-8b", "throughput": THROUGHPUT | {"start": 60}}
            for name in ("a", "b", "judge")
        },
        "samplers": [{"name": name, "model": name, "max_tokens": 1024} for name in ("a", "b")],
        "judge": {"kind": "rating", "model": "judge"},
    }
    return Recipe.model_validate(fields | changes)


def test_turns_follow_each_other_and_starts_are_counted(tmp_path: Path):
    run = Run.at(one_gpu(tmp_path), tmp_path / "runs")
    found = plan(run)
    content = found.content()
    assert (content["switches"], content["starts"]) == (2, 3)
    ends = [turn["ends"] for turn in content["turns"]]
    begins = [turn["begins"] for turn in content["turns"]]
    assert begins == pytest.approx([60, ends[0] + 60, ends[1] + 60])
    work = sum(line.seconds or 0 for line in found.lines)
    tails = 2 * 1024 * FULL_STEP / 2
    assert found.eta == pytest.approx(3 * 60 + work + tails, rel=0.01)
    assert content["gpu_hours"] == pytest.approx(work / 3600)
    text = plan_text(run, found)
    assert "models take turns on 1 GPU of 80 GiB, 3 starts" in text and "2 switches of models" in text


def test_where_all_models_fit_the_slowest_decides(tmp_path: Path):
    run = Run.at(one_gpu(tmp_path, machine={"gpus": 3}), tmp_path / "runs")
    found = plan(run)
    slowest = max(line.seconds or 0 for line in found.lines)
    assert found.content()["switches"] == 0
    assert 60 + slowest < (found.eta or 0) < 60 + slowest + 1024 * FULL_STEP


def test_a_model_of_unknown_speed_is_named_and_not_guessed(tmp_path: Path):
    load = Load(10, judged=True)
    path = write_recipe(load, dict.fromkeys(machines_of(load, MACHINE), "http://127.0.0.1:9/v1"), tmp_path)
    found = plan(opened(path))
    assert found.unknown == ["judge", "model-0"]
    assert found.eta is None and found.content()["eta_seconds"] is None
