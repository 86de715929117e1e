"""The law the simulator rests on: found again where it holds, and not fitted to answers of other lengths."""

import json

import pytest

from benchmarks.batching import Machine
from benchmarks.calibrate import LONG, SHAPES, Asked, compared, fitted, loads, predicted, timed
from benchmarks.peers.environments import ROOT
from benchmarks.simulator import simulator


def test_the_law_is_found_again_from_its_own_seconds():
    machine, runs = Machine(a=40, b=2, prefill=3000), loads([4, 16], SHAPES, 4, 0)
    for run in runs:
        run["asked"] = [Asked(one.text, one.tokens, len(one.text.split())) for one in run["asked"]]
        run["seconds"] = predicted(machine, run["asked"], run["in_flight"])
    found = fitted(runs, machine.slots)
    assert [found.a, found.b, found.prefill] == pytest.approx([40, 2, 3000], rel=0.03)


async def test_a_server_that_does_not_keep_to_the_lengths_is_no_measurement():
    with simulator(speed=200) as model:
        _, counted = await timed(model.url, "m", [Asked("hello", 8)], 1)
        assert counted[0].prompt_tokens > 0
        with pytest.raises(ValueError, match="asked for 0 tokens, got 4096"):
            await timed(model.url, "m", [Asked("hello", 0)], 1)


def test_the_committed_result_is_what_the_law_says_now():
    """Dynamo's seconds are committed; the requests are drawn again and the law is fitted again."""
    result = json.loads((ROOT / "benchmarks/results/calibrate-dynamo.json").read_text())["metrics"]
    runs = loads([8, 32, 64, 128, 256], LONG, 4, 0)
    assert len(runs) == len(result["runs"])
    for run, committed in zip(runs, result["runs"], strict=True):
        run["asked"] = [Asked(one.text, one.tokens, len(one.text.split())) for one in run["asked"]]
        run["seconds"] = committed["seconds"]
    machine = fitted([run for run in runs if run["in_flight"] in (32, 256)], 256)
    again = compared(runs, machine, {32, 256})
    assert [one["law"] for one in again] == pytest.approx([one["law"] for one in result["runs"]])
    worst = max(abs(one["error"]) for one in again if one["used"] == "prediction")
    assert worst == pytest.approx(0.062, abs=0.001), "docs/benchmarks.md says so"
