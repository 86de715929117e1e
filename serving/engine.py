"""One asyncio loop, one lane per model: how many requests are at a model, in which order, and what is asked again.

A lane admits requests by priority (later stages first, so rows that are open get finished), never more than its limit
at a time, and not faster than the endpoint's requests and tokens per minute. An endpoint that says 429 or 503 lowers
the limit; answers raise it again. The lane alone retries a request; what it gives up on is the caller's to drop.
"""

import asyncio
import heapq
import random
import time
from collections import Counter
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field

from records.schema import Usage
from serving.chat import Chat, Reply, Request
from serving.client import Retry, Transport
from serving.errors import RequestFailed

TRIES = 8
"""Times one request is sent before its row is given up. With the pauses between, about two minutes."""


@dataclass
class LaneStats:
    """What a lane did so far; read by the progress display, the summary and the report."""

    usage: Usage = field(default_factory=Usage)
    answered: int = 0
    failed: int = 0
    retries: Counter[str] = field(default_factory=Counter)
    busy: float = 0.0
    """Seconds with at least one request at the model."""


class Gate:
    """Lets `limit` holders in at a time, the lowest priority number first, first come first served within one."""

    def __init__(self, limit: int) -> None:
        self.limit, self.running = float(limit), 0
        self._waiting: list[tuple[int, int, asyncio.Future[None]]] = []
        self._arrivals = 0

    @property
    def waiting(self) -> int:
        return len(self._waiting)

    async def enter(self, priority: int) -> None:
        if self.running < int(self.limit) and not self._waiting:
            self.running += 1
            return
        self._arrivals += 1
        turn: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        heapq.heappush(self._waiting, (priority, self._arrivals, turn))
        self.admit()
        try:
            await turn
        except asyncio.CancelledError:
            if turn.done() and not turn.cancelled():
                self.leave()
            raise

    def leave(self) -> None:
        self.running -= 1
        self.admit()

    def admit(self) -> None:
        while self._waiting and self.running < int(self.limit):
            turn = heapq.heappop(self._waiting)[2]
            if not turn.done():
                self.running += 1
                turn.set_result(None)


class PerMinute:
    """A token bucket: at most `rate` a minute, a sixth of it at once."""

    def __init__(self, rate: float) -> None:
        self.rate = rate / 60
        self.level = self.burst = rate / 6
        self.since = time.monotonic()

    async def take(self, amount: float) -> None:
        now = time.monotonic()
        self.level = min(self.burst, self.level + (now - self.since) * self.rate) - amount
        self.since = now
        if self.level < 0:
            await asyncio.sleep(-self.level / self.rate)


class Lane:
    """The way to one model."""

    def __init__(
        self,
        name: str,
        connect: Callable[[], Awaitable[Transport]],
        limit: int,
        *,
        requests_per_minute: float | None = None,
        tokens_per_minute: float | None = None,
        recover: Callable[[], Awaitable[None]] | None = None,
        pause: float = 0.5,
    ) -> None:
        """`connect` is called at the first request, so a model nobody asks is never started.

        `recover` is called when the model cannot be reached: it restarts a managed server, or raises `ServingError`.
        `pause`: seconds before the first repeat; doubled for each further one.
        """
        self.name, self.gate, self.cap, self.stats = name, Gate(limit), limit, LaneStats()
        self._connect, self._recover, self._pause = connect, recover, pause
        self._requests = PerMinute(requests_per_minute) if requests_per_minute else None
        self._tokens = PerMinute(tokens_per_minute) if tokens_per_minute else None
        self._transport: Transport | None = None
        self._opening = asyncio.Lock()
        self._closed_until = 0.0
        self._busy_since = 0.0
        self._streak = 0

    async def ask(self, request: Request, priority: int = 0) -> Reply:
        """One answer.

        Raises:
            RequestFailed: this request got none; the others may.
            ServingError: the model cannot be asked anything.
        """
        cause = "?"
        for attempt in range(TRIES):
            await self.gate.enter(priority)
            self._started()
            try:
                transport = await self._open()
                await self._hold_back(request)
                reply = await transport.ask(request)
            except Retry as why:
                cause = why.cause
                self.stats.retries[cause] += 1
                self._slow_down(why)
            except RequestFailed:
                self.stats.failed += 1
                raise
            else:
                self._speed_up()
                self.stats.answered += 1
                self.stats.usage += reply.usage
                return reply
            finally:
                self._ended()
                self.gate.leave()
            if self._recover and cause in ("connect", "connection", "timeout"):
                await self._recover()
            if attempt < TRIES - 1:
                await asyncio.sleep(min(30.0, self._pause * 2**attempt) * random.uniform(0.5, 1.0))
        self.stats.failed += 1
        raise RequestFailed("transport_error", f"{self.name}: {TRIES} tries, the last ended with {cause}")

    async def close(self) -> None:
        if self._transport is not None:
            await self._transport.close()
            self._transport = None

    async def _open(self) -> Transport:
        if self._transport is None:
            async with self._opening:
                if self._transport is None:
                    self._transport = await self._connect()
        return self._transport

    async def _hold_back(self, request: Request) -> None:
        wait = self._closed_until - time.monotonic()
        if wait > 0:
            await asyncio.sleep(wait)
        if self._requests:
            await self._requests.take(request.n)
        if self._tokens:
            letters = sum(len(message["content"]) for message in request.messages)
            await self._tokens.take(letters / 4 + request.max_tokens * request.n)

    def _slow_down(self, why: Retry) -> None:
        if not why.overload:
            return
        self._streak = 0
        now = time.monotonic()
        if now >= self._closed_until:  # one lesson per pause, not one per request that was under way
            self.gate.limit = max(1.0, self.gate.limit * 0.7)
        self._closed_until = max(
            self._closed_until, now + min(why.after if why.after is not None else 1.0, 120.0)
        )

    def _speed_up(self) -> None:
        self._streak += 1
        if self._streak >= 25 and self.gate.limit < self.cap:
            self._streak = 0
            self.gate.limit = min(self.cap, self.gate.limit + 1)
            self.gate.admit()

    def _started(self) -> None:
        if self.gate.running == 1:
            self._busy_since = time.monotonic()

    def _ended(self) -> None:
        if self.gate.running == 1:
            self.stats.busy += time.monotonic() - self._busy_since


@dataclass
class Engine:
    """The lanes of a run, by model name."""

    lanes: dict[str, Lane]

    def chat(self, model: str, priority: int = 0) -> Chat:
        """The way to `model`, looked up when it is used: a finished stage needs none."""

        async def ask(request: Request) -> Reply:
            return await self.lanes[model].ask(request, priority)

        return ask

    @property
    def usage(self) -> Usage:
        return sum((lane.stats.usage for lane in self.lanes.values()), Usage())
