"""The whole life of a server this project starts: started, ready, restarted, ended, and nothing left of it.

    async with ServerProcess("judge", "my-model", command, folder) as base_url:
        ...

Wherever it ends (an error, a cancelled flow, a killed parent) the server and all its children end with it.
"""

import asyncio
import contextlib
import json
import logging
import os
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import aiohttp

from serving import guard
from serving.devices import held_gpus
from serving.errors import ServingError
from serving.orphans import SUFFIX, reap_orphans, write_pid_file

__all__ = ["Progress", "ServerProcess", "reap_orphans"]

log = logging.getLogger(__name__)

GRACE = 15.0
"""Seconds between SIGTERM and SIGKILL; Prefect gives a cancelled flow 30."""

HINTS = (
    ("out of memory", "lower gpu-memory-utilization or max-model-len, or free the card"),
    ("no available memory for the cache", "raise gpu-memory-utilization, or lower max-model-len"),
    (
        "kv cache is needed",
        "lower max-model-len, or raise gpu-memory-utilization (VLLM_CPU_KVCACHE_SPACE on a CPU)",
    ),
    ("gated repo", "accept the model's terms on its page and set HF_TOKEN"),
    ("401 client error", "the model is private or gated: set HF_TOKEN"),
    ("chat template", "give one with chat-template: FILE, or serve an instruct model"),
    ("max_model_len", "set max-model-len to what the model supports"),
    ("address already in use", "another process has the port; run again"),
    ("couldn't bind", "another process has the port; run again"),
    ("no such file", "a file the server needs is not there; check the model's path and the command"),
    (
        "no module named",
        "its interpreter lacks the package; check ZEPHYR_VLLM_PYTHON or `python`",
    ),
)
IN_USE = ("address already in use", "couldn't bind", "errno 98")


class ServerProcess:
    """One server: `command(port)` serves `model` on 127.0.0.1. Its log and its pid file are in `folder`.

    `restart()` keeps `base_url`. `canary`: whether a chat completion must work before it counts as ready.
    """

    def __init__(
        self,
        name: str,
        model: str,
        command: Callable[[int], list[str]],
        folder: Path,
        *,
        env: Mapping[str, str] | None = None,
        start_timeout: float = 120,
        canary: bool = True,
    ) -> None:
        self.name = name
        self.model = model
        self.command = command
        self.folder = folder
        self.env = dict(env or {})
        self.start_timeout = start_timeout
        self.canary = canary
        self.log_path = folder / f"{name}.log"
        self._hold: socket.socket | None = None
        self._guard: subprocess.Popen[bytes] | None = None
        self._log_start = 0
        self._since = 0.0

    @property
    def base_url(self) -> str:
        return f"http://127.0.0.1:{self.port}/v1"

    @property
    def port(self) -> int:
        if self._hold is None:
            raise ServingError(f"{self.name} is not started; call start() first")
        return self._hold.getsockname()[1]

    @property
    def pid(self) -> int | None:
        """Of the group's leader, which is its group's number too."""
        return self._guard.pid if self._guard else None

    @property
    def pid_file(self) -> Path:
        return self.folder / f"{self.name}-{self.pid}{SUFFIX}"

    def alive(self) -> bool:
        """Whether the process runs. Says nothing of whether it makes progress: see `Progress`."""
        return self._guard is not None and self._guard.poll() is None

    async def start(self) -> str:
        """Start, wait until a token comes, give the base URL; or raise `ServingError` and leave nothing."""
        for attempt in range(3):
            try:
                await self._launch()
                await self.wait_ready()
                return self.base_url
            except BaseException as error:
                await self.stop()
                if attempt == 2 or not (isinstance(error, ServingError) and _names(str(error), IN_USE)):
                    raise
                log.info("%s: port taken by another process; trying another", self.name)
        raise AssertionError("unreachable")

    async def restart(self) -> str:
        """Stop whatever is left and start again on the same port."""
        port = self.port if self._hold else 0
        await self.stop()
        self._hold = _hold_port(port)
        return await self.start()

    async def __aenter__(self) -> str:
        return await self.start()

    async def __aexit__(self, *_: object) -> None:
        await self.stop()

    async def _launch(self) -> None:
        if self.alive():
            raise ServingError(f"{self.name} runs already, pid {self.pid}")
        self.folder.mkdir(parents=True, exist_ok=True)
        self._hold = self._hold or _hold_port()
        command = self.command(self.port)
        with self.log_path.open("ab") as out:
            self._log_start = out.tell()
            out.write(f"$ {' '.join(command)}\n".encode())
            out.flush()
            self._since = time.monotonic()
            # -I -S: nothing of our environment can change what the guard runs, and it is up in 10 ms
            self._guard = subprocess.Popen(
                [sys.executable, "-I", "-S", guard.__file__, str(os.getpid()), str(GRACE), *command],
                env=os.environ | self.env,
                stdin=subprocess.DEVNULL,
                stdout=out,
                stderr=subprocess.STDOUT,
                start_new_session=True,
                pass_fds=held_gpus(),  # free when the server has ended, not when we have
            )
        write_pid_file(self.pid_file, self.name, self._guard.pid, self.port, command)

    async def wait_ready(self) -> None:
        """Return when /health is 200, /v1/models has the model and a token came through chat completions."""
        deadline = self._since + self.start_timeout
        timeout = aiohttp.ClientTimeout(total=max(1.0, deadline - time.monotonic()))
        async with aiohttp.ClientSession(f"http://127.0.0.1:{self.port}", timeout=timeout) as http:
            pause = 0.05
            while not await self._healthy(http):
                self._check_running()
                if time.monotonic() > deadline:
                    raise self._failure(f"was not ready after {self.start_timeout:g} s")
                await asyncio.sleep(pause)
                pause = min(1.0, pause * 1.2)
            try:
                await self._probe(http)
            except (aiohttp.ClientError, TimeoutError, ValueError) as error:
                self._check_running()
                raise self._failure(f"took a first request and gave no answer ({error!r})") from error
        self._check_running()  # whoever answered on this port, it was not a process that has ended
        assert self._guard
        # again, now that its workers are there
        write_pid_file(self.pid_file, self.name, self._guard.pid, self.port, self.command(self.port))
        log.info("%s: ready in %.1f s at %s", self.name, time.monotonic() - self._since, self.base_url)

    async def _healthy(self, http: aiohttp.ClientSession) -> bool:
        try:
            async with http.get("/health", timeout=aiohttp.ClientTimeout(total=5)) as reply:
                return reply.status == 200
        except (aiohttp.ClientError, TimeoutError):
            return False

    async def _probe(self, http: aiohttp.ClientSession) -> None:
        async with http.get("/v1/models") as reply:
            names = [model["id"] for model in (await reply.json())["data"]]
        if self.model not in names:
            raise self._failure(f"serves {names!r}, wanted {self.model!r}")
        if not self.canary:
            return
        body: dict[str, Any] = {"model": self.model, "max_tokens": 1, "temperature": 0}
        body["messages"] = [{"role": "user", "content": "Hi"}]
        async with http.post("/v1/chat/completions", json=body) as reply:
            text = await reply.text()
            if reply.status != 200 or not json.loads(text).get("choices"):
                raise self._failure(f"answered a first chat request with {reply.status}: {text[:500]}")

    def _check_running(self) -> None:
        code = self._guard.poll() if self._guard else None
        if code is not None:
            raise self._failure(f"exited with code {code}")

    def _failure(self, what: str) -> ServingError:
        seconds = time.monotonic() - self._since
        tail = self.log_tail()
        hints = dict.fromkeys(hint for pattern, hint in HINTS if pattern in f"{what}\n{tail}".lower())
        advice = "".join(f"\nhint: {hint}" for hint in hints)
        return ServingError(
            f"{self.name} ({self.model}) {what}, {seconds:.0f} s after its start{advice}\n"
            f"log {self.log_path} ends:\n{tail}"
        )

    def log_tail(self, lines: int = 40) -> str:
        """Last lines since the latest start."""
        if not self.log_path.exists():
            return ""
        with self.log_path.open("rb") as file:
            file.seek(max(self._log_start, file.seek(0, os.SEEK_END) - 64_000))
            return "\n".join(file.read().decode(errors="replace").splitlines()[-lines:])

    async def stop(self) -> None:
        """End the group: SIGTERM, after 15 s SIGKILL; return when nothing is left. Twice does no harm."""
        if self._guard:
            # in a thread, so that a caller cancelled here still gets the server ended
            await asyncio.shield(asyncio.to_thread(self._end, self._guard, self.pid_file))
            self._guard = None
        if self._hold:
            self._hold.close()
            self._hold = None

    def _end(self, leader: subprocess.Popen[bytes], pid_file: Path) -> None:
        leader.terminate()  # the guard ends the others
        with contextlib.suppress(subprocess.TimeoutExpired):
            leader.wait(GRACE + 7)
        if left := guard.end(leader.pid, seconds=1):
            raise ServingError(f"{self.name}: processes {left} did not end on SIGKILL and keep their memory")
        leader.wait()
        pid_file.unlink(missing_ok=True)


class Progress:
    """Tells a server that hangs from a busy one: no token for `patience` seconds while work was in flight.

    Time in which nothing was asked does not count, and a long request is not a hang.
    """

    def __init__(self, patience: float) -> None:
        self.patience = patience
        self._tokens: float | None = None
        self._moved = 0.0

    def stuck(self, tokens_total: float, requests_in_flight: int, now: float) -> bool:
        """Feed one look at the server's counters, `now` in seconds of a steady clock."""
        if tokens_total != self._tokens or requests_in_flight == 0:
            self._tokens = tokens_total
            self._moved = now
        return now - self._moved >= self.patience


def _names(text: str, patterns: tuple[str, ...]) -> bool:
    return any(pattern in text.lower() for pattern in patterns)


def _hold_port(port: int = 0) -> socket.socket:
    """A free port of the loopback, held: nobody else is given it, but a server that allows reuse can bind it.

    Two vLLM servers given one port would both bind it and share its requests in silence.
    """
    hold = socket.socket()
    hold.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    hold.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)
    hold.bind(("127.0.0.1", port))
    return hold
