"""The quickstart recipe, made small: real weights, the embedded server, real training, the trained model answering."""

import json
from pathlib import Path

import pytest

from flows.recipe_file import load_recipe
from flows.zephyr import zephyr
from serving.weights import Weights

SMALL = [
    "prompts.0.limit=10",
    "prompts.1.limit=4",
    "training.sft.max_steps=1",
    "training.dpo.max_steps=2",
    "training.dpo.loss=sigmoid",  # whose first value is known
    "evaluation.prompts=4",
    "pairs.min_margin=0.01",
]


@pytest.mark.timeout(560)
async def test_the_whole_recipe_runs_on_real_weights_and_again_asks_nothing(
    tmp_path: Path, smol_gguf: Weights
):
    recipe = load_recipe(Path("recipes/quickstart.yaml"), SMALL)
    first = await zephyr(recipe, tmp_path)
    folder = tmp_path / "quickstart"

    assert first["stages"]["generate"]["answers"] == 14 * len(recipe.samplers)
    assert first["stages"]["judge"]["dropped"] == {}
    assert first["models"]["dpo"]["steps"] == 2
    assert first["models"]["dpo"]["loss_first"] == pytest.approx(0.6931, abs=0.01), (
        "policy and reference agree at first"
    )
    for stage in ("sft", "dpo"):
        files = {path.name for path in (folder / "models" / stage).iterdir()}
        assert {
            "model.safetensors",
            "model.gguf",
            "model.json",
            "README.md",
            "tokenizer.json",
            "recipe.yaml",
        } <= files
    assert set(first["evaluation"]["models"]) == {"base", "sft", "dpo"}
    assert all(model["answers"] == 4 for model in first["evaluation"]["models"].values())
    assert set(first["endpoints"]) == {"generate and judge", "evaluate"}
    assert set(first["endpoints"]["evaluate"]) >= {"base", "sft", "dpo"}
    page = (folder / "report.html").read_text()
    assert "quickstart" in page
    assert not list((folder / "servers").glob("*.pid.json")), "a server is left"

    second = await zephyr(recipe, tmp_path)
    assert set(second["asked_this_run"].values()) == {0}
    assert second["dataset"]["digest"] == first["dataset"]["digest"]
    assert second["models"]["dpo"]["weights"] == first["models"]["dpo"]["weights"]
    assert json.loads((folder / "summary.json").read_text())["evaluation"] == first["evaluation"]
