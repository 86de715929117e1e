"""What a run leaves behind while it works: progress lines, and checkpoints a killed run goes on from.

<out>.partial/job.json                        the job's key
<out>.partial/progress.jsonl                  one line per logged step
<out>.partial/looks.jsonl                     one line per look of the judge, see `trainers.win_rate`
<out>.partial/checkpoints/checkpoint-8/       with a file `complete`, written last
"""

import json
import math
import os
import shutil
import sys
import time
from pathlib import Path
from typing import Any

from accelerate import PartialState
from transformers import TrainerCallback

from trainers.alarms import live

COMPLETE = "complete"


class TrainingFailed(RuntimeError):
    """Training started and cannot end well. What was saved stays; the exit code is 1."""


def open_work(work: Path, key: str) -> Path | None:
    """Prepare the folder of a run and give its last complete checkpoint; another job's remains are removed."""
    stamp = work / "job.json"
    if not stamp.is_file() or json.loads(stamp.read_text() or "{}").get("key") != key:
        shutil.rmtree(work, ignore_errors=True)
        work.mkdir(parents=True)
        stamp.write_text(json.dumps({"key": key}))
    checkpoint = last_complete(work / "checkpoints")
    for name in ("progress.jsonl", "looks.jsonl"):
        _forget_after(work / name, step_of(checkpoint) if checkpoint else 0)
    return checkpoint


def last_complete(folder: Path) -> Path | None:
    """The newest checkpoint that was written to its end; torn ones are removed."""
    found = sorted(folder.glob("checkpoint-*"), key=step_of)
    for torn in [path for path in found if not (path / COMPLETE).is_file()]:
        shutil.rmtree(torn)
        found.remove(torn)
    return found[-1] if found else None


def step_of(checkpoint: Path) -> int:
    return int(checkpoint.name.rpartition("-")[2])


def history(work: Path) -> list[dict[str, Any]]:
    file = work / "progress.jsonl"
    return [json.loads(line) for line in file.read_text().splitlines()] if file.is_file() else []


def _forget_after(file: Path, step: int) -> None:
    if file.is_file():
        whole = [line for line in file.read_text().splitlines(keepends=True) if line.endswith("}\n")]
        file.write_text("".join(line for line in whole if json.loads(line)["step"] <= step))


class Watch(TrainerCallback):
    """Writes a progress line per logged step, seals checkpoints, stops on a loss that is not a number."""

    def __init__(self, work: Path) -> None:
        self.file = work / "progress.jsonl"
        self.start = time.monotonic()

    def on_log(self, args: Any, state: Any, control: Any, logs: Any = None, **kwargs: Any) -> None:
        if "loss" not in (logs or {}) or not state.is_world_process_zero:
            return
        numbers = {name: float(v) for name, v in logs.items() if name != "epoch" and v is not None}
        loss = numbers.pop("loss")
        line: dict[str, Any] = {
            "step": state.global_step,
            "steps": state.max_steps,
            "loss": loss if math.isfinite(loss) else None,
            "metrics": {
                name: round(value, 6) if math.isfinite(value) else None for name, value in numbers.items()
            },
            "seconds": round(time.monotonic() - self.start, 2),
        }
        if alarm := live(line["metrics"]):
            line["alarm"] = alarm
            print(f"step {state.global_step}: {alarm}", file=sys.stderr, flush=True)
        with self.file.open("a") as file:
            file.write(json.dumps(line) + "\n")
        if not math.isfinite(loss):
            raise TrainingFailed(
                f"the loss is {loss} at step {state.global_step} of {state.max_steps}; "
                f"lower learning_rate={args.learning_rate:g}"
            )

    def on_save(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        PartialState().wait_for_everyone()  # each may have written a part of it
        if not state.is_world_process_zero:
            return
        checkpoint = Path(args.output_dir) / f"checkpoint-{state.global_step}"
        for path in [*checkpoint.rglob("*"), checkpoint]:
            handle = os.open(path, os.O_RDONLY)
            os.fsync(handle)
            os.close(handle)
        (checkpoint / COMPLETE).touch()
