"""Adapters in the order they were trained: what is merged is what training gave, and a wrong chain is refused."""

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from safetensors.torch import load_file

from trainers.guards import BadInput
from trainers.merge import main, merge
from trainers.run import main as train

LORA = {"r": 4, "alpha": 8}


@pytest.fixture
def chain(job: Callable[..., Any], tmp_path: Path) -> tuple[Path, Path]:
    """An SFT model with an adapter on the tiny base, and a DPO model with one on that."""
    sft, dpo = tmp_path / "sft", tmp_path / "dpo"
    settings = {"lora": LORA, "max_steps": 2, "learning_rate": 3e-2, "warmup": 0.0}
    name = {"name": "x-sft"}
    for asked in (
        job("sft", settings=settings, out=str(sft), eval=None),
        job("dpo", settings=settings, out=str(dpo), eval=None, base=str(sft), base_receipt=name),
    ):
        (tmp_path / "job.json").write_text(json.dumps(asked))
        assert train([str(tmp_path / "job.json")]) == 0
    return sft, dpo


def apart(one: Path, other: Path) -> float:
    weights = [load_file(folder / "model.safetensors") for folder in (one, other)]
    return max(float((weights[0][name] - weights[1][name]).abs().max()) for name in weights[0])


def test_base_then_sft_then_dpo_is_the_trained_model(
    chain: tuple[Path, Path], tiny: Path, tmp_path: Path, capsys: Any
):
    sft, dpo = chain
    parts = [str(tiny), str(sft / "adapter"), str(dpo / "adapter")]
    assert main([*parts, str(tmp_path / "merged")]) == 0
    assert apart(tmp_path / "merged", dpo) < 1e-6
    said = json.loads(capsys.readouterr().out.splitlines()[-1])
    assert [step["adapter"] for step in said["adapters"]] == ["adapter", "adapter"]
    assert said == json.loads((tmp_path / "merged" / "merged.json").read_text())
    assert main([str(sft), str(dpo / "adapter"), str(tmp_path / "also")]) == 0
    assert apart(tmp_path / "also", dpo) < 1e-6


def test_without_the_sft_adapter_it_is_refused_as_the_published_one_should_have_been(
    chain: tuple[Path, Path], tiny: Path, tmp_path: Path, capsys: Any
):
    """An adapter that says nothing of its base, as published ones do, cannot be refused, and is another model."""
    sft, dpo = chain
    assert main([str(tiny), str(dpo / "adapter"), str(tmp_path / "wrong")]) == 2
    assert "was trained on x-sft, weights" in capsys.readouterr().err
    assert not (tmp_path / "wrong").exists()
    with pytest.raises(BadInput, match="in the order they were trained"):
        merge(tiny, [dpo / "adapter", sft / "adapter"], tmp_path / "wrong")
    mute = tmp_path / "mute"
    shutil.copytree(dpo / "adapter", mute)
    (mute / "base.json").unlink()
    merge(tiny, [mute], tmp_path / "naive")
    assert apart(tmp_path / "naive", dpo) > 1e-3


def test_what_is_no_adapter_or_does_nothing_is_refused(tiny: Path, tmp_path: Path, capsys: Any):
    from peft import LoraConfig, get_peft_model
    from transformers import AutoModelForCausalLM

    idle = tmp_path / "idle"
    untrained: Any = AutoModelForCausalLM.from_pretrained(tiny)
    get_peft_model(untrained, LoraConfig(r=2, target_modules=["q_proj"])).save_pretrained(str(idle))
    with pytest.raises(BadInput, match="is no adapter"):
        merge(tiny, [tiny], tmp_path / "out")
    (tmp_path / "there").mkdir()
    with pytest.raises(BadInput, match="is there already"):
        merge(tiny, [idle], tmp_path / "there")
    with pytest.raises(BadInput, match="changes no weight"):
        merge(tiny, [idle], tmp_path / "out")
    assert main([str(tiny)]) == 2 and "usage" in capsys.readouterr().err
