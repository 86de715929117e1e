"""The benchmark at a size that takes seconds: it counts right and its numbers are plausible. No timing is held to."""

import itertools
import json
from pathlib import Path

import pytest

from benchmarks.batching import Job, Machine
from benchmarks.clients import stages
from benchmarks.ideal import Step, makespan
from benchmarks.pipeline import Measurement, measure, shown
from benchmarks.replies import planted
from benchmarks.report import finish
from benchmarks.simulator import simulator
from benchmarks.workload import Load, machines_of, opened, settings_of, write_recipe
from flows.answers import stored

FAST = 50


def test_the_ideal_of_two_models_and_a_judge_on_numbers_worked_by_hand():
    """Steps of 10 ms: answers of 1 s and 2 s at two models, each judged in 0.5 s by one that takes one at a time."""
    machine = Machine(a=10, b=0, slots=1)
    steps = [
        Step(model, Job(0, [tokens]), Step("judge", Job(0, [50])))
        for model, tokens in (("a", 100), ("b", 200))
    ]
    assert makespan(steps, dict.fromkeys(("a", "b", "judge"), machine)) == pytest.approx(2.5)
    both = [Step("a", Job(0, [100]), Step("judge", Job(0, [150]))) for _ in range(2)]
    assert makespan(both, dict.fromkeys(("a", "judge"), machine)) == pytest.approx(4.0), "the judge is behind"


@pytest.mark.long
def test_two_models_and_a_judge_are_measured_with_every_row_accounted_for():
    load = Load(30, models=2, judged=True, in_flight=16, shard_size=8)
    results = measure([Measurement("tiny", load, speed=FAST)], ["loop", "plain"], 1)
    loop, plain = results["tiny"]["loop"], results["tiny"]["plain"]
    assert (plain["lost"], plain["doubled"]) == (0, 0)
    for result in (loop, plain):
        assert 0 < result["efficiency"] < 1.05, "no client is faster than the ideal"
        assert 0 <= result["starved"] <= 1
        assert result["cpu_ms_per_row"] > 0
        assert result["rows_per_s"] == pytest.approx(60 / result["wall_s"])
    assert "tiny" in shown(results)


@pytest.mark.long
def test_faults_lose_and_double_nothing():
    load = Load(60, in_flight=32, timeout=2, shard_size=20)
    results = measure([Measurement("faults", load, speed=FAST, faults=0.2)], ["plain"], 1)
    result = results["faults"]["plain"]
    assert (result["lost"], result["doubled"]) == (0, 0)
    assert result["retries"] > 0


async def test_scores_are_the_qualities_that_were_planted(tmp_path: Path):
    load = Load(12, models=2, judged=True, shard_size=5)
    machine = Machine(speed=FAST)
    options = settings_of(machine, load.lengths)
    with simulator(name="any", **options) as model:
        recipe = write_recipe(load, dict.fromkeys(machines_of(load, machine), model.url), tmp_path)
        found = await stages(recipe, prefect=False)
    assert found["kept"] == {"answers": 24, "judgements": 24}
    checked = 0
    for own in stored(opened(recipe)):
        for index in own.receipts:
            judgements = own.judgements(index)
            for completion in itertools.chain(*own.completions(index)):
                (judgement,) = judgements[completion.id]
                assert judgement.score == pytest.approx(1 + 4 * planted(completion.text)[0], abs=0.01)
                checked += 1
    assert checked == 24


def test_the_last_line_is_one_json_object(capsys: pytest.CaptureFixture[str]):
    finish("pipeline", {"x": 1})
    found = json.loads(capsys.readouterr().out.splitlines()[-1])
    assert set(found) == {"name", "metrics", "machine", "versions", "date"}
