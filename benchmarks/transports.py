"""What a call costs this process: CPU of the plain client and of the OpenAI client, beside that client's own default.

    python -m benchmarks.transports --calls 2000 --at-once 64

The server is the simulator, in a process of its own, as fast as it can be.
"""

import argparse
import asyncio
import time
from collections.abc import Callable
from typing import Any

from benchmarks.report import finish, table
from benchmarks.simulator import simulator
from serving.chat import Request
from serving.client import OpenAITransport, PlainTransport, Transport

TIMEOUT = 60.0


def _own_default(url: str, at_once: int) -> Transport:
    """The OpenAI client with the HTTP client it takes where it is told none."""
    made = OpenAITransport(url, "m", None, TIMEOUT)
    made._client = made._openai.AsyncOpenAI(base_url=url, api_key="none", timeout=TIMEOUT, max_retries=0)
    return made


CLIENTS: dict[str, Callable[[str, int], Transport]] = {
    "plain": lambda url, at_once: PlainTransport(url, "m", "openai", None, TIMEOUT, at_once),
    "openai": lambda url, at_once: OpenAITransport(url, "m", None, TIMEOUT),
    "openai, its own HTTP client": _own_default,
}


async def drive(transport: Transport, calls: int, at_once: int) -> dict[str, float]:
    """Milliseconds of CPU for a call, after a tenth of them that are not counted."""
    numbers = iter(range(calls))
    warm = iter(range(calls, calls + max(at_once, calls // 10)))

    async def work(share: Any) -> None:
        for number in share:
            message = {"role": "user", "content": f"question {number}"}
            await transport.ask(Request((message,), 1.0, 1.0, 400, seed=number))

    await asyncio.gather(*(work(warm) for _ in range(at_once)))
    cpu, wall = time.process_time(), time.monotonic()
    await asyncio.gather(*(work(numbers) for _ in range(at_once)))
    cpu, wall = time.process_time() - cpu, time.monotonic() - wall
    await transport.close()
    return {"cpu_ms": 1000 * cpu / calls, "calls_per_s": calls / wall}


def measure(calls: int, at_once: int) -> dict[str, dict[str, float]]:
    with simulator(slots=10_000, a=0.01, b=0.0, mean=20) as model:
        return {
            name: asyncio.run(drive(make(model.url, at_once), calls, at_once))
            for name, make in CLIENTS.items()
        }


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--calls", type=int, default=2000)
    parser.add_argument("--at-once", type=int, default=64)
    asked = parser.parse_args()
    results = measure(asked.calls, asked.at_once)
    plain = results["plain"]["cpu_ms"]
    rows = [
        [name, each["cpu_ms"], each["cpu_ms"] / plain, each["calls_per_s"]] for name, each in results.items()
    ]
    print(table(("client", "CPU ms per call", "of plain", "calls/s"), rows))
    finish("transports", results)


if __name__ == "__main__":
    main()
