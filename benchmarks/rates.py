"""How near a lane comes to what an endpoint allows, told by nothing but refusals, and whether it is banned for it.

    python -m benchmarks.rates --seconds 60

Each endpoint allows so many requests within a window or at one time, answers 429 or 503 beyond that with the seconds to
stay away, and bans a client that keeps coming. The lane is given no limit but 256 in flight.
"""

import argparse
import asyncio
import contextlib
import json
import sys
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from benchmarks.report import finish, table
from benchmarks.simulator import simulator
from serving.chat import Request
from serving.client import PlainTransport, Transport
from serving.engine import Lane
from serving.errors import RequestFailed, ServingError

IN_FLIGHT = 256


@dataclass(frozen=True)
class Endpoint:
    """An endpoint, and what it allows. Its machine has slots enough and answers in 0.4 s on average."""

    name: str
    allowance: dict[str, Any]
    known: float | None = None
    """Requests per minute, where the recipe says them."""


RATE = {"requests": 200, "window": 10.0}
ENDPOINTS = (
    Endpoint("429, 20/s sliding", {"refusal": 429, **RATE}),
    Endpoint("429, 20/s fixed window", {"refusal": 429, **RATE, "shape": "fixed"}),
    Endpoint("429, 20/s bucket", {"refusal": 429, **RATE, "shape": "bucket"}),
    Endpoint("503, 20/s sliding", {"refusal": 503, **RATE}),
    Endpoint("429, 32 at once", {"refusal": 429, "at_once": 32}),
    Endpoint("503, 32 at once", {"refusal": 503, "at_once": 32}),
    Endpoint("503, 32 at once, no time said", {"refusal": 503, "at_once": 32, "silent": 1}),
    Endpoint("429, 100/s bucket", {"refusal": 429, "requests": 1000, "window": 10.0, "shape": "bucket"}),
    Endpoint("429, 20/s sliding, known", {"refusal": 429, "requests": 1200, "window": 60.0}, known=1200),
)


async def drive(endpoint: Endpoint, seconds: float) -> dict[str, Any]:
    """A lane with more work than the endpoint takes, for so long."""
    options = {f"allow_{name}": value for name, value in endpoint.allowance.items()}
    with simulator(slots=1000, a=8, b=0.0, mean=50, sigma=0.5, **options) as model:

        async def connect() -> Transport:
            return PlainTransport(model.url, "m", "openai", None, 30, IN_FLIGHT)

        lane = Lane(endpoint.name, connect, IN_FLIGHT, requests_per_minute=endpoint.known)
        numbers = iter(range(10**9))

        async def work() -> None:
            for number in numbers:
                message = {"role": "user", "content": f"question {number}"}
                await lane.ask(Request((message,), 1.0, 1.0, 400, seed=number))

        began = time.monotonic()
        failure = None
        try:
            async with asyncio.timeout(seconds):
                async with asyncio.TaskGroup() as group:
                    for _ in range(2 * IN_FLIGHT):
                        group.create_task(work())
        except TimeoutError:
            pass
        except ExceptionGroup as errors:
            failure = next(str(e) for e in errors.exceptions if isinstance(e, RequestFailed | ServingError))
        passed = time.monotonic() - began
        stats = model.stats()
        with contextlib.suppress(Exception):
            await lane.close()
    seen, rule = stats["allowance"], endpoint.allowance
    if "at_once" in rule:
        achieved = stats["area"] / passed / rule["at_once"]
    else:
        achieved = seen["taken"] / (rule["requests"] * passed / rule["window"])
    return {"achieved": achieved, **seen, "seconds": passed, "limit": lane.gate.limit, "failure": failure}


def measure(seconds: float, only: str = "") -> dict[str, dict[str, Any]]:
    """Endpoint -> what share of its allowance was used, and what it thought of the client."""
    found = {}
    for endpoint in ENDPOINTS:
        if only in endpoint.name:
            found[endpoint.name] = asyncio.run(drive(endpoint, seconds))
            print(f"{endpoint.name:<32} {json.dumps(found[endpoint.name])}", file=sys.stderr, flush=True)
    return found


def shown(results: dict[str, dict[str, Any]]) -> str:
    rows = [
        [name, r["achieved"], r["taken"], r["refused"], r["ignored"], "yes" if r["banned"] else "no"]
        for name, r in results.items()
    ]
    return table(("endpoint allows", "of allowed", "taken", "refused", "when told not to", "banned"), rows)


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--seconds", type=float, default=60.0, help="for each endpoint")
    parser.add_argument("--only", default="", help="endpoints whose name holds this")
    parser.add_argument("--out", type=Path, help="write the result here, too")
    asked = parser.parse_args()
    results = measure(asked.seconds, asked.only)
    print(shown(results))
    finish("rates", results, asked.out)


if __name__ == "__main__":
    main()
