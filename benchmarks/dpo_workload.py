"""What `benchmarks.dpo_gpu` trains: pairs as long as UltraFeedback's, a model of Mistral-7B's shape, what they cost.

Lengths are drawn log-normally around the means that UltraFeedback's paper gives (arXiv 2310.01377: prompts
185.1 tokens, answers 305.3), cut to 1024 as TRL cuts; the spread is our choice.
"""

import random
import time
from typing import Any


def lengths(count: int, scale: int) -> list[tuple[int, int, int]]:
    """Tokens of prompt, chosen and rejected; `scale`: shorter by so much."""
    chance = random.Random(0)

    def some(middle: float, spread: float, most: int) -> int:
        return int(min(most, max(4, chance.lognormvariate(0, spread) * middle / scale)))

    made = []
    for _ in range(count):
        prompt = some(123, 0.9, 768 // scale)
        room = 1024 // scale - prompt
        made.append((prompt, some(247, 0.65, room), some(239, 0.7, room)))
    return made


def pairs(count: int, scale: int, words: int) -> list[dict[str, Any]]:
    chance, made = random.Random(1), []
    for sizes in lengths(count, scale):
        parts = [[chance.randrange(10, words) for _ in range(size)] for size in sizes]
        row = dict(zip(("prompt_ids", "chosen_ids", "rejected_ids"), parts, strict=True))
        made.append({**row, "length": 2 * sizes[0] + sizes[1] + sizes[2]})
    return made


def shape(small: bool) -> Any:
    """Mistral-7B's, or a small one of the same kind."""
    from transformers import MistralConfig

    common: dict[str, Any] = {"sliding_window": None, "pad_token_id": 0, "bos_token_id": 1, "eos_token_id": 2}
    if small:
        sizes = {"vocab_size": 512, "hidden_size": 64, "intermediate_size": 128, "num_hidden_layers": 2}
        common |= {
            **sizes,
            "num_attention_heads": 4,
            "num_key_value_heads": 2,
            "max_position_embeddings": 512,
        }
    made: Any = MistralConfig
    return made(**{"vocab_size": 32000, "max_position_embeddings": 4096} | common)


def operations(config: Any, rows: list[dict[str, Any]], lora: bool) -> float:
    """Floating-point operations a pair needs: each prompt once, nothing computed twice, attention included."""
    h, kv = config.hidden_size, config.hidden_size * config.num_key_value_heads // config.num_attention_heads
    block = 2 * h * h + 2 * h * kv + 3 * h * config.intermediate_size
    total = 0.0
    for row in rows:
        p, c, r = (len(row[name]) for name in ("prompt_ids", "chosen_ids", "rejected_ids"))
        seen = p * p / 2 + c * (p + c / 2) + r * (p + r / 2)
        total += 2 * config.num_hidden_layers * block * (p + c + r) + 4 * config.num_hidden_layers * h * seen
        total += 2 * config.vocab_size * h * (c + r)
    return total / len(rows) * (2 if lora else 3)  # frozen weights need no gradient of their own


def ceiling(cuda: bool) -> float:
    """Operations per second of one large matrix product."""
    import torch

    size, kind = (8192, torch.bfloat16) if cuda else (512, torch.float32)
    a = torch.randn(size, size, device="cuda" if cuda else "cpu", dtype=kind)
    for _ in range(3):
        torch.mm(a, a)
    wait(cuda)
    began, times = time.perf_counter(), 20
    for _ in range(times):
        torch.mm(a, a)
    wait(cuda)
    return times * 2 * size**3 / (time.perf_counter() - began)


def wait(cuda: bool) -> None:
    if cuda:
        import torch

        torch.cuda.synchronize()


def model_of(config: Any, dtype: str, cuda: bool) -> Any:
    """Random weights, the same in every run."""
    import torch
    from transformers import MistralForCausalLM

    torch.manual_seed(0)
    with torch.device("cuda" if cuda else "cpu"):
        return MistralForCausalLM._from_config(
            config, dtype=getattr(torch, dtype), attn_implementation="sdpa"
        )


def tokenizer_of(words: int) -> Any:
    from tokenizers import Tokenizer, models
    from transformers import PreTrainedTokenizerFast

    known = {f"w{i}": i for i in range(3, words)} | {"<pad>": 0, "<s>": 1, "</s>": 2}
    return PreTrainedTokenizerFast(
        tokenizer_object=Tokenizer(models.WordLevel(known, unk_token="<s>")),
        pad_token="<pad>",
        bos_token="<s>",
        eos_token="</s>",
    )
