"""One asyncio loop, one lane per model: how many requests are at a model, in which order, and what is asked again.

A lane admits requests by priority (later stages first, so rows that are open get finished), never more than the limit
of each of its model's servers at a time, and not faster than the endpoint's requests and tokens per minute. A limit
follows its server, see `serving.limits`; which of several is asked, `serving.replicas` says. The lane alone retries a
request; what it gives up on is the caller's to drop.
"""

import asyncio
import random
import time
from collections import Counter
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass, field
from functools import partial

from records.schema import Usage
from serving.chat import Chat, Reply, Request
from serving.client import Retry, Transport
from serving.errors import RequestFailed, ServingError, WrongModel
from serving.gate import Gate
from serving.limits import Queue
from serving.purse import Cost, Prices, Purse
from serving.rates import Booking, PerMinute
from serving.replicas import FAILURES, Look, Reach, Replica, Replicas
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


class Lane:
    """The way to one model."""

    def __init__(
        self,
        name: str,
        connect: Callable[[], Awaitable[Transport]] | Sequence[Reach],
        limit: int,
        *,
        requests_per_minute: float | None = None,
        tokens_per_minute: float | None = None,
        recover: Callable[[], Awaitable[None]] | None = None,
        look: Look | None = None,
        pause: float = 0.5,
        copies: bool = False,
    ) -> None:
        """`connect` is called at the first request, so a model nobody asks is never started; or the servers of a model
        that has several, each of which is given up to `limit` requests at a time.

        `look` tells how long the server's own queue is; where there is one, the limit follows it, up to `limit`.
        `recover` is called when the model cannot be reached: it restarts a managed server, or raises `ServingError`.
        `pause`: seconds before the first repeat; doubled for each further one.
        `copies`: a late request may be sent a second time where there is room, see `serving.late`.
        """
        reached = [Reach(name, connect, look)] if callable(connect) else connect
        self.name, self.stats, self._recover, self._pause = name, LaneStats(), recover, pause
        self.replicas = Replicas(
            name, [Replica(one, limit, pause, self._copied if copies else None) for one in reached]
        )
        self._requests = PerMinute(requests_per_minute) if requests_per_minute else None
        self._tokens = PerMinute(tokens_per_minute) if tokens_per_minute else None
        self.suspects: Suspects | None = None
        """Of the managed server behind this lane."""
        self.purse: Purse | None = None
        self.prices = Prices()
        self._letters = 0
        """Of all prompts whose tokens are in the usage."""
        self._busy_since = 0.0

    @property
    def gate(self) -> Gate | Replicas:
        """How many are at the model, wait before it and may be there, all servers together."""
        return self.replicas.all[0].gate if len(self.replicas.all) == 1 else self.replicas

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
        failed: list[Replica] = []
        while True:
            replica, start = await self._enter(request, priority - (0 if first else AGAIN), case, failed)
            cause = ""
            leave = replica.gate.leave
            self._started()
            try:
                return await self._once(replica, request)
            except Retry as why:
                failure, first, cause = why, False, why.cause
            except RequestFailed:
                self.stats.failed += 1
                raise
            except BaseException:  # the run is being stopped, or cannot go on
                leave = replica.gate.leave_later
                raise
            finally:
                if case is not None and self.suspects is not None:
                    self.suspects.came_back(case, start, cause)
                self._ended()
                if cause:
                    self.replicas.failed(replica, cause, request)
                leave()
            self.stats.retries[failure.cause] += 1
            if self._moves(replica, failure, failed):
                tries = max(tries, 1)
                continue
            tries += not failure.shut  # where others get answers, this one waits for its turn
            if self._recover and failure.cause in ("connect", "connection", "timeout"):
                await self._recover()
            if tries >= TRIES or all(one.refusals.silent >= TRIES for one in self.replicas.up()):
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

    def _moves(self, replica: Replica, failure: Retry, failed: list[Replica]) -> bool:
        """Whether a request whose server is gone goes to another one at once. Each is gone but once for a request."""
        if failure.cause not in FAILURES:
            return False
        others = [one for one in self.replicas.up() if one is not replica and one not in failed]
        failed[:] = [*failed, replica] if others else []
        return bool(others) and failure.cause in ("connect", "connection")

    async def _enter(
        self, request: Request, priority: float, case: Case | None, failed: Sequence[Replica]
    ) -> tuple[Replica, int]:
        """A place at a server, when it is this request's turn, and the number of a managed server's start.

        Raises:
            RequestFailed: the server died of it.
        """
        while True:
            if case is not None and self.suspects is not None:
                self._judge(case)
            replica = await self.replicas.enter(priority, request.about, failed)
            if case is None or self.suspects is None:
                return replica, 0
            if self.suspects.may_go(case):
                return replica, self.suspects.go(case)
            replica.gate.leave()
            await self.suspects.turn()

    def _judge(self, case: Case) -> None:
        assert self.suspects is not None
        try:
            self.suspects.judge(case)
        except RequestFailed:
            self.stats.failed += 1
            raise

    async def _once(self, replica: Replica, request: Request) -> Reply:
        transport = await replica.open()
        booked = await self._hold_back(replica, request)
        if self.purse is None:
            return await self._send(replica, transport, request, booked)
        most = await self.purse.hold(self.prices.most(request))
        cost = most  # what was lost on the way may have been worked on, and is paid for
        try:
            reply = await self._send(replica, transport, request, booked)
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

    async def _send(
        self, replica: Replica, transport: Transport, request: Request, booked: Booking | None
    ) -> Reply:
        refusals = replica.refusals
        sent = refusals.sent()
        try:
            if replica.seconds is None:
                reply = await transport.ask(request)
            else:
                reply = await replica.seconds.ask(partial(transport.ask, request))
        except Retry as why:
            if why.overload:
                why.shut = refusals.refused(sent, why.after)
                self._correct(booked, 0)
            else:
                refusals.lost(sent)
            raise
        except BaseException:
            refusals.lost(sent)
            raise
        refusals.answered(sent)
        self.replicas.answered(replica)
        usage = reply.usage
        self._letters += _letters(request) if usage.prompt_tokens else 0
        self._correct(booked, usage.prompt_tokens + usage.completion_tokens)
        self.stats.answered += 1
        self.stats.usage += usage
        return reply

    def spend_from(self, purse: Purse) -> None:
        """Send nothing that the purse does not hold."""
        self.purse = purse
        for one in self.replicas.all:
            one.seconds = None

    def feel_its_way(self) -> None:
        """The servers turned out not to tell their queues: only what they refuse says how much they take."""
        for one in self.replicas.all:
            one.feel_its_way()

    async def close(self) -> None:
        await self.replicas.close()

    async def _hold_back(self, replica: Replica, request: Request) -> Booking | None:
        """Wait until the endpoint may be sent this; the tokens it takes at most are booked."""
        if self._requests:
            await self._requests.take(1)
        booked = None
        if self._tokens:
            used = self.stats.usage.prompt_tokens
            per_letter = used / self._letters if self._letters else 1 / LETTERS_PER_TOKEN
            booked = await self._tokens.take(_letters(request) * per_letter + request.max_tokens * request.n)
        while (wait := replica.gate.shut_for) > 0:
            await asyncio.sleep(wait)
        return booked

    def _correct(self, booked: Booking | None, tokens: int) -> None:
        if booked is not None and self._tokens is not None:
            self._tokens.correct(booked, tokens)

    def _copied(self) -> None:
        self.stats.retries["late"] += 1

    def queue(self) -> Queue | None:
        """What the servers last said of their queues, where they do and are asked anything; asks nothing."""
        busy = [one for one in self.replicas.all if one.gate.running]
        found = [queue for one in busy if (queue := one.queue) is not None]
        return Queue(sum(q.running for q in found), sum(q.waiting for q in found)) if found else None

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

    async def address(self, model: str) -> str:
        """Where `model` answers, up to and including /v1; starts it if it is not running.

        Raises:
            WrongModel: it is not reached over HTTP.
        """
        transport = await self.lanes[model].replicas.all[0].open()
        if not (url := getattr(transport, "base_url", "")):
            raise WrongModel(f"{model} is not served over HTTP")
        return url

    @property
    def usage(self) -> Usage:
        return sum((lane.stats.usage for lane in self.lanes.values()), Usage())
