"""A wall clock that is set back and forth while a run is under way changes nothing."""

import itertools
import time
from pathlib import Path

import pytest

from flows.preferences import build_preferences
from tests.fake_model import Body, Fault, Reply, fake_model
from tests.flows.conftest import write_prompts
from tests.flows.fakes import answer, recipe

DAY = 86_400.0


async def test_a_clock_that_jumps_changes_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    file = write_prompts(tmp_path / "prompts.jsonl", 12)
    calls: list[tuple[float, Body]] = []

    def refuses_once(body: Body) -> Reply:
        calls.append((time.monotonic(), body))
        return Fault(429, headers={"retry-after": "1"}) if len(calls) == 10 else answer(body)

    with fake_model(answer) as fake:
        steady = await build_preferences(recipe(fake.url, file), tmp_path / "steady")
        asked = len(fake.asked)

    true, jumps = time.time, itertools.cycle((0.0, -DAY, 3 * DAY, -0.5, -400 * DAY))
    monkeypatch.setattr(time, "time", lambda: true() + next(jumps))
    monkeypatch.setattr(time, "time_ns", lambda: int(1e9 * (true() + next(jumps))))
    with fake_model(refuses_once) as fake:
        settings = recipe(fake.url, file)
        jumping = await build_preferences(settings, tmp_path / "jumping")
        assert len(calls) == asked + 1, "one was refused and asked again"
        refused, repeat = [at for at, body in calls if body == calls[9][1]]
        assert repeat - refused >= 1.0, "not before the time it was told"
        again = await build_preferences(settings, tmp_path / "jumping")
        assert len(calls) == asked + 1, "nothing is asked twice"
    assert jumping["dataset"]["digest"] == steady["dataset"]["digest"] == again["dataset"]["digest"]
