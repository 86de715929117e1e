"""The memory benchmark at a size that takes seconds: it counts right and its numbers are plausible."""

import pytest

from benchmarks.memory import measure


@pytest.mark.long
def test_a_run_that_was_stopped_asks_only_its_last_shard():
    found = measure([400, 800])
    assert [size["lost"] for size in found["sizes"].values()] == [0, 0]
    assert found["resume"]["finished_rows"] == 500, "the last shard of 300 prompts is asked and judged again"
    assert found["resume"]["first_request_cpu_s"] > 0
    for size in found["sizes"].values():
        assert 0 < size["disk_bytes_per_row"] < 10_000
