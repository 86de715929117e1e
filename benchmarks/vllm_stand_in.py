"""What stands where `vllm` is looked for, and serves a simulated model: for servers that a run starts itself.

    vllm serve WEIGHTS --port 4000 --served-model-name judge --gpu-memory-utilization 0.4 …

`$SIMULATED_GPUS` is a folder: a lock file per GPU of `$CUDA_VISIBLE_DEVICES`, and every start and end in
`events.jsonl`.
`$SIMULATED_OPTIONS` is JSON of further options of the simulator. Flags it does not know are taken and ignored, as the
model behind them is.
"""

import json
import os
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from benchmarks import simulator

KNOWN = {
    "--port": "--port",
    "--served-model-name": "--name",
    "--gpu-memory-utilization": "--share",
    "--max-num-seqs": "--slots",
}


def options(arguments: list[str], gpus: Path) -> list[str]:
    """The simulator's options for `vllm serve …`."""
    found: list[str] = []
    for flag, value in zip(arguments, [*arguments[1:], ""], strict=True):
        if flag in KNOWN:
            found += [KNOWN[flag], value]
    for name, value in json.loads(os.environ.get("SIMULATED_OPTIONS", "{}")).items():
        found += [f"--{name.replace('_', '-')}", str(value)]
    names = [name for name in os.environ.get("CUDA_VISIBLE_DEVICES", "0").split(",") if name]
    return [*found, "--gpu", *(str(gpus / f"gpu{name}") for name in names)]


@contextmanager
def told(name: str, gpus: Path) -> Iterator[None]:
    """Start and end, as lines that other processes write to as well."""

    def tell(event: str) -> None:
        line = json.dumps({"model": name, "event": event, "at": time.time()}) + "\n"
        with (gpus / "events.jsonl").open("a") as file:
            file.write(line)

    tell("start")
    try:
        yield
    finally:
        tell("end")


def main() -> None:
    gpus = Path(os.environ["SIMULATED_GPUS"])
    gpus.mkdir(parents=True, exist_ok=True)
    asked = simulator.parser().parse_args(options(sys.argv[1:], gpus))
    with told(asked.name, gpus):
        simulator.run(asked)


if __name__ == "__main__":
    main()
