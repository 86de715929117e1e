"""How many are in at a time, and who is next."""

import asyncio
import heapq
import time
from collections import OrderedDict
from collections.abc import Sequence
from typing import NamedTuple

LINGER = 0.5
"""Seconds for which a cancelled request keeps its place: what ended it mostly ends those who wait next."""
SIBLINGS = 4096
"""Of so many keys that came last, the place in the queue is remembered."""


class Waiting(NamedTuple):
    """One before a gate, in the order they are let in."""

    priority: float
    place: int
    """Arrival of the first with this key: what is asked about one prompt is asked together, so that the server still
    has what they share in its prefix cache."""
    arrival: int
    turn: "asyncio.Future[Gate]"
    key: str
    """Of what it belongs to; see `serving.replicas`."""


class Gate:
    """Lets `limit` holders in at a time, the lowest priority number first, first come first served within one, and who
    has the key of one that came before right behind that one.

    One that has room and nobody waiting takes the next from the gates `beside` it.
    """

    def __init__(self, limit: float) -> None:
        self.limit, self.running = float(limit), 0
        self.beside: Sequence[Gate] = ()
        self.closed = False
        """Nobody is let in until it is opened again."""
        self.trial = False
        """One at a time is let in, until it is known to answer."""
        self._waiting: list[Waiting] = []
        self._arrivals = 0
        self._places: OrderedDict[str, int] = OrderedDict()
        self._shut_until = 0.0
        self._opening: asyncio.TimerHandle | None = None

    @property
    def waiting(self) -> int:
        """Those it may let in, who wait here or at a gate beside it."""
        return len(self._waiting) + sum(len(gate._waiting) for gate in self.beside)

    @property
    def load(self) -> float:
        """Of its places, the share that is taken."""
        return self.running / max(self.limit, 1.0)

    async def enter(self, priority: float, key: str = "") -> "Gate":
        """Returns the gate that let it in: this one, or one beside it."""
        if not self._waiting and self.room():
            self.running += 1
            self._place(key)
            return self
        turn: asyncio.Future[Gate] = asyncio.get_running_loop().create_future()
        self.queue(priority, turn, key)
        try:
            return await turn
        except asyncio.CancelledError:
            if turn.done() and not turn.cancelled():
                turn.result().leave_later()
            raise

    def leave(self) -> None:
        self.running -= 1
        self.admit()

    def leave_later(self) -> None:
        """For one who was cancelled: a run that is being stopped should send nothing new meanwhile."""
        asyncio.get_running_loop().call_later(LINGER, self.leave)

    def queue(self, priority: float, turn: "asyncio.Future[Gate]", key: str) -> None:
        self._arrivals += 1
        heapq.heappush(self._waiting, Waiting(priority, self._place(key), self._arrivals, turn, key))
        self.admit()
        for gate in sorted(self.beside, key=lambda gate: gate.load):
            if not self._waiting:
                break
            gate.admit()

    def _place(self, key: str) -> int:
        if not key:
            return self._arrivals
        place = self._places[key] = self._places.pop(key, self._arrivals)
        if len(self._places) > SIBLINGS:
            self._places.popitem(last=False)
        return place

    def empty(self) -> list[Waiting]:
        """Send all who wait away, in their order."""
        found, self._waiting = sorted(self._waiting), []
        return [one for one in found if not one.turn.done()]

    def shut(self, seconds: float) -> None:
        """Let nobody in for so long, at least; those who are in stay."""
        until = time.monotonic() + seconds
        if until > self._shut_until:
            self._shut_until = until
            if self._opening is not None:
                self._opening.cancel()
            self._opening = asyncio.get_running_loop().call_later(seconds, self.admit)

    @property
    def shut_for(self) -> float:
        """Seconds until it opens; 0 or less: it is open."""
        return self._shut_until - time.monotonic()

    def room(self) -> bool:
        if self.closed or self.running >= (1 if self.trial else int(self.limit)):
            return False
        return (
            not self._shut_until or self.shut_for <= 0.001
        )  # a timer may be early by its clock's resolution

    def admit(self) -> None:
        while self.room() and (turn := self._next()) is not None:
            self.running += 1
            turn.set_result(self)

    def _next(self) -> "asyncio.Future[Gate] | None":
        """The one whose turn it is; where nobody waits here, one from where most do."""
        for gate in (self, *sorted(self.beside, key=lambda gate: -len(gate._waiting))):
            while gate._waiting:
                turn = heapq.heappop(gate._waiting).turn
                if not turn.done():
                    return turn
        return None
