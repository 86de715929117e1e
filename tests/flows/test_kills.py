"""kill -9 in the middle, the same command again: nothing is lost or asked twice, and the dataset is the same."""

import pytest
from prefect.settings import PREFECT_API_URL

from benchmarks.kills import account, measure
from benchmarks.simulator import Asked


@pytest.mark.long
def test_a_killed_run_goes_on_where_it_was(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setenv("PREFECT_API_URL", str(PREFECT_API_URL.value()))
    found = measure(kills=2, prompts=150, speed=3)
    assert found["kills"] >= 1, "killed in the middle"
    assert found["questions"] == 600, "two samplers' answers and their judgements"
    assert (found["lost"], found["missing"], found["asked_twice_for_nothing"]) == (0, 0, 0)
    assert found["same_dataset"]


def test_what_is_asked_again_after_a_kill_is_told_from_a_copy_of_what_is_late():
    log = [Asked("kept", 10.0, 20.0), Asked("cut off", 99.0, None), Asked("cut off", 101.0, 102.0)]
    log += [Asked("late", 30.0, 40.0), Asked("late", 38.0, 41.0)]
    assert account(log, [100.0]) == {"requests": 5, "questions": 3, "asked_again": 1, "copies": 1}
