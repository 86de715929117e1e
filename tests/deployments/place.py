"""A Prefect server with a database of its own, its deployments and its workers, all ended with the block."""

import json
import os
import shutil
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import httpx
import pytest

from serving import guard

ROOT = Path(__file__).parent.parent.parent
FINAL = ("COMPLETED", "FAILED", "CANCELLED", "CRASHED")
PREFECT = [sys.executable, "-m", "prefect", "--no-prompt"]
ZEPHYR = [sys.executable, "-m", "flows.cli"]


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


def wait_for(what: Any, seconds: float, why: str) -> Any:
    """The first value of `what()` that is true."""
    deadline = time.monotonic() + seconds
    while time.monotonic() < deadline:
        if found := what():
            return found
        time.sleep(0.5)
    raise TimeoutError(f"{why}: not within {seconds:.0f} s")


@dataclass
class Place:
    """Where the tests' deployments run."""

    home: Path
    url: str
    environment: dict[str, str]
    processes: list["subprocess.Popen[bytes]"] = field(default_factory=list)

    def start(self, name: str, *command: str, **more: str) -> "subprocess.Popen[bytes]":
        """A process that ends with this one, its output in a file."""
        with (self.home / f"{name}.log").open("ab") as log:
            process = subprocess.Popen(
                [sys.executable, "-I", "-S", guard.__file__, str(os.getpid()), "10", *command],
                cwd=ROOT,
                env=self.environment | {"TEST_PROCESS": f"{self.home}/{name}"} | more,
                stdout=log,
                stderr=log,
                start_new_session=True,
            )
        self.processes.append(process)
        return process

    def stop(self, process: "subprocess.Popen[bytes]") -> None:
        process.terminate()
        process.wait(30)

    def kill(self, name: str) -> None:
        """kill -9 for a process and all that came of it, as a machine that loses its power."""
        for pid in processes_with(f"TEST_PROCESS={self.home}/{name}"):
            with suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)

    def worker(self, pool: str, name: str, limit: int = 4, **more: str) -> "subprocess.Popen[bytes]":
        options = ["--pool", pool, "--name", name, "--limit", str(limit), "--type", "process"]
        return self.start(name, *PREFECT, "worker", "start", *options, **more)

    def call(self, *command: str, **more: str) -> str:
        """A command to its end; its output."""
        done = subprocess.run(
            command, cwd=ROOT, env=self.environment | more, capture_output=True, text=True, timeout=600
        )
        assert done.returncode == 0, done.stdout[-3000:] + done.stderr[-3000:]
        return done.stdout

    def api(self, route: str, body: Any = None, method: str = "POST") -> Any:
        """As Prefect's own client: 503 is a database that is busy just now."""

        def answered() -> httpx.Response | None:
            reply = httpx.request(method, f"{self.url}{route}", json=body, timeout=60)
            return None if reply.status_code == 503 else reply

        reply: httpx.Response = wait_for(answered, 120, route)
        assert reply.status_code < 400, f"{route}: {reply.status_code} {reply.text[:2000]}"
        return reply.json() if reply.content else None

    def submit(self, deployment: str, parameters: dict[str, Any], **more: Any) -> str:
        """The id of a run that was made through the API."""
        found = self.api(f"/deployments/name/{deployment}", method="GET")
        made = self.api(f"/deployments/{found['id']}/create_flow_run", {"parameters": parameters, **more})
        return made["id"]

    def run(self, id: str) -> dict[str, Any]:
        return self.api(f"/flow_runs/{id}", method="GET")

    def wait(self, id: str, seconds: float = 400, types: tuple[str, ...] = FINAL) -> dict[str, Any]:
        """The run once its state is one of these types."""
        return wait_for(
            lambda: (found := self.run(id)) and found["state_type"] in types and found, seconds, f"run {id}"
        )

    def cancel(self, id: str) -> None:
        self.api(f"/flow_runs/{id}/set_state", {"state": {"type": "CANCELLING", "name": "Cancelling"}})

    def artifacts(self) -> dict[str, dict[str, Any]]:
        found = self.api("/artifacts/latest/filter", {"limit": 200})
        return {each["key"]: each for each in found if each["key"]}

    def limits(self) -> dict[str, int]:
        """Slots that are taken, by limit."""
        found = self.api("/v2/concurrency_limits/filter", {"limit": 200})
        return {each["name"]: each["active_slots"] for each in found}

    def count_task_runs(self, names: str) -> int:
        """Of all runs whose name has this in it and of their children."""
        return self.api("/task_runs/count", {"flow_runs": {"name": {"like_": names}}})

    def logs(self) -> str:
        return "\n".join(path.read_text(errors="replace") for path in sorted(self.home.glob("*.log")))


@contextmanager
def place(home: Path, database: str | None = None, **more: str) -> Iterator[Place]:
    """`database`: a URL of PostgreSQL; None is SQLite in `home`."""
    port = free_port()
    url = f"http://127.0.0.1:{port}/api"
    environment = os.environ | {
        "PREFECT_HOME": str(home / "prefect"),
        "PREFECT_API_URL": url,
        "PREFECT_SERVER_ANALYTICS_ENABLED": "false",
        "PREFECT_LOGGING_TO_API_BATCH_INTERVAL": "0.5",
        "PREFECT_WORKER_QUERY_SECONDS": "2",
        "PREFECT_SERVER_DATABASE_TIMEOUT": "60",  # SQLite's one writer, on a busy machine
        "DO_NOT_TRACK": "1",
        "NO_PROXY": "127.0.0.1,localhost",
        "PYTHONPATH": str(ROOT),
        "ZEPHYR_GPU_LOCKS": str(home / "gpus"),
    }
    environment.pop("PREFECT_TEST_MODE", None)
    if database:
        environment["PREFECT_API_DATABASE_CONNECTION_URL"] = database
    here = Place(home, url, environment | more)
    try:
        serve(here, port)
        yield here
    finally:
        for process in reversed(here.processes):
            with suppress(subprocess.TimeoutExpired):
                here.stop(process)
        for name in {path.stem for path in home.glob("*.log")}:
            here.kill(name)


def serve(here: Place, port: int) -> "subprocess.Popen[bytes]":
    """The server, once it answers."""
    server = here.start("server", *PREFECT, "server", "start", "--host", "127.0.0.1", "--port", str(port))

    def healthy() -> bool:
        assert server.poll() is None, here.logs()[-3000:]
        with suppress(httpx.HTTPError):
            return httpx.get(f"{here.url}/health", timeout=2).status_code == 200
        return False

    wait_for(healthy, 180, "Prefect server")
    return server


@contextmanager
def postgres(home: Path) -> Iterator[str]:
    """A PostgreSQL of our own; its URL for Prefect."""
    found = [str(path.parent) for path in Path("/usr/lib/postgresql").glob("*/bin/initdb")]
    path = os.pathsep.join([os.environ.get("PATH", ""), *found])
    initdb, server = shutil.which("initdb", path=path), shutil.which("postgres", path=path)
    if not initdb or not server:
        pytest.skip("no PostgreSQL on this machine: initdb and postgres are not found")
    who: dict[str, Any] = {}
    home.mkdir()
    if os.geteuid() == 0:  # it refuses to run as root
        who = {"user": "nobody", "group": "nogroup"}
        shutil.chown(home, "nobody", "nogroup")
        for parent in home.parents:
            if parent.owner() == "root" and parent != Path("/"):
                parent.chmod(parent.stat().st_mode | 0o011)
    port = free_port()
    options = [
        "-D",
        str(home / "data"),
        "-U",
        "zephyr",
        "--auth=trust",
        "--no-sync",
        "-E",
        "UTF8",
        "--locale=C",
    ]
    subprocess.run([initdb, *options], check=True, capture_output=True, cwd=home, **who)
    with (home / "postgres.log").open("wb") as log:
        process = subprocess.Popen(
            [
                server,
                "-D",
                str(home / "data"),
                "-p",
                str(port),
                "-k",
                str(home),
                "-c",
                "listen_addresses=127.0.0.1",
            ],
            stdout=log,
            stderr=log,
            cwd=home,
            **who,
        )
    try:

        def up() -> bool:
            assert process.poll() is None, (home / "postgres.log").read_text()[-2000:]
            with suppress(OSError):
                socket.create_connection(("127.0.0.1", port), 1).close()
                return True
            return False

        wait_for(up, 60, "PostgreSQL")
        time.sleep(1)
        yield f"postgresql+asyncpg://zephyr@127.0.0.1:{port}/postgres"
    finally:
        process.send_signal(signal.SIGINT)
        process.wait(30)


def processes_with(entry: str) -> list[int]:
    """Living processes with this in their environment, however they were started."""
    found = []
    for process in Path("/proc").glob("[0-9]*"):
        with suppress(OSError):
            if entry.encode() in (process / "environ").read_bytes().split(b"\0"):
                found.append(int(process.name))
    return found


def read_json(path: Path) -> Any:
    return json.loads(path.read_text())
