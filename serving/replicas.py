"""Servers of one and the same model: who is asked what, and what happens when one of them fails.

What is asked about one prompt goes to one replica, whose cache has the prompt already: the one that rendezvous
hashing names, so that a replica that comes or goes moves only its own share. Where that one is full, another with room
takes it. One that fails is asked nothing until it answers again; who waited for it is sent to the others at once.
"""

import asyncio
import hashlib
import logging
import time
from collections.abc import Awaitable, Callable, Collection, Sequence
from dataclasses import dataclass

from serving.client import Transport
from serving.gate import Gate
from serving.late import Seconds
from serving.limits import FIRST, LOOK, START, Queue, Refusals, steer

log = logging.getLogger(__name__)

BACK, RARELY = 1.0, 30.0
"""Seconds until a failed replica is looked at; doubled while it does not answer, up to the second."""
STREAK = 3
"""Requests in a row that end without an answer until a replica counts as failed; at a refused connection, one."""
FAILURES = ("connect", "connection", "timeout", "500", "502", "504")
"""How a request ends where the server is the matter. 429 and 503 say that it lives; `serving.limits` heeds them."""

Look = Callable[[], Awaitable[Queue | None]]


@dataclass(frozen=True)
class Reach:
    """How one server of a model is reached."""

    name: str
    connect: Callable[[], Awaitable[Transport]]
    """Called at the first request."""
    look: Look | None = None
    """Tells how long the server's own queue is; where there is one, the limit follows it."""
    answers: Callable[[], Awaitable[bool]] | None = None
    """Whether it can be asked again, after it failed."""


class Replica:
    """One server, how much it is given at a time, and the connections to it."""

    def __init__(
        self, reach: Reach, limit: int, pause: float, copied: Callable[[], None] | None = None
    ) -> None:
        """`copied`: told of a late request's copy; None sends none."""
        told = reach.look is not None
        self.reach, self._cap, self._pause = reach, limit, pause
        self.gate = Gate(min(limit, START if told else FIRST))
        self.refusals = Refusals(self.gate, pause, 0.0 if told else limit, told)
        self.seconds = Seconds(self.gate, copied) if copied is not None else None
        self.failing: set[int] = set()
        """Requests that ended without an answer since the last answer."""
        self.looked = BACK
        """Seconds until it is looked at, when it fails next."""
        self._said: tuple[float, Queue | None] = (0.0, None)
        self._transport: Transport | None = None
        self._opening = asyncio.Lock()
        self._tending: list[asyncio.Task[None]] = []

    async def open(self) -> Transport:
        if self._transport is None:
            async with self._opening:
                if self._transport is None:
                    self._transport = await self.reach.connect()
                    if self.reach.look is not None:
                        self._tend(steer(self.gate, self._cap, self._ask_queue))
                    if self.seconds is not None:
                        self._tend(self.seconds.watch())
        return self._transport

    async def _ask_queue(self) -> Queue | None:
        assert self.reach.look is not None
        self._said = time.monotonic(), await self.reach.look()
        return self._said[1]

    @property
    def queue(self) -> Queue | None:
        """What the server last said of its queue, two looks ago at most; asks nothing."""
        at, queue = self._said
        return queue if time.monotonic() - at < 2 * LOOK else None

    def _tend(self, work: Awaitable[None]) -> None:
        self._tending.append(asyncio.ensure_future(work))

    async def close(self) -> None:
        for task in self._tending:
            task.cancel()
        self._tending = []
        if self._transport is not None:
            await self._transport.close()
            self._transport = None

    def feel_its_way(self) -> None:
        self.gate.limit = float(min(self._cap, FIRST))
        self.refusals = Refusals(self.gate, self._pause, self._cap, told=False)


class Replicas:
    """The replicas of one model. As a whole they look like one gate."""

    def __init__(self, model: str, replicas: Sequence[Replica]) -> None:
        self.model, self.all = model, list(replicas)
        self._returning: dict[int, asyncio.Task[None]] = {}
        for one in self.all:
            one.gate.beside = [other.gate for other in self.all if other is not one]

    @property
    def limit(self) -> float:
        return sum(one.gate.limit for one in self.all)

    @property
    def running(self) -> int:
        return sum(one.gate.running for one in self.all)

    @property
    def waiting(self) -> int:
        return self.all[0].gate.waiting

    async def enter(self, priority: float, key: str, failed: Collection[Replica] = ()) -> Replica:
        """A place at one of them. `failed`: those that did not answer this request; the others are asked first."""
        gate = await self._home(key, failed).gate.enter(priority, key)
        return self.all[0] if len(self.all) == 1 else next(one for one in self.all if one.gate is gate)

    def _home(self, key: str, failed: Collection[Replica] = ()) -> Replica:
        if len(self.all) == 1:
            return self.all[0]
        up = self.up()
        among = [one for one in up if one not in failed] or up
        if not key:
            return min(among, key=lambda one: one.gate.load)
        return max(among, key=lambda one: hashlib.blake2b(f"{one.reach.name}\n{key}".encode()).digest())

    def up(self) -> list[Replica]:
        return [one for one in self.all if not one.gate.closed]

    def answered(self, replica: Replica) -> None:
        replica.failing.clear()
        if replica.gate.trial:
            replica.gate.trial, replica.looked = False, BACK
            replica.gate.admit()

    def failed(self, replica: Replica, cause: str, request: object) -> None:
        """A request ended there without an answer. The last one that is left is never given up."""
        if cause not in FAILURES or replica.gate.closed or len(self.up()) == 1:
            return
        replica.failing.add(id(request))
        if cause != "connect" and not replica.gate.trial and len(replica.failing) < STREAK:
            return
        log.warning("%s: %s fails (%s); the others take its work", self.model, replica.reach.name, cause)
        replica.gate.closed, replica.gate.trial = True, False
        replica.failing.clear()
        for one in replica.gate.empty():
            self._home(one.key).gate.queue(one.priority, one.turn, one.key)
        self._returning[id(replica)] = asyncio.ensure_future(self._take_back(replica))

    async def _take_back(self, replica: Replica) -> None:
        answers = replica.reach.answers
        while True:
            await asyncio.sleep(replica.looked)
            replica.looked = min(RARELY, 2 * replica.looked)
            if answers is None or await answers():
                break
        log.warning("%s: %s answers again", self.model, replica.reach.name)
        replica.gate.closed, replica.gate.trial = False, True
        replica.gate.admit()

    async def close(self) -> None:
        for task in self._returning.values():
            task.cancel()
        self._returning = {}
        for one in self.all:
            await one.close()
