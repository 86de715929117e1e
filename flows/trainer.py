"""The training process, from its start to its end; ended with us, whatever ends us."""

import asyncio
import contextlib
import json
import os
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from flows.progress import display
from flows.recipe import RecipeError
from serving import guard
from serving.devices import held_gpus
from trainers.job import Job

LOOK = 0.5
"""Seconds between two looks at its progress."""
GRACE = 15
"""Seconds between SIGTERM and SIGKILL; Prefect gives a cancelled flow 30."""


class TrainingFailed(Exception):
    """The training process ended without a model. Its checkpoints are kept; the same command goes on from them."""


async def run_training(path: Path, job: Job, bar: str, trainer: Sequence[str]) -> None:
    """Train as the job in `path` says, with its steps on the display under `bar`. Cancelled, it leaves no process.

    `trainer`: the command that does it.

    Raises:
        RecipeError: the trainer refused the settings or the data.
        TrainingFailed: it ended otherwise.
    """
    above = [sys.executable, guard.__file__, str(os.getpid()), str(GRACE)]
    log = path.with_name(path.name.replace(".job.json", ".log"))
    with log.open("wb") as output:
        process = await asyncio.create_subprocess_exec(
            *above,
            *trainer,
            stdin=asyncio.subprocess.DEVNULL,
            stdout=output,
            stderr=output,
            start_new_session=True,
            pass_fds=held_gpus(),
        )
    shown = _Shown(job.partial / "progress.jsonl", bar)
    try:
        while process.returncode is None:
            with contextlib.suppress(TimeoutError):
                await asyncio.wait_for(process.wait(), LOOK)
            shown.look()
    finally:
        if process.returncode is None:
            process.terminate()
            await process.wait()
    if process.returncode == 0:
        return
    tail = "\n".join(log.read_text(errors="replace").splitlines()[-20:])
    if process.returncode == 2:
        raise RecipeError(f"training was refused before it began: {tail}")
    raise TrainingFailed(f"training ended with code {process.returncode}; {log} ends:\n{tail}")


class _Shown:
    """A training's progress file on the display."""

    def __init__(self, file: Path, bar: str) -> None:
        self.file, self.bar, self.done, self.step = file, bar, 0, None

    def look(self) -> None:
        for line in self._lines():
            if self.step is None:  # now it is known how many there are
                self.step = display().add(self.bar, line["steps"] - display().bars[self.bar].total)
            if line.get("step", 0) > self.done:
                note = f"loss {line['loss']:.3f}" if line.get("loss") is not None else ""
                self.step(line["step"] - self.done, note=note)
                self.done = line["step"]

    def _lines(self) -> list[dict[str, Any]]:
        try:
            text = self.file.read_text()
        except FileNotFoundError:
            return []
        return [json.loads(line) for line in text.splitlines(keepends=True) if line.endswith("\n")]
