"""`samplers_per_prompt`: each prompt is answered by those it draws, judged and paired among them, and by no other."""

from pathlib import Path

from flows.answers import stored
from flows.preferences import build_preferences
from flows.recipe import Recipe
from flows.run import Run
from tests.fake_model import fake_model
from tests.flows.conftest import write_prompts
from tests.flows.fakes import answer, recipe

FIVE = [{"name": f"s{i}", "model": "fake", "seed": i, "max_tokens": 32} for i in range(5)]
RATING = {"kind": "rating", "model": "fake"}


def answered(own: Recipe, folder: Path) -> dict[str, set[str]]:
    """Prompt -> samplers whose answers count."""
    found: dict[str, set[str]] = {}
    for one in stored(Run.at(own, folder)):
        for index in one.receipts:
            for completions in one.completions(index):
                for completion in completions:
                    found.setdefault(completion.prompt_id, set()).add(completion.model)
    return found


async def test_only_the_drawn_are_asked_and_a_rerun_asks_nobody(tmp_path: Path):
    prompts = write_prompts(tmp_path / "prompts.jsonl", 12)
    with fake_model(answer) as fake:
        own = recipe(fake.url, prompts, samplers=FIVE, samplers_per_prompt=3, judge=RATING)
        first = await build_preferences(own, tmp_path)
        again = await build_preferences(own, tmp_path)
    assert first["stages"]["generate"]["answers"] == first["stages"]["judge"]["answers"] == 3 * 12
    assert set(again["asked_this_run"].values()) == {0}
    assert again["dataset"]["digest"] == first["dataset"]["digest"]
    drawn, found = own.draw_samplers(), answered(own, tmp_path)
    assert found == {id: set(drawn(id)) for id in found} and len(found) == 12
    assert {name for names in found.values() for name in names} == {sampler["name"] for sampler in FIVE}


async def test_drawing_more_asks_only_for_those_that_come_in_and_all_is_more_still(tmp_path: Path):
    prompts = write_prompts(tmp_path / "prompts.jsonl", 10)
    with fake_model(answer) as fake:
        asked = []
        for count in (2, 3, None, 2):
            own = recipe(fake.url, prompts, samplers=FIVE, samplers_per_prompt=count, judge=RATING)
            before = len(fake.asked)
            await build_preferences(own, tmp_path)
            asked.append((len(fake.asked) - before, sum(map(len, answered(own, tmp_path).values()))))
    # an answer and its rating each; what was drawn before stays drawn, and fewer of them count again
    assert asked == [(40, 20), (20, 30), (40, 50), (0, 20)]
