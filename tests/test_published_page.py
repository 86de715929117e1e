"""docs/published-recipes.md: its sizes are those of the plans, its reckoned hours follow from the formula it names."""

import re
from pathlib import Path

import pytest

from flows.plan import plan
from flows.recipe_file import load_recipe
from flows.run import Run
from trainers.cost import PEAKS, REACHED
from trainers.settings import DPOSettings

ROOT = Path(__file__).parent.parent
PAGE = (ROOT / "docs/published-recipes.md").read_text(encoding="utf-8")
SHAPES = {  # config.json: layers, width, width of key and value, inner width, vocabulary
    "mistralai/Mistral-7B-v0.1": (32, 4096, 1024, 14336, 32000),
    "HuggingFaceTB/SmolLM2-1.7B": (24, 2048, 2048, 8192, 49152),
}
PAIR = 185 + 2 * 305
"""Tokens of a prompt and two answers, UltraFeedback's means."""


def rows(heading: str) -> list[list[str]]:
    """Cells of the first table under a heading."""
    body = PAGE.split(f"## {heading}\n")[1].split("\n## ")[0]
    table = re.findall(r"^\| (`.*) \|$", body, re.MULTILINE)
    return [[cell.strip().strip("`") for cell in line.split("|")] for line in table]


@pytest.mark.parametrize("row", rows("Sizes"), ids=lambda row: f"{row[0]} {row[1]}")
def test_the_sizes_of_the_page_are_those_of_the_plan(row: list[str], tmp_path: Path):
    name, stage, *figures, _ = row
    size = plan(Run.at(load_recipe(ROOT / f"recipes/{name}.yaml"), tmp_path)).training[stage]
    wanted = [size[key] for key in ("rows", "sequences", "batch", "steps")]
    assert [int(figure.replace(",", "")) for figure in figures] == wanted


RECKONED = [row for row in rows("Hours") if row[3] != "–"]


@pytest.mark.parametrize("row", RECKONED, ids=lambda row: f"{row[0]} {row[1]}")
def test_the_reckoned_hours_follow_from_the_recipe(row: list[str], tmp_path: Path):
    name, stage, _, *hours = row
    recipe = load_recipe(ROOT / f"recipes/{name}.yaml")
    assert recipe.training is not None
    settings, size = getattr(recipe.training, stage), plan(Run.at(recipe, tmp_path)).training[stage]
    layers, width, narrow, inner, words = SHAPES[recipe.training.base]
    block = 2 * width * width + 2 * width * narrow + 3 * width * inner
    pairs = isinstance(settings, DPOSettings)
    tokens = PAIR if pairs else settings.max_length
    forward = 2 * (layers * block + words * width) * tokens + 2 * layers * width * tokens**2
    passes = settings.epochs * ((2 if settings.lora else 3) + settings.gradient_checkpointing) + pairs
    for card, shown in zip(("A100", "H100"), hours, strict=True):
        found = size["sequences"] * forward * passes / (REACHED * PEAKS[card] * 1e12) / 3600
        assert abs(int(shown) - found) <= 0.5, found


def test_every_recipe_is_on_the_page():
    named = {path.stem for path in (ROOT / "recipes").glob("*.yaml")} - {"quickstart", "rlhf", "smoke"}
    assert {name for name in named if f"`{name}`" in PAGE} == named
