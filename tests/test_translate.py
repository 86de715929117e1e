"""Training YAMLs of the alignment handbook, TRL and Axolotl become recipes, and no key is lost in silence."""

import json
from pathlib import Path
from typing import Any

import pytest
import yaml
from typer.testing import CliRunner

from flows.cli import app
from flows.recipe import Recipe, RecipeError
from flows.recipe_file import load_recipe
from flows.translate import translate

SHARED = {
    "bf16": True,
    "do_eval": True,
    "gradient_checkpointing": True,
    "gradient_checkpointing_kwargs": {"use_reentrant": False},
    "hub_model_id": "me/model",
    "log_level": "info",
    "lr_scheduler_type": "cosine",
    "num_train_epochs": 1,
    "output_dir": "data/model",
    "push_to_hub": True,
    "save_steps": 100,
    "seed": 42,
    "warmup_ratio": 0.1,
}
HANDBOOK_SFT = SHARED | {  # recipes/zephyr-7b-beta/sft/config_full.yaml at c8f5bdf, its values in our order
    "model_name_or_path": "mistralai/Mistral-7B-v0.1",
    "model_revision": "main",
    "torch_dtype": "bfloat16",
    "attn_implementation": "flash_attention_2",
    "chat_template": "{% for m in messages %}{{ m['content'] + eos_token }}{% endfor %}",
    "dataset_mixer": {"HuggingFaceH4/ultrachat_200k": 1.0},
    "dataset_splits": ["train_sft", "test_sft"],
    "gradient_accumulation_steps": 1,
    "learning_rate": 2e-5,
    "logging_steps": 5,
    "max_seq_length": 2048,
    "max_steps": -1,
    "per_device_train_batch_size": 16,
}
HANDBOOK_DPO = SHARED | {  # …/dpo/config_full.yaml
    "model_name_or_path": "alignment-handbook/zephyr-7b-sft-full",
    "torch_dtype": None,
    "dataset_mixer": {"HuggingFaceH4/ultrafeedback_binarized": 1.0},
    "dataset_splits": ["train_prefs", "test_prefs"],
    "beta": 0.01,
    "gradient_accumulation_steps": 2,
    "learning_rate": 5e-7,
    "logging_steps": 10,
    "max_length": 1024,
    "max_prompt_length": 512,
    "optim": "adamw_torch",
    "per_device_train_batch_size": 8,
}
QLORA = {
    "use_peft": True,
    "load_in_4bit": True,
    "lora_r": 128,
    "lora_alpha": 128,
    "lora_dropout": 0.05,
    "lora_target_modules": ["q_proj", "v_proj"],
    "optim": "paged_adamw_32bit",
}
AXOLOTL = {
    "base_model": "meta-llama/Meta-Llama-3-8B-Instruct",
    "load_in_4bit": True,
    "rl": "dpo",
    "rl_beta": 0.2,
    "chat_template": "chatml",
    "datasets": [{"path": "org/pairs", "split": "train", "type": "chatml.intel"}],
    "val_set_size": 0.1,
    "adapter": "qlora",
    "lora_r": 64,
    "lora_alpha": 32,
    "lora_target_linear": True,
    "sequence_len": 4096,
    "micro_batch_size": 2,
    "gradient_accumulation_steps": 4,
    "num_epochs": 2,
    "optimizer": "paged_adamw_32bit",
    "lr_scheduler": "one_cycle",
    "learning_rate": 5e-6,
    "warmup_steps": 100,
    "wandb_project": "mine",
}


def write(folder: Path, name: str, content: dict[str, Any]) -> Path:
    path = folder / f"{name}.yaml"
    path.write_text(yaml.safe_dump(content))
    return path


def test_the_handbooks_two_files_are_our_recipe_of_it(tmp_path: Path):
    files = [write(tmp_path, "sft", HANDBOOK_SFT), write(tmp_path, "dpo", HANDBOOK_DPO)]
    own = Recipe.model_validate(translate(files, gpus=8).fields)
    ours = load_recipe(Path("recipes/zephyr-7b-handbook.yaml"))
    assert own.training and ours.training and own.seed == ours.seed
    assert own.training.base == ours.training.base
    for stage in ("sft", "dpo"):
        theirs, known = (getattr(r.training, stage).model_dump() for r in (own, ours))
        differ = {name for name in known if theirs[name] != known[name]}
        assert differ == ({"template"} if stage == "sft" else set()), stage
    assert own.training.pairs and own.training.pairs.train == "train_prefs"
    assert own.training.dialogues and own.training.dialogues.test == "test_sft"


@pytest.mark.parametrize("content", [HANDBOOK_SFT, HANDBOOK_DPO, HANDBOOK_DPO | QLORA, AXOLOTL])
def test_every_key_is_in_the_recipe_renamed_or_dropped_with_a_reason(content: dict[str, Any], tmp_path: Path):
    found = translate([write(tmp_path, "one", content | {"my_own_key": 1})])
    (stage,) = set(found.fields["training"]) & {"sft", "dpo"}
    told = {*found.renamed, *found.dropped, *found.fields["training"][stage], *found.fields}
    silent = {key for key, value in content.items() if value is not None} - told
    assert silent <= {"max_steps", "model_revision"}  # -1 and main: as if they were not there
    assert found.dropped["my_own_key"] == "not known here"
    assert all(f"# {key}: dropped, " in found.text() for key in found.dropped)
    assert all(f"# {key} -> {place}\n" in found.text() for key, place in found.renamed.items())


def test_what_is_printed_is_a_recipe(tmp_path: Path):
    path = write(tmp_path, "mine", HANDBOOK_DPO)
    result = CliRunner().invoke(app, ["translate", str(path), "--gpus", "8"])
    assert result.exit_code == 0
    (tmp_path / "recipe.yaml").write_text(result.stdout)
    recipe = load_recipe(tmp_path / "recipe.yaml")
    assert recipe.training and recipe.training.dpo and recipe.training.dpo.batch == 128
    told = json.loads(CliRunner().invoke(app, ["translate", str(path), "--json"]).stdout.splitlines()[-1])
    assert told["ok"] and told["recipe"]["training"]["dpo"]["batch"] == 16


def test_qlora_comes_with_its_adapter_and_without_what_would_do_nothing(tmp_path: Path):
    found = translate([write(tmp_path, "one", HANDBOOK_DPO | QLORA)])
    dpo = found.fields["training"]["dpo"]
    assert dpo["lora"] == {"r": 128, "alpha": 128, "target": ["q_proj", "v_proj"], "quantize": "nf4"}
    assert (dpo["dtype"], dpo["optimizer"]) == ("bfloat16", "paged_adamw")
    assert "noise" in found.dropped["lora_dropout"]
    assert found.renamed["load_in_4bit"] == "training.dpo.lora.quantize"
    whole = translate([write(tmp_path, "two", HANDBOOK_DPO | {"load_in_4bit": False})])
    assert "only the base under an adapter" in whole.dropped["load_in_4bit"]
    with pytest.raises(RecipeError, match="quantize"):
        translate([write(tmp_path, "three", HANDBOOK_DPO | QLORA | {"bnb_4bit_quant_type": "fp4"})])


def test_axolotls_names_and_what_has_no_equal(tmp_path: Path):
    found = translate([write(tmp_path, "one", AXOLOTL)])
    dpo = found.fields["training"]["dpo"]
    assert (dpo["beta"], dpo["batch"], dpo["micro_batch"], dpo["epochs"], dpo["max_length"]) == (
        0.2,
        8,
        2,
        2,
        4096,
    )
    assert dpo["lora"] == {"r": 64, "alpha": 32, "target": "all-linear", "quantize": "nf4"}
    assert "'one_cycle' is none of constant, cosine, linear" in found.dropped["lr_scheduler"]
    assert "share of all steps" in found.dropped["warmup_steps"]
    assert "'chatml' is a name of its own" in found.dropped["chat_template"]
    assert "not drawn from training rows" in found.dropped["val_set_size"]


def test_what_a_file_leaves_out_is_trls_default_and_not_ours(tmp_path: Path):
    bare = {"model_name_or_path": "m", "dataset_name": "org/pairs", "loss_type": ["sigmoid"]}
    found = translate([write(tmp_path, "bare", bare)])
    dpo = found.fields["training"]["dpo"]
    assert (dpo["epochs"], dpo["scheduler"], dpo["warmup"], dpo["learning_rate"]) == (3, "linear", 0.0, 1e-6)
    assert any("not in the file, so TRL's" in note for note in found.notes)


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"model_name_or_path": None}, "names no model"),
        ({"dataset_mixer": None}, "names no data"),
        ({"dataset_mixer": {"a/b": 0.5}}, "mixes a/b x 0.5; here a stage learns"),
        ({"dataset_mixer": {"a/b": 1.0, "c/d": 1.0}}, "mixes a/b x 1.0, c/d x 1.0"),
        ({"rl": "kto"}, "rl='kto'; wanted dpo, ipo"),
        ({"loss_type": "kto_pair"}, "'kto_pair'"),
        ({"learning_rate": -1}, "training.dpo.learning_rate"),
    ],
)
def test_what_cannot_become_a_recipe_says_why(change: dict[str, Any], said: str, tmp_path: Path):
    with pytest.raises(RecipeError) as error:
        translate([write(tmp_path, "one", HANDBOOK_DPO | change)])
    assert said in str(error.value)


def test_two_files_of_one_stage_are_refused(tmp_path: Path):
    files = [write(tmp_path, name, HANDBOOK_DPO) for name in ("one", "two")]
    with pytest.raises(RecipeError, match="a second file of dpo"):
        translate(files)
