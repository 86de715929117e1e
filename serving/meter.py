"""How busy every model is kept, looked at once a second: running, waiting, tokens per second, and how long it starved.

Starved is the time in which a server had nothing waiting and a place free, though a later request shows that there was
more to ask, as a share of the time from the first request to the last. A judge that waits for answers starves too.
vLLM says itself what runs and waits, to the lane that steers by it; of other servers it is what the lane has sent.
Watching five models takes 2.5 ms of CPU a minute and drawing their table in a terminal 0.4 s, on an AMD EPYC:
`python -m benchmarks.status`.
"""

import asyncio
import time
from collections import deque
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from typing import Any, NamedTuple

from serving.engine import Engine, Lane
from serving.limits import Queue

LOOK = 1.0
"""Seconds between two looks."""
SAID = 30.0
"""Seconds between two reports to people, and of what the rates they read are means: tokens count when their answer is
complete, so those of one second say little."""
POINTS = 300
"""Of a series; where there are more, two become one."""

FIELDS = ("seconds", "running", "waiting", "limit", "tokens_in_per_s", "tokens_out_per_s")


class Now(NamedTuple):
    """One model at this moment."""

    running: float
    waiting: float
    """At the server."""
    limit: float
    tokens_in: float
    """Per second, over the last half minute."""
    tokens_out: float
    cached: float
    """Share of the prompts' tokens, so far."""
    starved: float
    """Share of the time, so far."""
    again: int
    """Requests sent again."""
    failed: int
    spend: float
    """In the currency of the endpoint's prices."""


@dataclass
class Meter:
    """One lane's series and its figures so far."""

    lane: Lane
    points: list[tuple[float, ...]] = field(default_factory=list)
    """Of `FIELDS`."""
    idle: float = 0.0
    starved_seconds: float = 0.0
    asked_seconds: float = 0.0
    """From the first request to the last one sent."""
    _began: float | None = None
    _before: float = 0.0
    _sent: int = 0
    _tokens: tuple[int, int] = (0, 0)
    _recent: deque[tuple[float, int, int]] = field(
        default_factory=lambda: deque(maxlen=round(SAID / LOOK) + 1)
    )
    """Seconds and tokens in and out so far."""
    _places: float = 0.0
    """Most that ever ran while others waited: then the server was full."""

    def look(self, now: float, queue: Queue | None) -> None:
        """One look, `now` in seconds of a steady clock; `queue` as the server says it, if it does."""
        stats, gate = self.lane.stats, self.lane.gate
        if self._began is None:
            if not stats.sent:
                return
            self._began = self._before = now
        passed = now - self._before
        running, waiting = queue or (gate.running, 0)
        if waiting:
            self._places = max(self._places, running)
        full = self._places or (float("inf") if queue else gate.limit)
        if not waiting and running < full:
            self.idle += passed
        if stats.sent != self._sent:
            self._sent, self.starved_seconds, self.asked_seconds = stats.sent, self.idle, now - self._began
        tokens = stats.usage.prompt_tokens, stats.usage.completion_tokens
        rates = [
            (new - old) / passed if passed else 0.0 for new, old in zip(tokens, self._tokens, strict=True)
        ]
        self._before, self._tokens = now, tokens
        self._recent.append((now, *tokens))
        self.points.append((now - self._began, running, waiting, gate.limit, *rates))
        if len(self.points) > POINTS:
            pairs = zip(self.points[::2], self.points[1::2], strict=False)
            self.points = [tuple((a + b) / 2 for a, b in zip(*pair, strict=True)) for pair in pairs]

    @property
    def starved(self) -> float:
        """0 to 1."""
        return self.starved_seconds / self.asked_seconds if self.asked_seconds else 0.0

    def figures(self) -> dict[str, Any]:
        stats = self.lane.stats
        seconds, usage = max(stats.busy, 1e-9), stats.usage
        return {
            **usage.model_dump(),
            "sent": stats.sent,
            "failed": stats.failed,
            "retries": dict(stats.retries),
            "busy_seconds": round(stats.busy, 1),
            "tokens_in_per_s": round(usage.prompt_tokens / seconds, 1),
            "tokens_out_per_s": round(usage.completion_tokens / seconds, 1),
            "starved": round(self.starved, 4),
            "limit": int(self.lane.gate.limit),
            "spend": round(self.lane.prices.of(usage).money, 6),
        }

    def now(self) -> Now | None:
        """As of the last look; None before anything was asked."""
        if not self.points:
            return None
        _, running, waiting, limit, _, _ = self.points[-1]
        (since, *before), (until, *tokens) = self._recent[0], self._recent[-1]
        rates = [(b - a) / max(LOOK, until - since) for a, b in zip(before, tokens, strict=True)]
        stats, usage = self.lane.stats, self.lane.stats.usage
        return Now(
            running,
            waiting,
            limit,
            *rates,
            cached=usage.cached_tokens / usage.prompt_tokens if usage.prompt_tokens else 0.0,
            starved=self.starved,
            again=sum(stats.retries.values()),
            failed=stats.failed,
            spend=self.lane.prices.of(usage).money,
        )


@asynccontextmanager
async def watched(engine: Engine, tell: Callable[[Meter], None]) -> AsyncIterator[dict[str, Meter]]:
    """Meters of all lanes while the block runs, by model. Every half minute each that is at work is told."""
    meters = {name: Meter(lane) for name, lane in engine.lanes.items()}

    async def keep_looking() -> None:
        said = time.monotonic()
        while True:
            await asyncio.sleep(LOOK)
            for meter in meters.values():
                meter.look(time.monotonic(), meter.lane.queue())
            if time.monotonic() - said >= SAID:
                said = time.monotonic()
                for meter in meters.values():
                    if meter.points and meter.lane.gate.running:
                        tell(meter)

    looking = asyncio.create_task(keep_looking())
    try:
        yield meters
    finally:
        looking.cancel()
        await asyncio.gather(looking, return_exceptions=True)
        for meter in meters.values():
            if not meter.points:  # it took less than a second
                meter.look(time.monotonic(), None)
