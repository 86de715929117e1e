"""`python -m trainers.run JOB.json`: one training run in a process of its own, or in several that `accelerate launch`
starts.

Exit code 0: the model is at the job's `out`. 1: training failed. 2: the job is wrong; stderr says what was
wanted. The last line of stdout is one JSON object. A model this job already gave is returned without
loading torch.
"""

import fcntl
import json
import os
import sys
import time
import traceback
from collections.abc import Iterator
from contextlib import contextmanager, nullcontext
from pathlib import Path
from typing import Any

from pydantic import TypeAdapter, ValidationError

from trainers.guards import BadInput, check_base, check_length, check_settings
from trainers.job import Job, finished, key_of

QUIET = {
    "HF_HUB_DISABLE_TELEMETRY": "1",
    "HF_HUB_OFFLINE": "1",
    "DO_NOT_TRACK": "1",
    "TQDM_DISABLE": "1",
    "HF_DATASETS_DISABLE_PROGRESS_BARS": "1",
    "TOKENIZERS_PARALLELISM": "false",
    "TRL_EXPERIMENTAL_SILENCE": "1",
    "OMP_WAIT_POLICY": "PASSIVE",  # threads that wait must not take a shared core
}


def first() -> bool:
    """Whether this is the process that writes, where a launcher started several to train together."""
    return os.environ.get("RANK", "0") == "0"


def main(arguments: list[str]) -> int:
    start = time.monotonic()
    try:
        job = load_job(arguments)
        made, reused = run(job)
    except BadInput as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    except Exception as error:
        traceback.print_exc()
        print(f"error: training failed: {type(error).__name__}: {error}", file=sys.stderr)
        return 1
    seconds = round(time.monotonic() - start, 2)
    if first():
        print(json.dumps({"out": str(job.out), "key": made["key"], "reused": reused, "seconds": seconds}))
    return 0


def load_job(arguments: list[str]) -> Job:
    if len(arguments) != 1:
        raise BadInput(f"{len(arguments)} arguments; one is wanted: the path of a job's JSON file")
    try:
        return TypeAdapter(Job).validate_json(Path(arguments[0]).read_text())
    except FileNotFoundError:
        raise BadInput(f"no file {arguments[0]!r}; the path of a job's JSON file is wanted") from None
    except ValidationError as error:
        raise BadInput(_said(error)) from None


def run(job: Job) -> tuple[dict[str, Any], bool]:
    """The finished model's model.json, and whether it was there already."""
    check_settings(job.settings, devices=int(os.environ.get("WORLD_SIZE", "1")))
    check_length(job.settings, check_base(job.base))
    check_files(job)
    key = key_of(job)
    if made := finished(job.out, key):
        return made, True
    job.out.parent.mkdir(parents=True, exist_ok=True)
    for name, value in QUIET.items():
        os.environ.setdefault(name, value)
    with alone(job) if first() else nullcontext():
        from trainers.train import train

        train(job, key)
    made = finished(job.out, key)
    assert made is not None
    return made, False


@contextmanager
def alone(job: Job) -> Iterator[None]:
    """Keeps other runs of the same model out while the block runs."""
    path = job.partial.with_suffix(".lock")
    with path.open("w") as lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise BadInput(f"out={str(job.out)!r} is being trained by another process; wait for it") from None
        yield
        path.unlink()


def check_files(job: Job) -> None:
    for field, data in (("train", job.train), ("eval", job.eval)):
        paths = data.paths() if data else []
        if data and not (paths and all(path.is_file() for path in paths)):
            where = data.folder or [str(path) for path in paths if not path.is_file()]
            raise BadInput(f"{field}: no files at {str(where)!r}; rows to train on are wanted")
    if job.gguf and not job.gguf.is_file():
        raise BadInput(f"gguf={str(job.gguf)!r} is not there; the GGUF file of the base is wanted")


KINDS = ("pretrain", "sft", "reward", "dpo", "rlhf")


def _said(error: ValidationError) -> str:
    """Every fault as `field: what was wanted, what came`."""
    return "; ".join(
        f"{'.'.join(str(part) for part in fault['loc'] if part not in KINDS) or 'job'}: "
        f"{fault['msg']}"
        f" (got {str(fault['input'])[:80]!r})"
        for fault in error.errors()
    )


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
