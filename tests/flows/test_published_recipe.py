"""The handbook's recipe made small by --set: its own flows, datasets in its layout, a model of two layers."""

import json
from pathlib import Path

import pyarrow.parquet as pq
import pytest

from flows.job import job_of
from flows.recipe import RecipeError
from flows.recipe_file import load_recipe
from flows.run import Run
from flows.zephyr import zephyr
from prompts.chat import chat_template
from tests.pairs.published_rows import binarized, ultrachat_200k, write_splits
from tests.trainers.conftest import tiny as tiny

RECIPE = Path("recipes/zephyr-7b-handbook.yaml")


def small(folder: Path, base: Path) -> list[str]:
    """What --set must say for the recipe to run in seconds: where its data and base are, and sizes."""
    chats = {"train_sft": map(ultrachat_200k, range(24)), "test_sft": map(ultrachat_200k, range(24, 30))}
    prefs = {"train_prefs": map(binarized, range(40)), "test_prefs": map(binarized, range(40, 48))}
    return [
        f"training.base={base}",
        f"training.dialogues.dataset={write_splits(folder / 'chats', {k: list(v) for k, v in chats.items()})}",
        "training.dialogues.rows={train: 24, test: 6}",
        "training.sft.max_length=128",
        "training.sft.batch=4",
        "training.sft.micro_batch=2",
        f"training.pairs.dataset={write_splits(folder / 'prefs', {k: list(v) for k, v in prefs.items()})}",
        "training.pairs.revision=null",
        "training.pairs.rows={train: 40, test: 8}",
        "training.dpo.max_length=256",
        "training.dpo.max_prompt=128",
        "training.dpo.batch=8",
        "training.dpo.micro_batch=4",
    ]


@pytest.mark.long
@pytest.mark.timeout(300)
async def test_the_handbooks_recipe_runs_small_and_again_trains_nothing(tmp_path: Path, tiny: Path):
    recipe = load_recipe(RECIPE, small(tmp_path, tiny))
    first = await zephyr(recipe, tmp_path / "runs")
    folder = tmp_path / "runs" / recipe.name

    assert "nothing is asked" in first["plan"]
    assert "train dpo: 5 steps of 8, 40 rows" in first["plan"], first["plan"]
    sft, dpo = first["models"]["sft"], first["models"]["dpo"]
    assert sft["rows"]["train"]["changed"].get("cut", 0) == 0, "wrapped packing cuts no dialogue"
    packed = -(-sft["rows"]["train"]["tokens"] // 128)
    assert sft["steps"] == -(-packed // 4), "the scheduler counts steps after packing"
    assert dpo["steps"] == 5
    assert dpo["loss_first"] == pytest.approx(0.693147, abs=1e-4), "policy and reference agree at first"
    assert sft["eval_after"]["loss"] < sft["eval_before"]["loss"]
    assert first["training_data"]["dpo"]["train"]["rows"] == 40

    assert pq.read_schema(folder / "training/pairs/train.parquet").names == ["prompt", "chosen", "rejected"]
    made = json.loads((folder / "models/dpo/model.json").read_text())
    assert made["base"]["name"] == "zephyr-7b-handbook-sft"
    kept = (folder / "models/dpo/chat_template.jinja").read_text()
    assert kept == chat_template("zephyr"), "SFT's template goes with the model that DPO starts from"
    receipts = json.loads((folder / "models/dpo/receipts.json").read_text())
    assert receipts["data"][0]["source"] == "prefs"
    for file in (folder / "models/dpo").rglob("*"):
        assert file.suffix in (".safetensors", ".bin") or str(tmp_path) not in file.read_text(), file
    assert (folder / "report.html").is_file()

    second = await zephyr(recipe, tmp_path / "runs")
    assert second["models"]["dpo"]["weights"] == dpo["weights"]


def test_data_that_are_not_what_the_recipe_says_stop_the_run_before_training(tmp_path: Path, tiny: Path):
    from prompts.load import PromptError

    recipe = load_recipe(RECIPE, [*small(tmp_path, tiny), "training.pairs.rows={train: 61135}"])
    with pytest.raises(PromptError, match=r"train_prefs: 40 rows, and the recipe knows rows\.train=61135"):
        job_of(Run.at(recipe, tmp_path / "runs"), "dpo")


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        (["training.dialogues=null"], "prompts, models, samplers, judge missing or empty"),
        (["training.sft=null"], "dialogues are given and nothing learns from them; add sft"),
        (["training.rounds=2"], "each round learns from its own answers"),
        (["training.dialogues.filters=[lowercase]"], "'truecase' or 'refusals'"),
        (
            ["prompts=[{file: prompts/quickstart/prompts.jsonl}]"],
            "prompts are given and nothing answers them",
        ),
    ],
)
def test_what_nothing_would_learn_from_is_refused(changes: list[str], said: str):
    with pytest.raises(RecipeError) as error:
        load_recipe(RECIPE, changes)
    assert said in str(error.value)
