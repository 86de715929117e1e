"""How many requests an endpoint is given at a time: what it refuses lowers it, and vLLM's own queue steers it."""

import asyncio
import time
from collections.abc import Awaitable, Callable
from typing import NamedTuple, Protocol

START = 320
"""Where the limit of a server that is steered by its queue starts: a quarter more than vLLM's usual 256 sequences."""
LOOK = 1.0
"""Seconds between two looks at a server's queue."""
SHORT, LONG = 0.05, 0.3
"""The queue, as a share of what runs: below the first the limit grows, above the second it falls."""


class Adjustable(Protocol):
    """A gate: how many may be in, how many are, how many wait before it."""

    limit: float
    running: int

    @property
    def waiting(self) -> int: ...

    def admit(self) -> None: ...


class Queue(NamedTuple):
    """What a server says of itself."""

    running: float
    waiting: float


class Refusals:
    """Additive increase, multiplicative decrease, on the refusals (429, 503) of an endpoint that says nothing else.

    A refusal now and then is that one request's own matter. Where a twentieth of what may be in flight is refused, the
    endpoint is overloaded: the limit falls, and nothing is sent to it for as long as it asked. Answers raise the limit
    again to where it was.
    """

    def __init__(self, gate: Adjustable) -> None:
        self._gate, self._before = gate, 0.0
        self._closed_until = 0.0
        self._streak = 0
        self._refused = self._since = 0

    @property
    def pause(self) -> float:
        """Seconds until the endpoint may be asked again."""
        return self._closed_until - time.monotonic()

    def answered(self) -> None:
        self._streak += 1
        self._since += 1
        if self._since > self._gate.limit:  # what was refused a whole round ago says nothing of now
            self._refused = self._since = 0
        if self._streak >= 25 and self._gate.limit < self._before:
            self._streak = 0
            self._gate.limit = min(self._before, self._gate.limit + 1)
            self._gate.admit()

    def refused(self, after: float | None) -> None:
        """`after`: the seconds the endpoint asked for."""
        self._refused += 1
        now = time.monotonic()
        if self._refused < 0.05 * self._gate.limit and now >= self._closed_until:
            return
        self._streak = self._refused = self._since = 0
        if now >= self._closed_until:  # one lesson per pause, not one per request that was under way
            self._before = max(self._before, self._gate.limit)
            self._gate.limit = max(1.0, self._gate.limit * 0.7)
        self._closed_until = max(self._closed_until, now + min(after if after is not None else 1.0, 120.0))


async def steer(gate: Adjustable, cap: float, look: Callable[[], Awaitable[Queue | None]]) -> None:
    """Keep a little waiting at the server, for ever: an empty queue costs its time, a long one its memory and cache.

    `look` returns None where the server does not say; the limit then stays.
    """
    empty = 0
    while True:
        await asyncio.sleep(LOOK)
        if not gate.running or (queue := await look()) is None:
            continue
        hungry = queue.waiting <= SHORT * queue.running and gate.waiting > 0
        empty = empty + 1 if hungry else 0
        if empty >= 2:
            gate.limit = min(cap, gate.limit * 1.15 + 1)
            gate.admit()
        elif queue.waiting > LONG * queue.running > 0:
            gate.limit = max(1.0, gate.limit * 0.9)
