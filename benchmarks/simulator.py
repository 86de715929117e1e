"""A model server that is not there: vLLM's HTTP over continuous batching as arithmetic, with faults on request.

    python -m benchmarks.simulator --speed 1 --a 8 --b 0.03 --slots 256 --faults 0.03

    with simulator(speed=20) as model:      # in a process of its own
        model.url, model.stats()

Answers, lengths, grades and faults are drawn by hash from the request, so every client faces the same work. Costs
about 0.1 ms of CPU per request. Loopback only.
"""

import argparse
import asyncio
import contextlib
import fcntl
import json
import math
import os
import signal
import subprocess
import sys
import urllib.request
from collections import Counter
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field, fields
from hashlib import blake2b
from pathlib import Path
from typing import IO, Any

import orjson

from benchmarks.allowance import Allowance
from benchmarks.batching import Batch, Job, Machine, blocks_of, tokens_of
from benchmarks.faults import Fault, Faults
from benchmarks.replies import Body, Lengths, Said, say, shown

MAX_MODEL_LEN = 32_768
ALLOWED = ("refusal", "requests", "window", "shape", "at_once", "stay_away", "silent")
"""Of `Allowance`, what can be asked for."""


@dataclass(slots=True)
class Asked:
    """One line of the log; times by the machine's monotonic clock."""

    key: str
    """Hash of the request: the same question has the same."""
    came: float
    ended: float | None = None
    """When its answer was sent."""


class Endpoint:
    """One model behind one address."""

    def __init__(
        self,
        name: str,
        machine: Machine,
        lengths: Lengths,
        faults: Faults,
        allowance: Allowance,
        gpus: "Gpus",
        wake_delay: float = 0.0,
        keep_log: bool = False,
    ) -> None:
        self.name, self.machine, self.lengths, self.faults = name, machine, lengths, faults
        self.allowance, self.gpus, self.wake_delay, self.asleep = allowance, gpus, wake_delay, False
        self.log: dict[Job, Asked] | None = {} if keep_log else None
        self.loop = asyncio.get_running_loop()
        self.batch = Batch(machine, self.loop.time())
        self._timer: asyncio.TimerHandle | None = None
        self._here = Counter[int]()
        """Requests that are being answered, by hash."""

    def reset(self) -> None:
        self.batch = Batch(self.machine, self.loop.time())

    def submit(self, connection: "Connection", data: bytes) -> None:
        if self.asleep:  # vLLM would answer nonsense or hang
            connection.send(500, {"error": {"message": "the model sleeps"}})
            return
        at_once = len(self.batch.running) + len(self.batch.waiting)
        wait = self.allowance.admit(self.loop.time(), at_once) if self.allowance.refusal else None
        if wait == math.inf:
            connection.transport.close()
            return
        if wait is not None:
            header = b"" if self.allowance.silent else b"retry-after: %d\r\n" % wait
            connection.send(self.allowance.refusal, {"error": {"message": "slow down"}}, header)
            return
        fault = self.faults.draw(data)
        if fault in ("429", "503"):
            connection.send(int(fault), {"error": {"message": "planted"}}, b"retry-after: 0.2\r\n")
            return
        if fault == "hang":
            return
        body: Body = orjson.loads(data)
        prompt = shown(body)
        if tokens_of(prompt) > MAX_MODEL_LEN:
            connection.send(400, {"error": {"message": f"maximum context length is {MAX_MODEL_LEN} tokens"}})
            return
        said = say(body, prompt, self.lengths)
        job = Job(tokens_of(prompt), [one.tokens for one in said], blocks_of(prompt))
        key = hash(data)
        job.payload = (connection, said, fault, key)
        connection.job = job
        if self.log is not None:
            self.log[job] = Asked(blake2b(data, digest_size=8).hexdigest(), self.loop.time())
        self._here[key] += 1
        self._ended(self.batch.add(job, self.loop.time(), copy=self._here[key] > 1))

    def drop(self, job: Job) -> None:
        """Its connection is gone: like vLLM, go on without it."""
        self._here[job.payload[3]] -= 1
        self._ended(self.batch.drop(job, self.loop.time()))

    def _wake(self) -> None:
        self._ended(self.batch.advance(self.loop.time()))

    def _ended(self, jobs: list[Job]) -> None:
        for job in jobs:
            connection, said, fault, key = job.payload
            self._here[key] -= 1
            if self.log is not None and not connection.transport.is_closing():
                self.log[job].ended = self.loop.time()
            connection.answer(self.name, job, said, fault)
        if self._timer is not None:
            self._timer.cancel()
        end = self.batch.next_end()
        self._timer = None if end is None else self.loop.call_at(end, self._wake)

    def sleep(self, connection: "Connection") -> None:
        """Level 1, once nothing runs: the GPU is free, the prefix cache is gone."""
        if self.batch.running or self.batch.waiting:
            self.loop.call_later(0.05, self.sleep, connection)
            self._wake()
            return
        self.asleep = True
        self.gpus.leave()
        connection.send(200, b"")

    def wake_up(self, connection: "Connection") -> None:
        self.gpus.take()
        self.asleep = False

        def awake() -> None:
            connection.send(200, b"")

        self.loop.call_later(self.wake_delay, awake)

    def metrics(self) -> str:
        """The counters and gauges of vLLM that a client steers by, in vLLM's words."""
        self._wake()
        batch, counts = self.batch, self.batch.counts
        values = {
            "num_requests_running": len(batch.running),
            "num_requests_waiting": len(batch.waiting),
            "prompt_tokens_total": counts.prompt_tokens,
            "generation_tokens_total": counts.generation_tokens,
            "prefix_cache_queries_total": counts.cache_queries,
            "prefix_cache_hits_total": counts.cache_hits,
        }
        return "".join(
            f"# TYPE vllm:{name} {'counter' if name.endswith('_total') else 'gauge'}\n"
            f'vllm:{name}{{engine="0",model_name="{self.name}"}} {float(value)}\n'
            for name, value in values.items()
        )

    def stats(self) -> dict[str, Any]:
        self._wake()
        return self.batch.counts.summary(self.machine.slots) | {
            "running": len(self.batch.running),
            "waiting": len(self.batch.waiting),
            "faults": dict(self.faults.planted),
            "allowance": self.allowance.stats(),
            "area": self.batch.counts.area,
            "first": self.batch.counts.first,
            "last": self.batch.counts.last,
        }


class Connection(asyncio.Protocol):
    """One client's HTTP/1.1 connection, kept alive: one request at a time, bodies with a content-length."""

    transport: asyncio.Transport

    def __init__(self, endpoint: Endpoint) -> None:
        self.endpoint, self._data = endpoint, b""
        self.job: Job | None = None

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self.transport = transport  # type: ignore[assignment]

    def connection_lost(self, exc: Exception | None) -> None:
        if self.job is not None:
            self.endpoint.drop(self.job)

    def data_received(self, data: bytes) -> None:
        self._data = self._data + data if self._data else data
        head, found, rest = self._data.partition(b"\r\n\r\n")
        if not found:
            return
        at = head.lower().find(b"\r\ncontent-length:")
        length = int(head[at + 17 :].split(b"\r\n", 1)[0]) if at >= 0 else 0
        if len(rest) >= length:
            self._data = rest[length:]
            _, path, _ = head.split(b" ", 2)
            self.route(path.decode().split("?")[0], rest[:length])

    def route(self, path: str, body: bytes) -> None:
        end = self.endpoint
        if path == "/v1/chat/completions":
            end.submit(self, body)
        elif path == "/v1/models":
            self.send(200, {"object": "list", "data": [{"id": end.name, "max_model_len": MAX_MODEL_LEN}]})
        elif path == "/metrics":
            self.send(200, end.metrics().encode())
        elif path == "/tokenize":
            asked = orjson.loads(body)
            count = tokens_of(asked["prompt"] if "prompt" in asked else shown(asked))
            self.send(200, {"count": count, "tokens": list(range(count)), "max_model_len": MAX_MODEL_LEN})
        elif path == "/stats":
            self.send(200, end.stats())
        elif path == "/log":
            self.send(200, orjson.dumps(list((end.log or {}).values())))
        elif path == "/reset":
            end.reset()
            self.send(200, {})
        elif path == "/sleep":
            end.sleep(self)
        elif path == "/wake_up":
            end.wake_up(self)
        elif path == "/reset_prefix_cache" or path == "/health":
            self.send(200, b"")
        else:
            self.send(404, {"error": {"message": f"no route {path}"}})

    def answer(self, model: str, job: Job, said: list[Said], fault: Fault | None) -> None:
        self.job = None
        if fault == "500":
            self.send(500, {"error": {"message": "planted"}})
            return
        data = orjson.dumps(
            {
                "id": "chatcmpl-simulated",
                "object": "chat.completion",
                "model": model,
                "system_fingerprint": "simulator",
                "choices": [
                    {
                        "index": i,
                        "message": {"role": "assistant", "content": content(one, fault), "refusal": None},
                        "logprobs": one.logprobs,
                        "finish_reason": "abort" if fault == "abort" else one.finish_reason,
                    }
                    for i, one in enumerate(said)
                ],
                "usage": {
                    "prompt_tokens": job.prompt,
                    "completion_tokens": sum(job.outputs),
                    "total_tokens": job.prompt + sum(job.outputs),
                    "prompt_tokens_details": {"cached_tokens": job.cached},
                },
            }
        )
        if fault == "reset":
            self.transport.write(b"HTTP/1.1 200 OK\r\ncontent-length: %d\r\n\r\n" % len(data) + data[:20])
            self.transport.close()
            return
        self.send(
            200,
            {"cut": data[: len(data) // 2], "empty": b"", "malformed": b'{"id": 1}'}.get(fault or "", data),
        )

    def send(self, status: int, body: bytes | dict[str, Any], headers: bytes = b"") -> None:
        if self.transport.is_closing():
            return
        data = body if isinstance(body, bytes) else orjson.dumps(body)
        self.transport.write(
            b"HTTP/1.1 %d .\r\ncontent-type: application/json\r\n%scontent-length: %d\r\n\r\n"
            % (status, headers, len(data))
            + data
        )


def content(said: Said, fault: Fault | None) -> str:
    """vLLM's abort is an ordinary reply with a text that breaks off."""
    return said.text[: len(said.text) // 2] if fault == "abort" else said.text


class Gpus:
    """A server's part of "GPUs": a hundred bytes of a lock file each. Awake servers with more than one GPU has are an
    error, as with real ones; the locks fall with the process, however it ends."""

    def __init__(self, paths: Sequence[Path], share: float = 1.0) -> None:
        self.paths, self.parts = paths, math.ceil(100 * share - 1e-6)
        self._held: list[IO[bytes]] = []

    def take(self) -> None:
        """Raises SystemExit: others hold too much."""
        for path in self.paths:
            file = path.open("ab+")
            self._held.append(file)
            found = 0
            for part in range(100):
                if found == self.parts:
                    break
                with contextlib.suppress(OSError):
                    fcntl.lockf(file, fcntl.LOCK_EX | fcntl.LOCK_NB, 1, part)
                    found += 1
            if found < self.parts:
                self.leave()
                raise SystemExit(
                    f"torch.OutOfMemoryError: {path} is held by another server: {self.parts} % wanted, {found} % free"
                )

    def leave(self) -> None:
        while self._held:
            self._held.pop().close()


async def serve(asked: argparse.Namespace, gpus: Gpus) -> None:
    await asyncio.sleep(asked.start_delay)
    endpoint = Endpoint(
        asked.name,
        _of(Machine, asked),
        _of(Lengths, asked),
        Faults(asked.faults, tuple(asked.kinds or ()) or Faults.kinds),
        Allowance(**{name: getattr(asked, f"allow_{name}") for name in ALLOWED}),
        gpus,
        asked.wake_delay,
        bool(asked.keep_log),
    )
    loop = asyncio.get_running_loop()
    server = await loop.create_server(
        lambda: Connection(endpoint), "127.0.0.1", asked.port, backlog=4096, reuse_port=True
    )
    print(server.sockets[0].getsockname()[1], flush=True)
    ended = asyncio.Event()
    loop.add_signal_handler(signal.SIGTERM, ended.set)
    if asked.until_eof:  # the process that started this one is gone
        loop.add_reader(0, lambda: None if os.read(0, 64) else ended.set())
    with contextlib.suppress(TimeoutError):
        await asyncio.wait_for(ended.wait(), asked.life)


def _of(kind: type[Any], asked: argparse.Namespace) -> Any:
    return kind(**{each.name: getattr(asked, each.name) for each in fields(kind)})  # type: ignore[arg-type]


def parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    for kind in (Machine, Lengths):
        for each in fields(kind):
            parser.add_argument(f"--{each.name}", type=type(each.default), default=each.default)
    for name in ALLOWED:
        usual = getattr(Allowance, name)
        parser.add_argument(f"--allow-{name}".replace("_", "-"), type=type(usual), default=usual)
    parser.add_argument("--name", default="simulated", help="the model's name")
    parser.add_argument("--port", type=int, default=0, help="0: a free one, printed first")
    parser.add_argument("--faults", type=float, default=0.0, help="share of requests that fail")
    parser.add_argument("--kinds", nargs="*", help="of faults; all")
    parser.add_argument("--keep-log", type=int, default=0, help="1: every request is noted, see /log")
    parser.add_argument("--start-delay", type=float, default=0.0, help="seconds until it answers")
    parser.add_argument("--gpu", type=Path, nargs="+", default=[], help="lock files that stand for GPUs")
    parser.add_argument("--share", type=float, default=1.0, help="of each of these GPUs")
    parser.add_argument("--wake-delay", type=float, default=0.0, help="seconds until it is awake again")
    parser.add_argument("--life", type=float, default=3600.0, help="seconds until it ends by itself")
    parser.add_argument("--until-eof", action="store_true", help="end when stdin is closed")
    return parser


def main() -> None:
    run(parser().parse_args())


def run(asked: argparse.Namespace) -> None:
    """Serve until the end of its life."""
    gpus = Gpus(asked.gpu, asked.share)
    gpus.take()
    with contextlib.suppress(KeyboardInterrupt):
        try:
            import uvloop  # pyright: ignore[reportMissingImports]  # taken where it is there
        except ImportError:
            asyncio.run(serve(asked, gpus))
        else:
            uvloop.run(serve(asked, gpus))


@dataclass
class Simulated:
    """A simulator in a process of its own."""

    process: subprocess.Popen[bytes]
    url: str
    """Up to and including /v1."""
    settings: dict[str, Any] = field(default_factory=dict)

    def stats(self) -> dict[str, Any]:
        return json.loads(self._get("/stats"))

    def log(self) -> list[Asked]:
        """Every request so far, of a simulator with `keep_log=1`."""
        return [Asked(**line) for line in json.loads(self._get("/log"))]

    def reset(self) -> None:
        self._get("/reset")

    def _get(self, path: str) -> bytes:
        with urllib.request.urlopen(self.url.removesuffix("/v1") + path, timeout=30) as reply:
            return reply.read()


@contextmanager
def simulator(**settings: Any) -> Iterator[Simulated]:
    """A simulator with these options of the command line, ended with the block.

    Raises:
        RuntimeError: it ended before it answered.
    """
    command = [sys.executable, "-m", "benchmarks.simulator", "--until-eof"]
    for name, value in settings.items():
        command += [f"--{name.replace('_', '-')}", *map(str, value if isinstance(value, list) else [value])]
    root = Path(__file__).parent.parent
    process = subprocess.Popen(
        command, cwd=root, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.PIPE
    )
    assert process.stdin and process.stdout and process.stderr
    try:
        line = process.stdout.readline()
        if not line:
            raise RuntimeError(f"the simulator ended: {process.stderr.read().decode().strip()[-300:]}")
        yield Simulated(process, f"http://127.0.0.1:{int(line)}/v1", settings)
    finally:
        process.stdin.close()
        try:
            process.wait(5)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()
        process.stdout.close()
        process.stderr.close()


if __name__ == "__main__":
    main()
