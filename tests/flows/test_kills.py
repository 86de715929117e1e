"""kill -9 in the middle, the same command again: nothing is lost or asked twice, and the dataset is the same."""

import pytest
from prefect.settings import PREFECT_API_URL

from benchmarks.kills import account, measure
from benchmarks.simulator import Asked
from flows.stage import COMMIT


def test_a_killed_run_goes_on_where_it_was(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setenv("PREFECT_API_URL", str(PREFECT_API_URL.value()))
    found = measure(kills=3, prompts=150, speed=3)
    assert found["kills"] >= 2, "killed in the middle"
    assert found["answers"] == 600, "two samplers' answers and their judgements"
    assert (found["lost"], found["missing"]) == (0, 0)
    assert found["asked_again"] <= found["in_flight_at_most"]
    assert found["same_dataset"]


def test_an_answer_from_before_the_last_commit_that_is_asked_again_counts_as_lost():
    kill = 100.0
    log = [
        Asked("kept", 10.0, 20.0),
        Asked("in flight", 99.0, None),
        Asked("in flight", 101.0, 102.0),
        Asked("just come", 99.0, kill - COMMIT / 2),
        Asked("just come", 101.0, 102.0),
    ]
    assert account(log, [kill]) == {"requests": 5, "questions": 3, "asked_again": 2, "lost": 0}
    log.append(Asked("kept", 103.0, 104.0))
    assert account(log, [kill])["lost"] == 1
