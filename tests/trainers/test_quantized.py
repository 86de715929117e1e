"""QLoRA: what bitsandbytes is told is what was published, and a 4-bit base trains and merges as a whole one does."""

import importlib.util
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from pydantic import ValidationError
from safetensors.torch import load_file

from flows.recipe_file import load_recipe
from trainers.guards import BadInput, check_settings
from trainers.quantized import NF4, held
from trainers.reference import References
from trainers.run import main
from trainers.settings import DPOSettings, LoRA, RewardSettings

HERE = importlib.util.find_spec("bitsandbytes") is not None


def test_the_recipes_base_is_held_as_the_handbooks():
    """alignment-handbook at c8f5bdf: load_in_4bit in both config_qlora.yaml, the rest in src/alignment."""
    training = load_recipe(Path("recipes/zephyr-7b-qlora.yaml")).training
    assert training and training.sft and training.dpo
    for settings in (training.sft, training.dpo):
        assert settings.lora and settings.lora.quantize == "nf4" == held(settings)
        assert settings.dtype == "bfloat16"
    assert NF4 == {
        "load_in_4bit": True, "bnb_4bit_quant_type": "nf4", "bnb_4bit_use_double_quant": False,
        "bnb_4bit_quant_storage": "uint8",
    }  # fmt: skip


def test_without_bitsandbytes_nothing_starts(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr("trainers.guards.find_spec", lambda name: None)
    with pytest.raises(BadInput, match="needs bitsandbytes: `pip install bitsandbytes`"):
        check_settings(DPOSettings(lora=LoRA(quantize="nf4")))
    check_settings(DPOSettings(lora=LoRA()))


def test_a_reward_model_in_four_bits_is_refused():
    with pytest.raises(ValidationError, match="is for SFT and DPO"):
        RewardSettings(lora=LoRA(quantize="nf4"))


def test_what_a_base_in_four_bits_gives_is_no_reference_for_a_whole_one(tmp_path: Path):
    names = {References(tmp_path, "base", kind, "bfloat16").name for kind in ("nf4", "bfloat16", "float32")}
    assert len(names) == 3


@pytest.mark.skipif(not HERE, reason="bitsandbytes is not installed")
@pytest.mark.parametrize("kind", ["sft", "dpo"])
def test_an_adapter_on_four_bits_learns_and_is_merged_into_whole_weights(
    kind: str, job: Callable[..., Any], tiny: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    # on some CPUs it lays weights out for inference alone, in rows of 64
    monkeypatch.setattr("bitsandbytes.nn.modules.has_avx512bf16", lambda: False)
    asked = job(kind, settings={"lora": {"r": 4, "alpha": 8, "quantize": "nf4"}})
    (tmp_path / "job.json").write_text(json.dumps(asked))
    assert main([str(tmp_path / "job.json")]) == 0
    out = Path(asked["out"])
    metrics = json.loads((out / "metrics.json").read_text())
    assert metrics["eval_after"]["loss"] < metrics["eval_before"]["loss"]
    if kind == "dpo":
        assert metrics["train"][0]["loss"] == pytest.approx(0.693147, abs=1e-4)
    assert "quantization_config" not in json.loads((out / "config.json").read_text())
    after, before = load_file(out / "model.safetensors"), load_file(tiny / "model.safetensors")
    steps = load_file(out / "adapter/adapter_model.safetensors")
    name = "model.layers.0.self_attn.q_proj"
    up, down = (steps[f"base_model.model.{name}.lora_{side}.weight"] for side in "BA")
    moved = after[f"{name}.weight"] - before[f"{name}.weight"]
    assert moved.abs().max() > 0 and (moved - 2 * up @ down).abs().max() < 1e-6
