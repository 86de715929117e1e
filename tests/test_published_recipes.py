"""The published recipes say what was published: sizes and steps in their plans, numbers in their settings."""

from pathlib import Path
from typing import Any

import pytest

from flows.answers import stages_of
from flows.plan import plan, plan_text
from flows.recipe import Recipe
from flows.recipe_file import load_recipe
from flows.run import Run
from flows.shareable import licences
from trainers.settings import DPOSettings, SFTSettings

ROOT = Path(__file__).parent.parent
UNREAD = "(as the recipe says; it is not read yet)"


def recipe(name: str, *changes: str) -> Recipe:
    return load_recipe(ROOT / "recipes" / f"{name}.yaml", changes)


TRAINING = [
    # recipe, stage, rows, sequences, steps, batch: the datasets' cards, the handbook, the paper, stanford_alpaca
    ("zephyr-7b-handbook", "sft", 207_865, 139_420, 1_090, 128),
    ("zephyr-7b-handbook", "dpo", 61_135, 61_135, 478, 128),
    ("zephyr-7b-beta", "sft", 207_865, 139_420, 273, 512),
    ("zephyr-7b-beta", "dpo", 61_966, 61_966, 5_811, 32),
    ("zephyr-7b-qlora", "sft", 207_865, 139_420, 17_428, 8),
    ("zephyr-7b-qlora", "dpo", 61_135, 61_135, 3_821, 16),
    ("zephyr-smol", "sft", 207_865, 139_420, 1_090, 128),
    ("zephyr-smol", "dpo", 61_135, 61_135, 1_434, 128),
    ("alpaca-7b", "sft", 52_002, 52_002, 1_221, 128),
]


@pytest.mark.parametrize(("name", "stage", "rows", "sequences", "steps", "batch"), TRAINING)
def test_a_plan_has_the_published_sizes_and_steps(
    name: str, stage: str, rows: int, sequences: int, steps: int, batch: int, tmp_path: Path
):
    found = Run.at(recipe(name), tmp_path)
    size = plan(found).training[stage]
    assert (size["rows"], size["sequences"], size["steps"], size["batch"]) == (rows, sequences, steps, batch)
    (line,) = [line for line in plan_text(found).splitlines() if line.startswith(f"train {stage}:")]
    assert f"{steps:,} steps of {batch}" in line and f"{rows:,} rows" in line and line.endswith(UNREAD)


def test_ultrafeedbacks_plan_has_its_prompts_and_completions(tmp_path: Path):
    found = Run.at(recipe("ultrafeedback"), tmp_path)
    counted = plan(found)
    generated = [line for line in counted.lines if line.stage.startswith("generate")]
    assert counted.prompts == 63_967
    assert len(generated) == 17
    assert sum(line.requests for line in generated) == 255_868
    for (
        line
    ) in generated:  # 4 of 17 each: the share of every model is the same, within five standard deviations
        assert abs(line.requests - 255_868 / 17) < 5 * (63_967 * 4 / 17 * 13 / 17) ** 0.5
    (judged,) = [line for line in counted.lines if line.stage.startswith("judge")]
    assert judged.requests == 4 * 63_967
    text = plan_text(found, counted)
    assert text.startswith("63,967 prompts, ")
    assert "openbmb/UltraFeedback is not read yet: counted as 63,967 prompts of about 185 tokens" in text


def test_what_nobody_knows_is_not_counted_and_the_plan_says_so(tmp_path: Path):
    found = Run.at(
        recipe("zephyr-7b-handbook", "training.pairs.rows={}", "training.dialogues.tokens=null"), tmp_path
    )
    text = plan_text(found)
    assert (
        "train dpo: steps of 128, not counted: HuggingFaceH4/ultrafeedback_binarized is not read yet" in text
    )
    assert "steps are not counted: dialogues are packed" in text
    assert plan(found).training["dpo"]["steps"] is None and plan(found).training["sft"]["steps"] is None


def test_a_plan_counts_what_lies_here_and_not_what_the_recipe_says(tmp_path: Path):
    from tests.pairs.published_rows import binarized, write_splits

    name = write_splits(tmp_path / "set", {"train_prefs": [binarized(i) for i in range(300)]})
    changes = [f"training.pairs.dataset={name}", "training.pairs.revision=null"]
    size = plan(Run.at(recipe("zephyr-7b-handbook", *changes), tmp_path)).training["dpo"]
    assert (size["rows"], size["steps"], size["note"]) == (300, 3, "")


HANDBOOK: dict[str, dict[str, Any]] = {
    # alignment-handbook at c8f5bdf, recipes/zephyr-7b-beta: the four config files, in our names and units
    "handbook sft": {
        "learning_rate": 2e-5, "scheduler": "cosine", "warmup": 0.1, "epochs": 1, "batch": 128, "micro_batch": 16,
        "max_length": 2048, "packing": "wrapped", "loss": "all", "lora": None, "gradient_checkpointing": True,
        "save_every": 100, "logging_every": 5, "optimizer": "adamw",
    },
    "handbook dpo": {
        "learning_rate": 5e-7, "scheduler": "cosine", "warmup": 0.1, "epochs": 1, "batch": 128, "micro_batch": 8,
        "max_length": 1024, "max_prompt": 512, "beta": 0.01, "lora": None, "optimizer": "adamw", "loss": "sigmoid",
        "save_every": 100, "logging_every": 10,
    },
    "qlora sft": {
        "learning_rate": 2e-4, "scheduler": "cosine", "warmup": 0.1, "epochs": 1, "batch": 8, "max_length": 2048,
        "packing": "wrapped", "loss": "all", "save_every": 100, "logging_every": 5,
    },
    "qlora dpo": {
        "learning_rate": 5e-6, "scheduler": "cosine", "warmup": 0.1, "epochs": 1, "batch": 16, "max_length": 1024,
        "max_prompt": 512, "beta": 0.01, "optimizer": "paged_adamw", "save_every": 100, "logging_every": 10,
    },
    "beta dpo": {
        "learning_rate": 5e-7, "scheduler": "linear", "warmup": 0.1, "epochs": 3, "batch": 32, "micro_batch": 2,
        "beta": 0.1, "loss": "sigmoid", "optimizer": "adamw",
    },
    "beta sft": {"learning_rate": 2e-5, "scheduler": "cosine", "batch": 512, "epochs": 1, "weight_decay": 0.0},
}  # fmt: skip


@pytest.mark.parametrize("which", HANDBOOK)
def test_settings_are_the_published_ones_and_come_back_from_a_file(which: str, tmp_path: Path):
    name, stage = which.split()
    own = recipe(f"zephyr-7b-{name}")
    settings = getattr(own.training, stage)
    assert {field: getattr(settings, field) for field in HANDBOOK[which]} == HANDBOOK[which]
    assert own.seed == 42
    kind = SFTSettings if stage == "sft" else DPOSettings
    assert kind.model_validate(settings.model_dump(mode="json")) == settings
    if stage == "sft":  # DPO's trainer is handed a whole step
        assert settings.accumulation(1) * settings.micro_batch == settings.batch


def test_qloras_adapters_are_the_published_ones_but_for_dropout_in_dpo():
    training = recipe("zephyr-7b-qlora").training
    assert training and training.sft and training.sft.lora and training.dpo and training.dpo.lora
    sft, dpo = training.sft.lora, training.dpo.lora
    assert (sft.r, sft.alpha, sft.dropout, sft.target) == (16, 16, 0.05, "all-linear")
    assert (dpo.r, dpo.alpha, dpo.dropout) == (128, 128, 0.0)


@pytest.mark.parametrize("name", ["zephyr-7b-handbook", "zephyr-7b-qlora", "zephyr-7b-beta"])
def test_both_datasets_are_the_published_ones_at_a_revision_that_has_their_sizes(name: str):
    training = recipe(name).training
    assert training and training.dialogues and training.pairs
    assert (training.base, training.dialogues.dataset) == (
        "mistralai/Mistral-7B-v0.1",
        "HuggingFaceH4/ultrachat_200k",
    )
    assert (training.dialogues.train, training.dialogues.test) == ("train_sft", "test_sft")
    old = name == "zephyr-7b-beta"
    assert training.pairs.dataset == "HuggingFaceH4/ultrafeedback_binarized"
    assert training.pairs.rows == {"train": 61_966 if old else 61_135, "test": 2_000}
    assert str(training.pairs.revision)[:7] == ("292c163" if old else "3949bf5")
    assert training.dialogues.empty_system and training.pairs.empty_system


@pytest.mark.parametrize("file", sorted((ROOT / "recipes").glob("*.yaml")), ids=lambda file: file.stem)
def test_a_recipe_states_the_licence_of_all_that_goes_into_its_models_and_datasets(file: Path):
    own = load_recipe(file)
    unstated = [what for what, stated in licences(own).items() if not stated]
    if plan := own.training:
        unstated += [data.label for data in (plan.dialogues, plan.pairs) if data and not data.license]
        unstated += [plan.base] * (plan.base not in own.models and not plan.license)
    assert not unstated


def test_ultrafeedback_asks_as_published():
    own = recipe("ultrafeedback")
    asked = {(s.temperature, s.top_p, s.max_tokens, s.n, s.principle) for s in own.samplers}
    assert asked == {(1.0, 1.0, 1024, 1, "ultrafeedback/readme")}
    assert (len(own.samplers), own.samplers_per_prompt) == (17, 4)


def test_four_models_of_seventeen_are_drawn_by_prompt_and_none_twice(tmp_path: Path):
    own = recipe("ultrafeedback")
    drawn = own.draw_samplers()
    ids = [f"prompt {i}" for i in range(400)]
    assert {len(drawn(id)) for id in ids} == {4}
    again = recipe("ultrafeedback").draw_samplers()
    assert [drawn(id) for id in ids] == [again(id) for id in reversed(ids)][::-1]
    other = recipe("ultrafeedback", "seed=1").draw_samplers()
    assert [drawn(id) for id in ids] != [other(id) for id in ids]
    fewer = own.model_copy(update={"samplers": own.samplers[:-1]}).draw_samplers()
    gone = own.samplers[-1].name
    for id in ids:  # a model less changes only the prompts that it was in, and there one place
        assert len(fewer(id) - drawn(id)) == (gone in drawn(id))
    stages = stages_of(Run.at(own, tmp_path), own.samplers, [])
    assert sum(stage.wanted(id) for stage in stages for id in ids) == 4 * len(ids)
