"""What `zephyr dpo --sweep` trains: one model for each combination, refused before anything starts."""

from pathlib import Path

import pytest

from flows.recipe import RecipeError
from flows.recipe_file import load_recipe
from flows.sweep import settings_of, table_text

QUICKSTART = load_recipe(Path(__file__).parents[2] / "recipes" / "quickstart.yaml")


def test_every_combination_is_a_recipe_of_its_own():
    made = settings_of(QUICKSTART, ["beta=0.01,0.1", "learning_rate=1.0e-5,2.0e-5"])
    assert list(made)[:2] == ["beta-0.01-learning_rate-1e-05", "beta-0.01-learning_rate-2e-05"]
    found = [r.training.dpo for r in made.values() if r.training]
    assert [(dpo.beta, dpo.learning_rate) for dpo in found if dpo] == [
        (0.01, 1e-5),
        (0.01, 2e-5),
        (0.1, 1e-5),
        (0.1, 2e-5),
    ]


@pytest.mark.parametrize(
    "sweep, wanted",
    [
        ("beta", "field=value"),
        ("beta=-1", "training.dpo.beta"),
        ("betta=1", "training.dpo.betta: unknown key"),
    ],
)
def test_what_cannot_be_swept_is_refused_with_its_field(sweep: str, wanted: str):
    with pytest.raises(RecipeError, match=wanted):
        settings_of(QUICKSTART, [sweep])


def test_the_table_has_a_row_for_each_and_a_dash_where_nothing_was_held_out():
    row = {"model": "models/dpo-beta-0.1", "loss": 0.5, "rewards/accuracies": 0.75}
    text = table_text({"beta-0.1": row | {"rewards/margins": 1.0, "logps/chosen": None}})
    assert [line.split() for line in text.splitlines()][1] == [
        *("beta-0.1", "0.500", "0.750", "1.000", "-", "models/dpo-beta-0.1")
    ]
