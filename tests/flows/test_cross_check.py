"""Winners before a judge that did not pick them, on a simulated model whose answers carry their quality."""

from pathlib import Path
from typing import Any

import pytest

from benchmarks.best_of_n import planted_recipe
from benchmarks.simulator import simulator
from flows.cross_check import with_judge
from flows.preferences import reject_sampling
from flows.recipe import Recipe, RecipeError
from flows.subject import Subject

NOISY, TRUTH = "first-noise20", "exact"


def rating(model: str) -> dict[str, Any]:
    return {"kind": "rating", "model": model}


def other(recipe: dict[str, Any], judge: dict[str, Any], **models: Any) -> Subject:
    return Subject.model_validate({"name": "other", "models": recipe["models"] | models, "judge": judge})


async def test_the_best_of_four_is_better_in_truth_and_a_random_choice_is_not(tmp_path: Path):
    with simulator(speed=1000) as model:
        recipe = planted_recipe(model.url, 60, tmp_path, 4)
        picking = Recipe.model_validate(recipe | {"judge": rating(NOISY)})
        result = await reject_sampling(picking, tmp_path, check_with=other(recipe, rating(TRUTH)))
        again = await reject_sampling(picking, tmp_path, check_with=other(recipe, rating(TRUTH)))
    check = result["best_of_n_check"]
    assert check["prompts"] == 60 and check["candidates"] == 4
    assert check["gain"]["low"] > 0.05, "the worst that is likely is still a gain"
    assert check["random_gain"]["low"] < 0 < check["random_gain"]["high"]
    assert check["gain"]["value"] == pytest.approx(check["winner"]["value"] - check["mean"]["value"])
    assert check["winner"]["value"] < check["best"]["value"], "a noisy judge misses some"
    assert (
        result["best_of_n"]["curve"][3]["value"] - result["best_of_n"]["curve"][0]["value"]
        > (check["gain"]["value"])
    ), "by its own account it gains more"
    assert again["best_of_n_check"] == check and set(again["asked_this_run"].values()) == {0}


def test_a_judge_that_picked_cannot_check(tmp_path: Path):
    recipe = planted_recipe("http://127.0.0.1:1/v1", 1, tmp_path, 4)
    jury = {"kind": "jury", "members": [{"kind": "rules"}, rating(NOISY)]}
    picking = Recipe.model_validate(recipe | {"judge": jury})
    with pytest.raises(RecipeError, match="the checking judge rating is one of those that picked"):
        with_judge(picking, other(recipe, rating(NOISY)))
    with pytest.raises(RecipeError, match="the checking judge mine is one of those that picked"):
        with_judge(picking, other(recipe, rating(NOISY) | {"name": "mine"}))
    assert with_judge(picking, other(recipe, rating(TRUTH))).jury.members[0].asks == TRUTH
    with pytest.raises(RecipeError, match="the checking judge rules is one of those that picked"):
        with_judge(picking, other(recipe, {"kind": "rules", "only": ["max_words"]}))
    by_length = Recipe.model_validate(recipe | {"judge": {"kind": "rules", "only": ["max_words"]}})
    assert with_judge(by_length, other(recipe, {"kind": "rules", "only": ["min_words"]})).name == "planted"


def test_one_name_for_two_models_is_refused(tmp_path: Path):
    recipe = planted_recipe("http://127.0.0.1:1/v1", 1, tmp_path, 4)
    picking = Recipe.model_validate(recipe | {"judge": rating(NOISY)})
    changed = recipe["models"]["exact"] | {"model": "another"}
    with pytest.raises(RecipeError, match=r"models\.exact of other is not exact of planted; rename one"):
        with_judge(picking, other(recipe, rating(TRUTH), exact=changed))
