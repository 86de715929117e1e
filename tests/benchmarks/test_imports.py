"""The benchmark of imports at a size that takes seconds: what is planted is found."""

import pytest

from benchmarks.imports import measure


@pytest.mark.long
def test_every_planted_defect_is_counted_and_every_prompt_is_imported_once():
    found = measure(600)
    assert found["found"] == found["planted"] and all(found["planted"].values())
    assert found["prompts"] == found["pairs"] == 600 - found["planted"]["duplicate"]
    assert all(step["seconds"] > 0 for step in found["steps"].values())
