"""Do bfloat16 weights learn at the paper's learning rate? DPO at 5e-7 from the same weights, five ways, several seeds.

    python -m benchmarks.optimizers               # under ten minutes on two cores
    python -m benchmarks.optimizers --seeds 1 --steps 20

A small Llama first learns a synthetic language from scratch, so that its weights are of a trained model's size. Then
each way prefers one kind of answer to another for 200 steps. What it learned is how far the loss on held-out pairs went
down, with its final weights in float32: the same measure for all, whatever they were trained in.
"""

import argparse
import os
import random
import sys
import tempfile
import time
from pathlib import Path
from statistics import mean, stdev
from typing import Any

from benchmarks.report import finish, table

WAYS: dict[str, dict[str, Any]] = {
    "float32": {"compute": "float32"},
    "bfloat16 copies, float32 masters": {"compute": "bfloat16"},
    "... and 8-bit averages": {"compute": "bfloat16", "optimizer": "adamw_8bit_stochastic"},
    "bfloat16, rounded by chance": {"compute": "bfloat16", "dtype": "bfloat16"},
    "... and 8-bit averages, no masters": {
        "compute": "bfloat16",
        "dtype": "bfloat16",
        "optimizer": "adamw_8bit_stochastic",
    },
    "bfloat16, torch's AdamW": {"compute": "bfloat16", "dtype": "bfloat16"},
}
PLAIN = "bfloat16, torch's AdamW"
WORDS, RATE = 500, 5e-7


def sentence(chance: random.Random, length: int, kind: int) -> list[int]:
    """Words that follow one another by a rule; `kind` 0 and 1 differ in one step of three."""
    at, said = chance.randrange(10, WORDS), []
    for place in range(length):
        said.append(at)
        step = 7 + 30 * kind if place % 3 == 2 else 3
        at = 10 + (at * 5 + step) % (WORDS - 10) if chance.random() < 0.9 else chance.randrange(10, WORDS)
    return said


def pairs(count: int, seed: int) -> list[dict[str, Any]]:
    chance, made = random.Random(seed), []
    for _ in range(count):
        row: dict[str, Any] = {"prompt_ids": sentence(chance, 8, 0)}
        row |= {"chosen_ids": sentence(chance, 16, 1), "rejected_ids": sentence(chance, 16, 0)}
        made.append(row | {"length": 48})
    return made


def base(folder: Path, steps: int) -> Any:
    """A Llama of two layers that has read both kinds of sentences, saved with a tokenizer in `folder`."""
    import torch
    from tokenizers import Tokenizer, models
    from transformers import LlamaConfig, LlamaForCausalLM, PreTrainedTokenizerFast

    torch.manual_seed(0)
    config = LlamaConfig(
        vocab_size=WORDS, hidden_size=128, intermediate_size=256, num_hidden_layers=2, num_attention_heads=4,
        num_key_value_heads=2, max_position_embeddings=64, bos_token_id=1, eos_token_id=2, pad_token_id=0,
    )  # fmt: skip
    model: Any = LlamaForCausalLM(config)
    optimizer = torch.optim.AdamW(model.parameters(), 3e-3, weight_decay=0.1)
    chance = random.Random(0)
    for step in range(steps):
        for group in optimizer.param_groups:
            group["lr"] = 3e-3 * (1 - step / steps)
        ids = torch.tensor([sentence(chance, 32, i % 2) for i in range(32)])
        model(input_ids=ids, labels=ids).loss.backward()
        optimizer.step()
        optimizer.zero_grad()
    model.save_pretrained(folder)
    words = {f"w{i}": i for i in range(3, WORDS)} | {"<pad>": 0, "<s>": 1, "</s>": 2}
    tokenizer = Tokenizer(models.WordLevel(words, unk_token="<s>"))
    return PreTrainedTokenizerFast(
        tokenizer_object=tokenizer, pad_token="<pad>", bos_token="<s>", eos_token="</s>"
    )


def held_out(model: Any, reference: Any, tokenizer: Any) -> float:
    """Loss on 256 pairs that were not trained on, in float64: what is learned is in its fourth digit."""
    import torch

    def logps(of: Any, rows: list[dict[str, Any]], answer: str) -> Any:
        ids = torch.tensor([row["prompt_ids"] + row[answer] for row in rows])
        logits = of(input_ids=ids).logits[:, 7:-1].log_softmax(-1)
        return logits.gather(-1, ids[:, 8:, None]).sum((1, 2))

    rows = pairs(256, seed=10_000)
    with torch.no_grad():
        margins = [
            logps(model, rows, answer) - logps(reference, rows, answer)
            for answer in ("chosen_ids", "rejected_ids")
        ]
        assert margins[0].dtype == torch.float64
        return float(-torch.nn.functional.logsigmoid(0.1 * (margins[0] - margins[1])).mean())


def run(way: str, seed: int, steps: int, folder: Path, tokenizer: Any) -> dict[str, Any]:
    """One training through the project's own trainer."""
    import torch
    from datasets import Dataset
    from transformers import PrinterCallback

    from trainers.arguments import load_model
    from trainers.dpo import dpo_trainer
    from trainers.precision import finish as to_masters
    from trainers.settings import DPOSettings

    common: dict[str, Any] = {
        "batch": 16,
        "micro_batch": 8,
        "max_length": 64,
        "max_steps": steps,
        "epochs": None,
    }
    common |= {
        "learning_rate": RATE,
        "beta": 0.1,
        "scheduler": "constant",
        "warmup": 0.0,
        "logging_every": steps,
    }
    settings = DPOSettings(**common, **WAYS[way])
    model, start = load_model(folder, settings), load_model(folder, DPOSettings(compute="float32")).double()
    data = Dataset.from_list(pairs(max(16, 4 * steps), seed))  # four epochs
    with tempfile.TemporaryDirectory() as work:
        trainer: Any = dpo_trainer(settings, model, tokenizer, data, None, Path(work), seed, [])
        if way == PLAIN:
            trainer.optimizer_cls_and_kwargs = (torch.optim.AdamW, {"lr": RATE, "weight_decay": 0.0})
        trainer.remove_callback(PrinterCallback)
        before = held_out(start, start, tokenizer)
        began = time.perf_counter()
        trainer.train()
        seconds = time.perf_counter() - began
    moved = to_masters(trainer)
    trained = trainer.model.double()
    vars(trained).pop("forward", None)
    trained.set_attn_implementation("sdpa")
    learned = before - held_out(trained, start, tokenizer)
    print(f"{way:<36} seed {seed}: learned {learned:.3g} in {seconds:.0f} s", file=sys.stderr, flush=True)
    return {"learned": learned, "moved": moved, "seconds": seconds}


def measure(seeds: int, steps: int, read: int = 400) -> dict[str, list[dict[str, Any]]]:
    """Every run, by way and seed."""
    import torch

    torch.set_num_threads(1)  # matrices this small gain nothing from more
    with tempfile.TemporaryDirectory() as folder:
        tokenizer = base(Path(folder), read)
        return {
            way: [run(way, seed, steps, Path(folder), tokenizer) for seed in range(seeds)] for way in WAYS
        }


def summary(found: dict[str, list[dict[str, Any]]]) -> dict[str, dict[str, Any]]:
    """By way: what was learned in nats of held-out loss, and the part of what float32 learned with the same seed."""
    exact = [one["learned"] for one in found["float32"]]
    results: dict[str, dict[str, Any]] = {}
    for way, every in found.items():
        parts = [one["learned"] / other for one, other in zip(every, exact, strict=True)]
        results[way] = {
            "learned": mean(one["learned"] for one in every),
            "of_float32": mean(parts),
            "furthest_from_float32": max(abs(part - 1) for part in parts),
            "moved": mean(one["moved"] for one in every),
            "seconds": mean(one["seconds"] for one in every),
        }
    noise = stdev(exact) / mean(exact) if len(exact) > 1 else None
    return results | {"noise over seeds": {"of_float32": noise, "seeds": len(exact)}}


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--steps", type=int, default=200)
    parser.add_argument("--out", type=Path, help="also write the result to this file")
    asked = parser.parse_args()
    os.environ.update({"HF_HUB_OFFLINE": "1", "TQDM_DISABLE": "1", "HF_HUB_DISABLE_TELEMETRY": "1"})
    results = summary(measure(asked.seeds, asked.steps))
    columns = ("learned", "of_float32", "furthest_from_float32", "moved", "seconds")
    rows = [[way, *(result.get(column, "") for column in columns)] for way, result in results.items()]
    print(table(("", "learned, nats", "of float32", "at most off", "weights moved", "seconds"), rows))
    finish("optimizers", results, asked.out)


if __name__ == "__main__":
    main()
