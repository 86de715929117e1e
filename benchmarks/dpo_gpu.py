"""DPO of a 7B model on one GPU, here and in TRL: pairs per second, memory, share of what the GPU can do, same numbers.

    python -m benchmarks.dpo_gpu             # one GPU of 80 GB, half an hour; random weights, nothing is downloaded
    python -m benchmarks.dpo_gpu --small     # the same in small, on a CPU too

Each run is a process of its own: the model is made with the same random weights, its log-probabilities of the same
eight pairs are taken, and it trains a few steps of `--batch` pairs. `trl` is TRL's default: the reference in every
step, padding, checkpointing, autocast. `trl, kept reference` is its fastest setting. `ours` is what a recipe does.
"""

import argparse
import json
import os
import resource
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

from benchmarks.dpo_workload import ceiling, model_of, operations, pairs, shape, tokenizer_of, wait
from benchmarks.report import finish, table

ROOT = Path(__file__).parent.parent
WAYS = ("trl", "trl, kept reference", "ours")
WHATS = ("lora", "all weights")
WARM = 2
"""Steps before the clock starts: kernels are compiled and memory is found."""
PEAK = 989e12
"""Dense bfloat16 operations per second of an H100 SXM, from NVIDIA's data sheet: what MFU is a part of."""
WANTED = {"lora": {"pairs_per_s": 20, "times_trl": 10}, "all weights": {"pairs_per_s": 12, "peak_gb": 60}}


def settings_of(what: str, asked: argparse.Namespace, cuda: bool) -> Any:
    """Ours, as a recipe for one GPU has them."""
    from trainers.settings import DPOSettings, LoRA

    lora = what == "lora"
    fields: dict[str, Any] = {"batch": asked.batch, "max_steps": asked.steps, "epochs": None, "warmup": 0.0}
    fields |= {"max_length": 1024, "learning_rate": 1e-5 if lora else 5e-7, "scheduler": "constant"}
    if cuda:
        fields |= {"dtype": "bfloat16", "compute": "bfloat16"}
        fields["micro_tokens"] = asked.tokens or (9000 if lora else 7000)
        if not lora:
            fields |= {
                "optimizer": "adamw_8bit_stochastic",
                "gradient_checkpointing": True,
                "checkpoint_every": 2,
            }
    else:
        fields |= {"compute": "float32", "micro_tokens": asked.tokens or 2000}
    return DPOSettings(**fields, lora=LoRA(r=64, alpha=128) if lora else None)


def run(way: str, what: str, asked: argparse.Namespace) -> dict[str, Any]:
    """One training in this process."""
    os.environ.update({"HF_HUB_OFFLINE": "1", "TQDM_DISABLE": "1", "HF_HUB_DISABLE_TELEMETRY": "1"})
    import torch
    from datasets import Dataset
    from transformers import PrinterCallback, TrainerCallback
    from trl.trainer.dpo_config import DPOConfig
    from trl.trainer.dpo_trainer import DPOTrainer

    from trainers.arguments import adapter
    from trainers.dpo import dpo_trainer
    from trainers.precision import finish as to_masters

    class Plain(DPOTrainer):
        """TRL's own, on rows that are tokens already."""

        def _prepare_dataset(self, dataset: Any, *args: Any, **kwargs: Any) -> Any:
            return dataset

    class Clock(TrainerCallback):
        def __init__(self) -> None:
            self.at: list[float] = []

        def on_step_end(self, *args: Any, **kwargs: Any) -> None:
            wait(cuda)
            self.at.append(time.perf_counter())

    cuda, clock = torch.cuda.is_available(), Clock()
    config = shape(asked.small)
    rows = pairs(max(asked.batch * asked.steps, 16), 8 if asked.small else 1, config.vocab_size)
    data, tokenizer, settings = (
        Dataset.from_list(rows),
        tokenizer_of(config.vocab_size),
        settings_of(what, asked, cuda),
    )
    model = model_of(config, settings.dtype, cuda)
    with tempfile.TemporaryDirectory() as work:
        began = time.perf_counter()
        if way == "ours":
            trainer: Any = dpo_trainer(settings, model, tokenizer, data, None, Path(work), 1, [clock])
        else:
            micro = min(8, asked.batch)
            online = way == "trl" and what != "lora"  # else it is the model without its adapters, or is kept
            trainer = Plain(
                model=model,
                ref_model=model_of(config, settings.dtype, cuda) if online else None,
                args=DPOConfig(
                    output_dir=work,
                    per_device_train_batch_size=micro,
                    gradient_accumulation_steps=asked.batch // micro,
                    max_steps=asked.steps,
                    learning_rate=settings.learning_rate,
                    precompute_ref_log_probs=way != "trl",
                    bf16=cuda,
                    use_cpu=not cuda,
                    remove_unused_columns=False,
                    save_strategy="no",
                    logging_steps=1,
                    report_to="none",
                    disable_tqdm=True,
                    seed=1,
                ),
                train_dataset=data,
                processing_class=tokenizer,
                peft_config=adapter(settings, config.num_hidden_layers),
                callbacks=[clock],
            )
        trainer.remove_callback(PrinterCallback)
        wait(cuda)
        ready = time.perf_counter()
        trainer.model.to("cuda" if cuda else "cpu")
        first = trainer.data_collator(rows[:8])
        first = {name: part.to(trainer.args.device) for name, part in first.items()}
        logps = [part.tolist() for part in trainer.compute_ref_log_probs(trainer.model, first)]
        trainer.train()
    seconds = (clock.at[-1] - clock.at[WARM - 1]) / (len(clock.at) - WARM)
    speed = asked.batch / seconds
    return {
        "pairs_per_s": speed,
        "reference_s": ready - began,
        "peak_gb": torch.cuda.max_memory_allocated() / 2**30
        if cuda
        else resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20,
        "tflops": speed * operations(config, rows, what == "lora") / 1e12,
        "logps": logps,
        "losses": [line["loss"] for line in trainer.state.log_history if "loss" in line],
        "moved": to_masters(trainer) if way == "ours" else None,
        "not_shared": getattr(trainer, "not_shared", None),
        "attention": getattr(trainer, "attention", None),
        "fused": getattr(trainer, "fused", None),
    }


def measure(asked: argparse.Namespace) -> dict[str, dict[str, Any]]:
    """By run; one that fails, as where memory does not suffice, has its `error`."""
    found: dict[str, dict[str, Any]] = {}
    for what in asked.whats or WHATS:
        for way in asked.ways or WAYS:
            command = [sys.executable, "-m", "benchmarks.dpo_gpu", "--one", way, what]
            command += ["--batch", str(asked.batch), "--steps", str(asked.steps)]
            command += ["--tokens", str(asked.tokens)] * bool(asked.tokens) + ["--small"] * asked.small
            ended = subprocess.run(command, cwd=ROOT, capture_output=True, text=True)
            said = ended.stdout.splitlines()
            one = json.loads(said[-1]) if ended.returncode == 0 else {"error": ended.stderr[-600:]}
            found[f"{what}: {way}"] = one
            print(f"{what}: {way}  {one.get('pairs_per_s', one.get('error'))}", file=sys.stderr, flush=True)
    return found


def judged(found: dict[str, dict[str, Any]], peak: float) -> dict[str, dict[str, Any]]:
    """The runs beside TRL's: how many times as fast, how much of the ceiling, how far its numbers are."""
    results = {}
    for name, one in found.items():
        what, _, _ = name.partition(": ")
        theirs = found.get(f"{what}: trl", {})
        if "error" in one:
            results[name] = {"error": one["error"]}
            continue
        result = {name: value for name, value in one.items() if name not in ("logps",)}
        result |= {"of_ceiling": one["tflops"] * 1e12 / peak, "mfu": one["tflops"] * 1e12 / PEAK}
        others = [other["logps"] for key, other in found.items() if key.startswith(what) and "logps" in other]
        apart = [
            abs(a / b - 1)
            for x, y in zip(one["logps"], others[0], strict=True)
            for a, b in zip(x, y, strict=True)
        ]
        result |= {"logps_apart": max(apart)}
        result["times_trl"] = one["pairs_per_s"] / theirs["pairs_per_s"] if "pairs_per_s" in theirs else None
        results[name] = result
    return results


def reached(results: dict[str, dict[str, Any]]) -> dict[str, bool | None]:
    """Whether ours is what was wanted of one H100; None where there is nothing to compare with."""
    found: dict[str, bool | None] = {}
    for what, wanted in WANTED.items():
        own = results.get(f"{what}: ours", {})
        for name, number in wanted.items():
            value = own.get(name)
            enough = None if value is None else value <= number if name == "peak_gb" else value >= number
            found[f"{what}: {name} {'<=' if name == 'peak_gb' else '>='} {number}"] = enough
    return found


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--batch", type=int, default=32, help="pairs per optimizer step")
    parser.add_argument("--steps", type=int, default=6, help="of which two warm up")
    parser.add_argument(
        "--tokens", type=int, help="per forward pass of ours; default 9000 with LoRA, 7000 without"
    )
    parser.add_argument(
        "--small", action="store_true", help="a model of two layers and an eighth of the lengths"
    )
    parser.add_argument("--ways", nargs="+", choices=WAYS)
    parser.add_argument("--whats", nargs="+", choices=WHATS)
    parser.add_argument("--out", type=Path, help="also write the result to this file")
    parser.add_argument("--one", nargs=2, metavar=("WAY", "WHAT"), help=argparse.SUPPRESS)
    asked = parser.parse_args()
    if asked.one:
        print(json.dumps(run(asked.one[0], asked.one[1], asked)))
        return
    import torch

    cuda = torch.cuda.is_available()
    if not cuda and not asked.small:
        sys.exit("there is no GPU here; --small runs the same in small on a CPU")
    peak = ceiling(cuda)
    results = judged(measure(asked), peak)
    columns = ("pairs_per_s", "times_trl", "peak_gb", "of_ceiling", "mfu", "logps_apart", "reference_s")
    head = ("", "pairs/s", "x TRL", "peak GB", "of ceiling", "MFU", "logps apart", "set-up s")
    lines = [
        [name, *(one.get(column) if one.get(column) is not None else "" for column in columns)]
        for name, one in results.items()
    ]
    print(table(head, lines))
    said: dict[str, Any] = {
        "device": torch.cuda.get_device_name(0) if cuda else "cpu",
        "ceiling_tflops": peak / 1e12,
    }
    if cuda and not asked.small:
        said["reached"] = reached(results)
        print(
            "\n".join(
                f"{'yes' if yes else 'NO' if yes is not None else '?':<4}{what}"
                for what, yes in said["reached"].items()
            )
        )
    finish("dpo_gpu", results | said, asked.out)


if __name__ == "__main__":
    main()
