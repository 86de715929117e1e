"""How many requests an endpoint is given at a time: what it refuses lowers it, and vLLM's own queue steers it."""

import asyncio
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from typing import NamedTuple, Protocol

FIRST = 32
"""Where the limit of an endpoint that says nothing of itself starts; it doubles until the endpoint refuses."""
START = 320
"""Where the limit of a server that is steered by its queue starts: a quarter more than vLLM's usual 256 sequences."""
LOOK = 1.0
"""Seconds between two looks at a server's queue."""
SHORT, LONG = 0.05, 0.3
"""The queue, as a share of what runs: below the first the limit grows, above the second it falls."""

MEMORY, OFTEN, NEAR = 0.01, 0.05, 8
"""When a refusal is more than chance: as a twentieth of all, one weighing a hundredth, or the second of so many."""


class Adjustable(Protocol):
    """A gate: how many may be in, how many are, how many wait before it."""

    limit: float
    running: int

    @property
    def waiting(self) -> int: ...

    @property
    def shut_for(self) -> float: ...

    def admit(self) -> None: ...

    def shut(self, seconds: float) -> None: ...


class Queue(NamedTuple):
    """What a server says of itself."""

    running: float
    waiting: float


@dataclass(frozen=True, slots=True)
class Sent:
    """One request on its way."""

    number: int
    level: int
    """Requests at the endpoint when it left, itself included."""


class Refusals:
    """Finds out what an endpoint allows from what it refuses (429, 503), and does as it is told.

    Nothing is sent for as long as it asked. Only where the server's own queue steers the limit, a refusal now and then
    is that one request's own matter.

    Where more were at the endpoint than it ever took, what it kept is what it takes at a time: that is the limit, and
    the next attempt at more comes the later the more often the same figure was found. Otherwise it counts by time:
    where it refuses often, the limit falls a little. Answers raise it again, never beyond where it was.
    """

    def __init__(self, gate: Adjustable, pause: float = 0.5, most: float = 0.0, told: bool = False) -> None:
        """`most`: where the limit may rise to, if that is more than where it is.

        `told`: the server's own queue steers the limit too.

        `pause`: seconds to wait for an endpoint that says nothing; doubled while it answers nobody."""
        self._gate, self._pause, self._told = gate, pause, told
        self._sent = self._out = self._proven = 0
        self._refused, self._shut_at = -NEAR, 0
        """Numbers of the last request refused, and of the last one sent before the endpoint was shut."""
        self._share = 0.0
        """Of the last hundred or so requests, those refused."""
        self._before, self._ceiling, self._former = most, 0.0, 0.0
        self._streak, self._rounds = 0, 1
        self.silent = 0
        """Times in a row that the endpoint was shut and, open again, gave no answer."""

    def sent(self) -> Sent:
        self._sent += 1
        self._out += 1
        return Sent(self._sent, self._out)

    def lost(self, sent: Sent) -> None:
        """It came to nothing that tells of a limit."""
        self._out -= 1

    def answered(self, sent: Sent) -> None:
        self._out -= 1
        self._share *= 1 - MEMORY
        if (
            sent.number <= self._shut_at
        ):  # others that left before it were refused: it was not there with all of them
            return
        self._proven = max(self._proven, sent.level)
        gate = self._gate
        if self.silent:  # open again, and what was kept is known
            self.silent = 0
            same = abs(self._ceiling - self._former) <= max(1.0, 0.05 * self._ceiling)
            self._rounds = 1 if not self._ceiling else min(256, 8 * self._rounds) if same else 2
        self._streak += 1
        if gate.limit < self._before and self._streak >= self._rounds * gate.limit:
            self._streak = 0
            if self._proven > 1.05 * self._ceiling + 1:
                self._rounds = 1
            more = gate.limit / 8 if self._shut_at else gate.limit
            gate.limit = min(self._before, gate.limit + max(1.0, more))
            gate.admit()

    def refused(self, sent: Sent, after: float | None) -> bool:
        """Whether it concerns the whole endpoint. `after`: the seconds it asked for."""
        known = sent.number <= self._shut_at
        many = max(sent.level, self._out) > self._proven and not self._told
        self._out -= 1
        self._share += MEMORY * (1 - self._share)
        near, self._refused = sent.number - self._refused <= NEAR, max(self._refused, sent.number)
        if self._told and not (known or near or self._share > OFTEN):
            return False
        if not known:
            self._learn(many)
        elif self._ceiling == self._gate.limit:  # each further one says better what was kept
            self._ceiling = self._gate.limit = max(1.0, min(self._gate.limit, self._out))
        own = self._pause * 2 ** (self.silent - 1) if self.silent > 1 or after is None else 0.0
        self._gate.shut(max(after or 0.0, min(own, 30.0)))
        return True

    def _learn(self, many: bool) -> None:
        gate = self._gate
        self._shut_at, self._streak = self._sent, 0
        self.silent += 1
        self._before = max(self._before, gate.limit)
        self._former = self._ceiling
        if many:
            self._ceiling = gate.limit = max(1.0, min(gate.limit, float(self._out)))
        else:
            self._ceiling, self._proven = 0.0, int(0.9 * self._proven)
            if self._told or self._share > OFTEN:
                gate.limit = max(1.0, 0.9 * gate.limit)


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
