"""A second copy of a request that is late: one that hangs should not keep the last shard of a run open for its timeout.

A copy is sent only where it costs nothing but an idle place: nobody waits before the lane, and the server stops an
answer whose connection is closed, as vLLM does. The first answer counts and the other request is ended.
"""

import asyncio
from bisect import bisect_right, insort
from collections import deque
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field
from typing import Protocol

from serving.chat import Reply
from serving.client import Retry
from serving.limits import Adjustable

LOOK = 0.25
"""Seconds between two looks at what is under way."""
LATE = 0.95
"""A request is late when it takes longer than this share of the last answers did, as in The Tail at Scale (2013)."""
SOONEST = 1.0
"""Seconds before which nothing is late."""
KNOWN, LAST = 50, 1000
"""Answers that must have come before anything is called late, and how many of the last ones are looked at."""
SHARE = 0.05
"""Copies at a time, of the lane's limit."""

Send = Callable[[], Awaitable[Reply]]


class Places(Adjustable, Protocol):
    """A gate that is left."""

    def leave(self) -> None: ...


@dataclass(eq=False, slots=True)
class _Open:
    """One request under way."""

    since: float
    send: Send
    first: asyncio.Timeout = field(default_factory=lambda: asyncio.timeout(None))
    second: "asyncio.Task[Reply] | None" = None


class Seconds:
    """The requests of one lane that are under way, and the copies of late ones."""

    def __init__(self, gate: Places, told: Callable[[], None]) -> None:
        """`told` is called for every copy."""
        self._gate, self._told = gate, told
        self._open: dict[_Open, None] = {}
        self._order: deque[float] = deque()
        self._sorted: list[float] = []
        self._copies = 0

    async def ask(self, send: Send) -> Reply:
        """The first of one or two answers. Raises what the request raises when no copy answers either."""
        loop = asyncio.get_running_loop()
        one = _Open(loop.time(), send)
        self._open[one] = None
        try:
            async with one.first:
                reply = await send()
        except TimeoutError:
            if not one.first.expired() or one.second is None:
                raise
            reply = one.second.result()
        except Retry:
            if one.second is None:
                raise
            del self._open[one]  # its copy is waited for now, and ends nothing
            reply = await one.second
        finally:
            self._open.pop(one, None)
            if one.second is not None:
                one.second.cancel()
        self._took(loop.time() - one.since)
        return reply

    async def watch(self) -> None:
        """Send copies of what is late, for ever."""
        while True:
            await asyncio.sleep(LOOK)
            if len(self._order) >= KNOWN and self._room():
                late = max(SOONEST, self._sorted[int(LATE * len(self._sorted))])
                now = asyncio.get_running_loop().time()
                for one in [o for o in self._open if o.second is None and now - o.since > late]:
                    if not self._room():
                        break
                    self._copy(one)

    def _room(self) -> bool:
        gate = self._gate
        few = self._copies < SHARE * gate.limit
        return few and not gate.waiting and gate.running < gate.limit and gate.shut_for <= 0

    def _copy(self, one: _Open) -> None:
        """The copy takes a place of the lane."""
        self._told()
        self._copies += 1
        self._gate.running += 1

        async def send() -> Reply:
            return await one.send()

        def came(copy: "asyncio.Task[Reply]") -> None:
            self._copies -= 1
            self._gate.leave()
            if not copy.cancelled() and copy.exception() is None and one in self._open:
                one.first.reschedule(asyncio.get_running_loop().time())

        one.second = asyncio.ensure_future(send())
        one.second.add_done_callback(came)

    def _took(self, seconds: float) -> None:
        insort(self._sorted, seconds)
        self._order.append(seconds)
        if len(self._order) > LAST:
            del self._sorted[bisect_right(self._sorted, self._order.popleft()) - 1]
