"""One asyncio loop, one lane per model: how many requests are at a model, in which order, and what is asked again.

A lane admits requests by priority (later stages first, so rows that are open get finished), never more than its limit
at a time, and not faster than the endpoint's requests and tokens per minute. The limit follows the endpoint, see
`serving.limits`. The lane alone retries a request; what it gives up on is the caller's to drop.
"""

import asyncio
import heapq
import random
import time
from collections import Counter
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field
from functools import partial

from records.schema import Usage
from serving.chat import Chat, Reply, Request
from serving.client import Retry, Transport
from serving.errors import RequestFailed, ServingError
from serving.late import Seconds
from serving.limits import FIRST, START, Queue, Refusals, steer
from serving.purse import Cost, Prices, Purse
from serving.rates import Booking, PerMinute
from serving.suspects import Case, Suspects
from serving.turns import Turns

TRIES = 8
"""Times one request is sent before its row is given up. With the pauses between, about two minutes."""
AGAIN = 0.5
"""How far a repeat goes before the first tries of its own priority: it has waited already, and rows wait for it."""
BRIEF = ("abort", "malformed")
"""The server answered, only badly: the first repeat needs no pause."""
LETTERS_PER_TOKEN = 4.0
"""Of a prompt, until the endpoint's own counts say better."""


@dataclass
class LaneStats:
    """What a lane did so far; read by the progress display, the summary and the report."""

    usage: Usage = field(default_factory=Usage)
    sent: int = 0
    answered: int = 0
    failed: int = 0
    retries: Counter[str] = field(default_factory=Counter)
    busy: float = 0.0
    """Seconds with at least one request at the model."""


class Gate:
    """Lets `limit` holders in at a time, the lowest priority number first, first come first served within one."""

    def __init__(self, limit: int) -> None:
        self.limit, self.running = float(limit), 0
        self._waiting: list[tuple[float, int, asyncio.Future[None]]] = []
        self._arrivals = 0
        self._shut_until = 0.0
        self._opening: asyncio.TimerHandle | None = None

    @property
    def waiting(self) -> int:
        return len(self._waiting)

    async def enter(self, priority: float) -> None:
        if self.running < int(self.limit) and not self._waiting and self.shut_for <= 0:
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

    def admit(self) -> None:
        if self._shut_until and self.shut_for > 0.001:  # a timer may be early by its clock's resolution
            return
        while self._waiting and self.running < int(self.limit):
            turn = heapq.heappop(self._waiting)[2]
            if not turn.done():
                self.running += 1
                turn.set_result(None)


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
        look: Callable[[], Awaitable[Queue | None]] | None = None,
        pause: float = 0.5,
        copies: bool = False,
    ) -> None:
        """`connect` is called at the first request, so a model nobody asks is never started.

        `look` tells how long the server's own queue is; where there is one, the limit follows it, up to `limit`.
        `recover` is called when the model cannot be reached: it restarts a managed server, or raises `ServingError`.
        `pause`: seconds before the first repeat; doubled for each further one.
        `copies`: a late request may be sent a second time where there is room, see `serving.late`.
        """
        self.name, self.gate, self.stats = name, Gate(min(limit, START if look else FIRST)), LaneStats()
        self._refusals = Refusals(self.gate, pause, 0.0 if look else limit, look is not None)
        self._connect, self._recover, self._pause = connect, recover, pause
        self._look, self._cap = look, limit
        self._seconds = Seconds(self.gate, self._copied) if copies else None
        self._tending: list[asyncio.Task[None]] = []
        self._requests = PerMinute(requests_per_minute) if requests_per_minute else None
        self._tokens = PerMinute(tokens_per_minute) if tokens_per_minute else None
        self.suspects: Suspects | None = None
        """Of the managed server behind this lane."""
        self.purse: Purse | None = None
        self.prices = Prices()
        self._transport: Transport | None = None
        self._opening = asyncio.Lock()
        self._letters = 0
        """Of all prompts whose tokens are in the usage."""
        self._busy_since = 0.0

    async def ask(self, request: Request, priority: int = 0) -> Reply:
        """One answer.

        Raises:
            RequestFailed: this request got none; the others may.
            ServingError: the model cannot be asked anything.
        """
        if self.suspects is None:
            return await self._ask(request, priority)
        with self.suspects.following(request) as case:
            return await self._ask(request, priority, case)

    async def _ask(self, request: Request, priority: float, case: Case | None = None) -> Reply:
        tries, first = 0, True
        while True:
            start, cause = await self._enter(priority - (0 if first else AGAIN), case), ""
            self._started()
            try:
                return await self._once(request)
            except Retry as why:
                failure, first, cause = why, False, why.cause
            except RequestFailed:
                self.stats.failed += 1
                raise
            finally:
                if case is not None and self.suspects is not None:
                    self.suspects.came_back(case, start, cause)
                self._ended()
                self.gate.leave()
            self.stats.retries[failure.cause] += 1
            tries += not failure.shut  # where others get answers, this one waits for its turn
            if self._recover and failure.cause in ("connect", "connection", "timeout"):
                await self._recover()
            if tries >= TRIES or self._refusals.silent >= TRIES:
                break
            if not (failure.shut or (tries == 1 and failure.cause in BRIEF)):
                pause = min(30.0, self._pause * 2 ** (tries - 1)) * random.uniform(0.5, 1.0)
                if failure.after is not None:  # the server knows better, the first time
                    pause = max(pause if tries > 1 else 0.0, failure.after * random.uniform(1.0, 1.2))
                await asyncio.sleep(pause)
        self.stats.failed += 1
        ended = f"{self.name}: {TRIES} tries, the last ended with {failure.cause}"
        if failure.shut and self.gate.waiting:
            raise ServingError(f"{ended}, and nobody else got an answer either; what was answered is kept")
        raise RequestFailed("transport_error", ended)

    async def _enter(self, priority: float, case: Case | None) -> int:
        """Into the gate, when it is this request's turn; the number of the managed server's start.

        Raises:
            RequestFailed: the server died of it.
        """
        while True:
            if case is not None and self.suspects is not None:
                self._judge(case)
            await self.gate.enter(priority)
            if case is None or self.suspects is None:
                return 0
            if self.suspects.may_go(case):
                return self.suspects.go(case)
            self.gate.leave()
            await self.suspects.turn()

    def _judge(self, case: Case) -> None:
        assert self.suspects is not None
        try:
            self.suspects.judge(case)
        except RequestFailed:
            self.stats.failed += 1
            raise

    async def _once(self, request: Request) -> Reply:
        transport = await self._open()
        booked = await self._hold_back(request)
        if self.purse is None:
            return await self._send(transport, request, booked)
        most = await self.purse.hold(self.prices.most(request))
        cost = most  # what was lost on the way may have been worked on, and is paid for
        try:
            reply = await self._send(transport, request, booked)
            cost = self.prices.of(reply.usage)
            return reply
        except Retry as why:
            if why.overload or why.cause == "connect":
                cost = Cost(calls=1)
            raise
        except RequestFailed:
            cost = Cost(calls=1)
            raise
        finally:
            self.purse.settle(most, cost)

    async def _send(self, transport: Transport, request: Request, booked: Booking | None) -> Reply:
        sent = self._refusals.sent()
        try:
            if self._seconds is None:
                reply = await transport.ask(request)
            else:
                reply = await self._seconds.ask(partial(transport.ask, request))
        except Retry as why:
            if why.overload:
                why.shut = self._refusals.refused(sent, why.after)
                self._correct(booked, 0)
            else:
                self._refusals.lost(sent)
            raise
        except BaseException:
            self._refusals.lost(sent)
            raise
        self._refusals.answered(sent)
        usage = reply.usage
        self._letters += _letters(request) if usage.prompt_tokens else 0
        self._correct(booked, usage.prompt_tokens + usage.completion_tokens)
        self.stats.answered += 1
        self.stats.usage += usage
        return reply

    def spend_from(self, purse: Purse) -> None:
        """Send nothing that the purse does not hold."""
        self.purse, self._seconds = purse, None

    def feel_its_way(self) -> None:
        """The server turned out not to tell its queue: only what it refuses says how much it takes."""
        self.gate.limit = float(min(self._cap, FIRST))
        self._refusals = Refusals(self.gate, self._pause, self._cap, told=False)

    async def close(self) -> None:
        for task in self._tending:
            task.cancel()
        self._tending = []
        if self._transport is not None:
            await self._transport.close()
            self._transport = None

    async def _open(self) -> Transport:
        if self._transport is None:
            async with self._opening:
                if self._transport is None:
                    self._transport = await self._connect()
                    if self._look is not None:
                        self._tending.append(asyncio.create_task(steer(self.gate, self._cap, self._look)))
                    if self._seconds is not None:
                        self._tending.append(asyncio.create_task(self._seconds.watch()))
        return self._transport

    async def _hold_back(self, request: Request) -> Booking | None:
        """Wait until the endpoint may be sent this; the tokens it takes at most are booked."""
        if self._requests:
            await self._requests.take(1)
        booked = None
        if self._tokens:
            used = self.stats.usage.prompt_tokens
            per_letter = used / self._letters if self._letters else 1 / LETTERS_PER_TOKEN
            booked = await self._tokens.take(_letters(request) * per_letter + request.max_tokens * request.n)
        while (wait := self.gate.shut_for) > 0:
            await asyncio.sleep(wait)
        return booked

    def _correct(self, booked: Booking | None, tokens: int) -> None:
        if booked is not None and self._tokens is not None:
            self._tokens.correct(booked, tokens)

    def _copied(self) -> None:
        self.stats.retries["late"] += 1

    async def queue(self) -> Queue | None:
        """What the server says of its queue, where it does and is asked anything."""
        return await self._look() if self._look is not None and self.gate.running else None

    def _started(self) -> None:
        self.stats.sent += 1
        if self.gate.running == 1:
            self._busy_since = time.monotonic()

    def _ended(self) -> None:
        if self.gate.running == 1:
            self.stats.busy += time.monotonic() - self._busy_since


def _letters(request: Request) -> int:
    return sum(len(message["content"]) for message in request.messages)


@dataclass
class Engine:
    """The lanes of a run, by model name."""

    lanes: dict[str, Lane]
    turns: Turns = field(default_factory=Turns)
    """Of the models that share GPUs."""

    def chat(self, model: str, priority: int = 0) -> Chat:
        """The way to `model`, looked up when it is used: a finished stage needs none."""

        async def ask(request: Request) -> Reply:
            return await self.lanes[model].ask(request, priority)

        return ask

    @property
    def usage(self) -> Usage:
        return sum((lane.stats.usage for lane in self.lanes.values()), Usage())
