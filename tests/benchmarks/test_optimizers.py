"""The comparison of optimizers in small: what must learn learns, what must not does not."""

import pytest

from benchmarks.optimizers import PLAIN, WAYS, measure, summary


@pytest.mark.long
def test_every_way_but_the_plain_one_learns_as_float32_does():
    found = summary(measure(seeds=1, steps=25, read=150))
    for way in WAYS.keys() - {PLAIN}:
        assert found[way]["of_float32"] == pytest.approx(1, abs=0.15), way
    assert found[PLAIN]["of_float32"] < 0.5 and found[PLAIN]["moved"] < 0.1
