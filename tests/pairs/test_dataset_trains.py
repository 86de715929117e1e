"""The trainers' views go through TRL as they are."""

from pathlib import Path
from typing import Any

import datasets
import pytest

from pairs.card import Card
from pairs.dataset import write_dataset
from tests.pairs.test_dataset import parts

TEMPLATE = (
    "{% for m in messages %}<{{ m['role'] }}>{{ m['content'] }}<end>{% endfor %}"
    "{% if add_generation_prompt %}<assistant>{% endif %}"
)


def tiny_model(folder: Path) -> Path:
    """A llama of two layers with random weights, and a byte-level tokenizer with a chat template."""
    from tokenizers import Tokenizer, decoders, models, pre_tokenizers
    from transformers import LlamaConfig, LlamaForCausalLM, PreTrainedTokenizerFast

    special = ["<end>", "<pad>", "<user>", "<assistant>", "<system>"]
    alphabet = special + sorted(pre_tokenizers.ByteLevel.alphabet())
    tokenizer = Tokenizer(models.BPE(vocab={token: i for i, token in enumerate(alphabet)}, merges=[]))
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    fast = PreTrainedTokenizerFast(
        tokenizer_object=tokenizer,
        eos_token="<end>",
        pad_token="<pad>",
        additional_special_tokens=special[2:],
    )
    fast.chat_template = TEMPLATE
    config = LlamaConfig(
        vocab_size=len(alphabet), hidden_size=16, intermediate_size=32, num_hidden_layers=2,
        num_attention_heads=2, num_key_value_heads=2,
        max_position_embeddings=512, eos_token_id=0, pad_token_id=1,
    )  # fmt: skip
    LlamaForCausalLM(config).save_pretrained(folder)
    fast.save_pretrained(folder)
    return folder


@pytest.mark.parametrize(("view", "kind"), [("trl", "dpo"), ("trl", "sft"), ("trl_sft", "sft")])
def test_trl_trains_on_the_folder_unchanged(view: str, kind: str, tmp_path: Path):
    from trl.trainer.dpo_config import DPOConfig
    from trl.trainer.dpo_trainer import DPOTrainer
    from trl.trainer.sft_config import SFTConfig
    from trl.trainer.sft_trainer import SFTTrainer

    write_dataset(*parts(), tmp_path / "dataset", Card(name="teas", recipe="teas.yaml"))
    rows = datasets.load_dataset(str(tmp_path / "dataset"), view, cache_dir=str(tmp_path / "cache"))
    model = str(tiny_model(tmp_path / "tiny"))
    config, trainer = (DPOConfig, DPOTrainer) if kind == "dpo" else (SFTConfig, SFTTrainer)
    settings: Any = config(
        output_dir=str(tmp_path / "model"), max_steps=2, per_device_train_batch_size=2, max_length=256,
        bf16=False, use_cpu=True, eval_strategy="steps", eval_steps=2, logging_steps=1, save_strategy="no",
        report_to="none", disable_tqdm=True,
    )  # fmt: skip
    run = trainer(model=model, args=settings, train_dataset=rows["train"], eval_dataset=rows["test"])
    result = run.train()
    assert result.global_step == 2 and 0 < result.training_loss < 10
