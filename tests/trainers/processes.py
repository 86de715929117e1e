"""Jobs trained by several processes that talk through gloo, as `accelerate launch` would start them on GPUs."""

import multiprocessing
import os
import signal
import socket
import sys
import time
from pathlib import Path
from typing import Any

MADE = multiprocessing.get_context("forkserver")
MADE.set_forkserver_preload(["trainers.train"])  # torch is imported once for all of them


def _rank(path: str, rank: int, environment: dict[str, str], dies_at: int | None) -> None:
    os.environ.update(environment)
    if dies_at is not None:
        import trainers.train

        class Dying(trainers.train.Watch):
            def on_step_end(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
                if state.global_step == dies_at:
                    os.kill(os.getpid(), signal.SIGKILL)

        trainers.train.Watch = Dying
    with open(f"{path}.{rank}.log", "w") as log:
        os.dup2(log.fileno(), 1)
        os.dup2(log.fileno(), 2)
        from trainers.run import main

        sys.exit(main([path]))


class Together:
    """Processes that train one job."""

    def __init__(
        self, job: Path, count: int, dies_at: int | None = None, environment: dict[str, str] | None = None
    ) -> None:
        """`dies_at`: the optimizer step at whose end each is killed. `environment`: what a launcher says besides."""
        with socket.socket() as free:
            free.bind(("127.0.0.1", 0))
            port = free.getsockname()[1]
        common = {"WORLD_SIZE": str(count), "LOCAL_WORLD_SIZE": str(count), "MASTER_ADDR": "127.0.0.1"}
        common |= {"MASTER_PORT": str(port), "ACCELERATE_USE_CPU": "true"} | (environment or {})
        self.job = job
        self.running: list[Any] = []
        for rank in range(count):
            own = common | {"RANK": str(rank), "LOCAL_RANK": str(rank)} if count > 1 else {}
            process = MADE.Process(target=_rank, args=(str(job), rank, own, dies_at))
            process.start()
            self.running.append(process)

    def log(self) -> str:
        return "\n".join(
            path.read_text()[-3000:] for path in sorted(self.job.parent.glob(f"{self.job.name}.*.log"))
        )

    def ended(self, seconds: float = 100) -> list[int | None]:
        """Their exit codes, once all have ended; one that fails ends the others."""
        end = time.monotonic() + seconds
        while any(process.is_alive() for process in self.running):
            failed = any(process.exitcode not in (None, 0) for process in self.running)
            if failed or time.monotonic() > end:
                self.kill()
                break
            time.sleep(0.02)
        return [process.exitcode for process in self.running]

    def wait(self) -> None:
        """Until all of them have a model."""
        codes = self.ended()
        assert codes == [0] * len(codes), f"{codes}\n{self.log()}"

    def kill(self) -> None:
        for process in self.running:
            process.kill()
            process.join()
