"""How a training run is started: one process, or several through accelerate.

    python -m trainers.launch --config_file deploy/accelerate/ddp.yaml --num_processes 4 -m trainers.run JOB.json

is `accelerate launch` with the exit code of the process that failed first in the place of its own. What is trained does
not depend on it: a job's key has no launch in it, and a run that was killed goes on with another number of processes.
"""

import sys
from pathlib import Path
from typing import Any

import yaml
from pydantic import Field

from records.base import Strict

CONFIGS = Path(__file__).parent.parent / "deploy" / "accelerate"


class Launch(Strict):
    """Processes that train together, as an accelerate configuration says."""

    accelerate: str = "ddp"
    """A name of deploy/accelerate: ddp, fsdp2, hsdp, zero3, cpu, one; or a file of accelerate's."""
    processes: int | None = Field(default=None, ge=1)
    """Over all machines, in place of the configuration's number."""
    address: str | None = Field(default=None, pattern=r"^[^:\s]+(:\d+)?$")
    """Of the first machine, host or host:port, where there are several. The same command runs on each of the others,
    see docs/training.md."""

    @property
    def file(self) -> Path:
        """The configuration.

        Raises:
            ValueError: there is none of that name.
        """
        for path in (CONFIGS / f"{self.accelerate}.yaml", Path(self.accelerate)):
            if path.is_file():
                return path
        known = ", ".join(sorted(path.stem for path in CONFIGS.glob("*.yaml")))
        raise ValueError(f"launch.accelerate={self.accelerate!r} is no file and none of {known}")

    @property
    def config(self) -> dict[str, Any]:
        return yaml.safe_load(self.file.read_text())

    @property
    def devices(self) -> int:
        """Processes, each with a device."""
        return self.processes or self.config.get("num_processes") or 1

    @property
    def here(self) -> int:
        """Processes on this machine."""
        return self.devices // self.config.get("num_machines", 1)


def command(launch: Launch | None, job: Path, machine: int = 0) -> list[str]:
    """What starts the training of `job`, on the `machine`th of several, from 0."""
    train = ["-m", "trainers.run", str(job)]
    if launch is None:
        return [sys.executable, *train]
    options = ["--config_file", str(launch.file), "--num_processes", str(launch.devices)]
    if launch.config.get("num_machines", 1) > 1:
        options += ["--machine_rank", str(machine)]
        if launch.address:
            host, _, port = launch.address.partition(":")
            options += ["--main_process_ip", host, *(["--main_process_port", port] if port else [])]
    else:
        options += ["--main_process_port", "0"]  # a free one
    return [sys.executable, "-m", "trainers.launch", *options, *train]


def main(arguments: list[str]) -> int:
    from accelerate.commands.launch import launch_command, launch_command_parser
    from torch.distributed.elastic.multiprocessing.errors import ChildFailedError

    try:
        launch_command(launch_command_parser().parse_args(arguments))
    except ChildFailedError as error:
        return max(1, error.get_first_failure()[1].exitcode)
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
