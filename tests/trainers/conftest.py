"""A random Llama of two layers with a tokenizer trained here, rows for it, and a job that trains it."""

import json
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

os.environ.update({"HF_HUB_DISABLE_TELEMETRY": "1", "HF_HUB_OFFLINE": "1", "TQDM_DISABLE": "1", "CI": "1"})

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

CHATML = (
    "{% for m in messages %}{{ '<|im_start|>' + m['role'] + '\n' + m['content'] + eos_token + '\n' }}{% "
    "endfor %}"
    "{% if add_generation_prompt %}{{ '<|im_start|>assistant\n' }}{% endif %}"
)
ZEPHYR = (
    "{% for message in messages %}\n{% if message['role'] == 'user' %}\n"
    "{{ '<|user|>\n' + message['content'] + eos_token }}\n{% elif message['role'] == 'system' %}\n"
    "{{ '<|system|>\n' + message['content'] + eos_token }}\n{% elif message['role'] == 'assistant' %}\n"
    "{{ '<|assistant|>\n'  + message['content'] + eos_token }}\n{% endif %}\n"
    "{% if loop.last and add_generation_prompt %}\n{{ '<|assistant|>' }}\n{% endif %}\n{% endfor %}"
)
ALPACA = (
    "Below is an instruction that describes a task. Write a response that appropriately completes the "
    "request.\n\n"
    "{% for m in messages %}{% if m['role'] == 'user' %}{{ '### Instruction:\n' + m['content'] + '\n\n' }}"
    "{% elif m['role'] == 'assistant' %}{{ '### Response:' + m['content'] + eos_token }}{% endif %}{% "
    "endfor %}"
    "{% if add_generation_prompt %}{{ '### Response:' }}{% endif %}"
)
TOPICS = ("tea", "rain", "bread", "the moon", "chess", "honey", "trains", "rivers")


def said(role: str, text: str) -> dict[str, str]:
    return {"role": role, "content": text}


def pair(i: int) -> dict[str, Any]:
    topic = TOPICS[i % len(TOPICS)]
    return {
        "prompt": [said("user", f"Tell me about {topic}, number {i}.")],
        "chosen": [said("assistant", f"{topic} is good{' and warm' * (i % 3)}.")],
        "rejected": [said("assistant", f"I do not know {topic}{', no' * (i % 4)}.")],
    }


def dialogue(i: int) -> dict[str, Any]:
    made = pair(i)
    return {
        "messages": [
            *made["prompt"],
            *made["chosen"],
            said("user", "Why?"),
            said("assistant", f"Because {i}."),
        ]
    }


def text(i: int) -> dict[str, Any]:
    return {"text": f"{TOPICS[i % len(TOPICS)]} is what chapter {i} is about. " * (1 + i % 5)}


@pytest.fixture(scope="session")
def tiny(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with a random Llama: 2 layers, 32 wide, 4 heads over 2, tied embeddings, 400 tokens."""
    import torch
    from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers
    from transformers import LlamaConfig, LlamaForCausalLM, PreTrainedTokenizerFast

    bpe = Tokenizer(models.BPE())
    bpe.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    bpe.decoder = decoders.ByteLevel()
    text = [json.dumps(pair(i)) for i in range(40)] + [
        "### Instruction: ### Response: <|user|> <|assistant|>"
    ]
    special = ["<unk>", "<|im_start|>", "<|im_end|>", "<pad>"]
    alphabet = pre_tokenizers.ByteLevel.alphabet()
    learner: Any = trainers.BpeTrainer
    bpe.train_from_iterator(text, learner(vocab_size=400, special_tokens=special, initial_alphabet=alphabet))
    tokenizer = PreTrainedTokenizerFast(
        tokenizer_object=bpe,
        unk_token="<unk>",
        bos_token="<|im_start|>",
        eos_token="<|im_end|>",
        pad_token="<|im_end|>",
    )
    tokenizer.chat_template = CHATML
    torch.manual_seed(0)
    config = LlamaConfig(
        vocab_size=400,
        hidden_size=32,
        intermediate_size=64,
        num_hidden_layers=2,
        num_attention_heads=4,
        num_key_value_heads=2,
        max_position_embeddings=512,
        tie_word_embeddings=True,
        bos_token_id=1,
        eos_token_id=2,
        pad_token_id=2,
    )
    folder = tmp_path_factory.mktemp("base") / "tiny"
    LlamaForCausalLM(config).save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    return folder


@pytest.fixture(scope="session")
def tokenizer(tiny: Path) -> Any:
    from transformers import AutoTokenizer

    return AutoTokenizer.from_pretrained(tiny)


@pytest.fixture
def job(tiny: Path, tmp_path: Path) -> Callable[..., dict[str, Any]]:
    """A job as JSON: 16 pairs, dialogues or texts, as its kind wants them; keyword arguments change its fields."""

    def make(kind: str = "dpo", settings: dict[str, Any] | None = None, **fields: Any) -> dict[str, Any]:
        row = {"sft": dialogue, "pretrain": text}.get(kind, pair)
        for name, numbers in (("train", range(16)), ("eval", range(16, 20))):
            pq.write_table(
                pa.Table.from_pylist([row(i) for i in numbers]), tmp_path / f"{kind}-{name}.parquet"
            )
        small: dict[str, Any] = {
            "learning_rate": 1e-3,
            "batch": 8,
            "micro_batch": 4,
            "max_length": 128,
            "epochs": 2,
        }
        small["compute"] = "float32"
        return {
            "kind": kind,
            "name": f"tiny-{kind}",
            "settings": small | (settings or {}),
            "base": str(tiny),
            "train": {"files": [str(tmp_path / f"{kind}-train.parquet")]},
            "eval": {"files": [str(tmp_path / f"{kind}-eval.parquet")]},
            "out": str(tmp_path / "model"),
            "threads": 1,
        } | fields

    return make
