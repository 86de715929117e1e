"""One run in child runs: together they make what one makes, and only what is missing is ever sent out."""

from pathlib import Path
from typing import Any

import pytest

import flows.ranges
from flows.children import ChildFailed
from flows.failures import StageFailed
from flows.preferences import build_preferences
from flows.ranges import Elsewhere, answer_shards
from flows.recipe import Recipe, RecipeError
from tests.fake_model import fake_model
from tests.flows.fakes import answer, recipe


@pytest.fixture
def sent(monkeypatch: pytest.MonkeyPatch) -> list[tuple[int, int]]:
    """Ranges that were sent out; a child runs here, from its parameters as they travel."""
    ranges: list[tuple[int, int]] = []

    async def run_child(deployment: str, parameters: dict[str, Any], *_: Any) -> None:
        ranges.append((parameters["first"], parameters["last"]))
        if deployment == "lost" and parameters["first"] == 2:
            raise ChildFailed("lost: Crashed")
        await answer_shards(**answer_shards.validate_parameters(parameters))

    monkeypatch.setattr(flows.ranges, "run_child", run_child)
    return ranges


async def test_ranges_make_the_dataset_that_one_process_makes_and_nothing_twice(
    tmp_path: Path, prompt_file: Path, sent: list[tuple[int, int]]
):
    with fake_model(answer) as fake:
        settings = recipe(fake.url, prompt_file, shard_size=2)
        alone = await build_preferences(settings, tmp_path / "one")
        asked = len(fake.asked)
        spread = Elsewhere(shards=4, at_once=2)
        there = await build_preferences(settings, tmp_path / "many", elsewhere=spread)
        assert sorted(sent) == [(0, 3), (4, 5)]
        assert there["dataset"]["digest"] == alone["dataset"]["digest"]
        assert there["stages"] == alone["stages"]
        assert len(fake.asked) == 2 * asked
        sent.clear()
        await build_preferences(settings, tmp_path / "many", elsewhere=spread)
        assert not sent and len(fake.asked) == 2 * asked


async def test_a_lost_range_leaves_the_others_and_is_the_only_one_sent_again(
    tmp_path: Path, prompt_file: Path, sent: list[tuple[int, int]]
):
    with fake_model(answer) as fake:
        settings = recipe(fake.url, prompt_file, shard_size=2)
        with pytest.raises(StageFailed, match="1 of 3 ranges did not complete:\nlost: Crashed"):
            await build_preferences(settings, tmp_path, elsewhere=Elsewhere(answers="lost", shards=2))
        assert sorted(sent) == [(0, 1), (2, 3), (4, 5)]
        asked = len(fake.asked)
        sent.clear()
        await build_preferences(settings, tmp_path, elsewhere=Elsewhere(shards=2))
        assert sent == [(2, 3)]
        assert len(fake.asked) == asked * 3 // 2


async def test_a_shard_that_was_answered_anew_and_not_judged_is_sent_again(
    tmp_path: Path, prompt_file: Path, sent: list[tuple[int, int]]
):
    with fake_model(answer) as fake:
        settings = recipe(fake.url, prompt_file, shard_size=2)
        spread = Elsewhere(shards=2)
        await build_preferences(settings, tmp_path, elsewhere=spread)
        receipt = next((tmp_path / "flowtest" / "judgements").glob("*/00003.json"))
        receipt.write_text(
            receipt.read_text().replace('"of":"', '"of":"other').replace('"of": "', '"of": "other')
        )
        sent.clear()
        await build_preferences(settings, tmp_path, elsewhere=spread)
        assert sent == [(2, 3)]


async def test_a_machine_that_does_not_see_the_store_says_so(tmp_path: Path, prompt_file: Path):
    with pytest.raises(Exception, match="has no sealed prompts"):
        await answer_shards(recipe("http://127.0.0.1:9/v1", prompt_file), 0, 1, tmp_path)


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"budget": {"calls": 5}}, "budget"),
        ({"best_of_n": {"max_n": 4}}, "best_of_n"),
    ],
)
async def test_what_only_one_process_can_decide_is_refused(
    changes: dict[str, Any], said: str, tmp_path: Path, prompt_file: Path
):
    settings: Recipe = recipe("http://127.0.0.1:9/v1", prompt_file, **changes)
    with pytest.raises(RecipeError, match=said):
        await build_preferences(settings, tmp_path, elsewhere=Elsewhere())
