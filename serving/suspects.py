"""Which request ends a server: what was under way when it died is asked again apart, until one stands alone.

Up to `FEW` suspects are asked one by one; more are asked in groups of about the square root of their number, and those
of a group that dies one by one. Nobody else is asked in that time. A request that was alone at a server when it died,
and had been there when it died before, is quarantined. So a run pays three restarts for one such request, at most.
"""

import asyncio
import math
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass

from serving.chat import Request
from serving.errors import RequestFailed

FEW = 8
"""Suspects that are asked one by one at once."""
MOST = 10
"""Requests quarantined in one run for one server; a server that dies of more of them is itself the matter."""
TELLING = ("connection", "timeout", "500", "malformed")
"""How a request ends whose server dies: with its connection, or, where only vLLM's engine died, with a last word."""


@dataclass(eq=False, slots=True)
class Case:
    """One request to a managed server, over all its tries."""

    request: Request
    deaths: int = 0
    """Of servers while it was under way."""
    failed_in: int = -1
    """The start of the server in which it last got no answer."""
    alone: bool = False


class Suspects:
    """The requests of one managed server, over its restarts."""

    def __init__(self, name: str, forgive: Callable[[int], None], say: Callable[[str], None]) -> None:
        """`forgive` is told of deaths that one request explains."""
        self.name, self._forgive, self._say = name, forgive, say
        self.starts = 0
        self._dead: set[int] = set()
        self._suspects: set[Case] = set()
        self._under_way: set[Case] = set()
        self._group = 0
        self._changed = asyncio.Event()
        self.quarantined = 0

    def died(self) -> None:
        """The server of this start is gone, and what was under way with it."""
        self._dead.add(self.starts)
        for case in self._under_way:
            case.failed_in = self.starts
        self.starts += 1

    @contextmanager
    def following(self, request: Request) -> Iterator[Case]:
        """A request, until it is answered or given up."""
        case = Case(request)
        try:
            yield case
        finally:
            if case in self._suspects:
                self._suspects.discard(case)
                self._wake()

    def judge(self, case: Case) -> None:
        """Before a request is asked again: whether it is under suspicion.

        Raises:
            RequestFailed: it is guilty.
        """
        if case.failed_in not in self._dead:
            return
        case.deaths, case.failed_in = case.deaths + 1, -1
        if case.deaths >= 2 and case.alone:
            self.quarantined += 1
            if self.quarantined <= MOST:
                self._forgive(case.deaths)
            shown = " ".join(case.request.messages[-1]["content"].split())[:80]
            what = f"the server died {case.deaths} times while it was under way, the last time alone"
            self._say(f"{self.name}: a request is quarantined, {what}: {shown!r}")
            raise RequestFailed("quarantined", what)
        self._suspects.add(case)
        self._group = 0
        self._wake()

    def may_go(self, case: Case) -> bool:
        """Whether it is this request's turn."""
        if not self._suspects:
            return True
        if case not in self._suspects or not self._under_way <= self._suspects:
            return False
        if any(each.deaths > 1 for each in self._suspects):
            return not self._under_way and case.deaths > 1
        if not self._group:
            count = len(self._suspects)
            self._group = 1 if count <= FEW else math.isqrt(count - 1) + 1
        return len(self._under_way) < self._group

    async def turn(self) -> None:
        """Wait until it may be somebody else's turn."""
        await self._changed.wait()

    def go(self, case: Case) -> int:
        """It is under way from now on; returns the number of the server's start."""
        case.alone = not self._under_way
        for other in self._under_way:
            other.alone = False
        self._under_way.add(case)
        return self.starts

    def came_back(self, case: Case, start: int, cause: str = "") -> None:
        """From the server of that start. `cause`: why without an answer."""
        self._under_way.discard(case)
        if cause in TELLING:
            case.failed_in = start
        if self._suspects:
            self._wake()

    def _wake(self) -> None:
        self._changed.set()
        self._changed = asyncio.Event()
