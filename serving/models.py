"""A recipe's models as lanes. Managed servers start at the first request and end with the block, however it ends."""

import asyncio
import functools
import logging
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import AbstractAsyncContextManager, AsyncExitStack, asynccontextmanager
from pathlib import Path
from typing import Protocol, runtime_checkable

from serving.client import PlainTransport, Transport
from serving.devices import hold_gpus
from serving.endpoints import check_endpoints, endpoint_lane
from serving.engine import Engine, Lane
from serving.errors import RequestFailed, ServingError
from serving.gpus import detect, needs_of, read_ahead
from serving.limits import Queue
from serving.metrics import queue_at, token_count
from serving.placement import Machine
from serving.purse import Prices, Purse
from serving.restrict import Dialect
from serving.settings import Adapter, Classifier, Endpoint, Imported, LlamaCpp, Model, Vllm
from serving.suspects import Suspects
from serving.turns import Turns
from serving.weights import resolve_gguf, resolve_transformers

log = logging.getLogger(__name__)

RESTARTS, WITHIN = 3, 600.0
"""A managed server may be restarted this often within so many seconds; then the run stops."""
LOOK, PATIENCE = 10.0, 180.0
"""Seconds between looks at a server's token counters, and without a token, while asked, until it counts as hung."""


Hold = Callable[[int, str, int | None], AbstractAsyncContextManager[None]]
"""Has so many GPUs to itself, for a reason, of so many that there are: `serving.devices.hold_gpus` is one."""


class Server(Protocol):
    """A managed server; `serving.llamacpp` and `serving.vllm`."""

    async def start(self) -> str:
        """Start, wait until it answers, return its base URL."""
        ...

    async def stop(self) -> None: ...

    def alive(self) -> bool: ...


@runtime_checkable
class Sleeper(Protocol):
    """A server that can free its GPU without ending; `serving.vllm`."""

    async def sleep(self) -> bool: ...

    async def wake(self) -> bool: ...


class Managed:
    """One managed server and everything that waits for it."""

    def __init__(
        self,
        name: str,
        build: Callable[[], Server],
        say: Callable[[str], None],
        patience: float | None = None,
        turn: Callable[[], Awaitable[None]] | None = None,
    ) -> None:
        """`turn`: waited for before the server is started, where models take turns."""
        self.name, self._build, self._say, self._patience = name, build, say, patience or PATIENCE
        self._turn, self._asleep = turn, False
        self._server: Server | None = None
        self.address = ""
        """Of the running server, or of the last one."""
        self._failure: ServingError | None = None
        self._watching: asyncio.Task[None] | None = None
        self._changing = asyncio.Lock()
        self._restarts: list[float] = []
        self.lanes: list[Lane] = []
        self.suspects = Suspects(name, self._explained, say)

    async def url(self) -> str:
        """The running server's address; starts it if it is not running.

        Raises:
            ServingError: it did not start; said again to everybody who asks.
        """
        if self._turn is not None:
            await self._turn()
        async with self._changing:
            if self._failure is not None:
                raise self._failure
            if self._server is not None and self._asleep:
                self._asleep = False
                if not await self._wake(self._server):
                    await self._end()
            if self._server is None:
                began = time.monotonic()
                self._say(f"starting {self.name} …")
                try:
                    server = await asyncio.to_thread(self._build)
                    self.address = await server.start()
                except ServingError as error:
                    self._failure = error
                    raise
                self._server = server
                self._watching = asyncio.create_task(self._watch())
                self._say(f"{self.name} answers after {time.monotonic() - began:.0f} s")
            return self.address

    async def recover(self) -> None:
        """Called by a lane that cannot reach the server: end it if it is dead; the next request starts it again.

        Raises:
            ServingError: it died too often.
        """
        server = self._server
        for _ in range(10):  # a connection may end before its process is seen to have ended
            if server is None or not server.alive():
                break
            await asyncio.sleep(0.1)
        async with self._changing:
            if self._server is not None and not self._server.alive():
                await self._give_up_on("died")
        if self._failure is not None:
            raise self._failure

    async def _watch(self) -> None:
        """End a server that hangs: the requests at it fail, are asked again, and start a new one."""
        from serving.process import Progress

        progress, tokens = Progress(self._patience), 0.0
        while True:
            await asyncio.sleep(min(LOOK, self._patience / 3))
            running = sum(lane.gate.running for lane in self.lanes)
            counted = await token_count(self.address) if running else None
            tokens = tokens if counted is None else counted
            # an answer is a sign of life too: a busy server may let /metrics wait
            answers = sum(lane.stats.answered for lane in self.lanes)
            if progress.stuck(tokens + answers, running, time.monotonic()):
                async with self._changing:
                    await self._give_up_on(f"gave no token for {self._patience:.0f} s")
                return

    async def _give_up_on(self, why: str) -> None:
        now = time.monotonic()
        self._restarts = [at for at in self._restarts if now - at < WITHIN] + [now]
        times = len(self._restarts)
        if times > RESTARTS:
            self._failure = ServingError(f"{self.name} {why}, {times} times in {WITHIN:.0f} s; see its log")
        else:
            self._say(f"{self.name} {why}; starting it again ({times} of {RESTARTS})")
        self.suspects.died()
        await self._end()
        for lane in self.lanes:
            await lane.close()

    def _explained(self, deaths: int) -> None:
        """So many deaths were one request's doing, which is asked no more."""
        del self._restarts[-deaths:]

    async def _end(self) -> None:
        watching, self._watching = self._watching, None
        if watching is not None and watching is not asyncio.current_task():
            watching.cancel()
        server, self._server = self._server, None
        if server is not None:
            await server.stop()

    async def stop(self) -> None:
        async with self._changing:
            await self._end()

    async def leave(self, again: bool) -> None:
        """Free the GPU: sleep where the model comes back and its server can, else stop."""
        for lane in self.lanes:
            await lane.close()
        async with self._changing:
            server = self._server
            if again and isinstance(server, Sleeper) and await server.sleep():
                self._asleep = True
                self._say(f"{self.name} sleeps until its next turn")
            else:
                await self._end()

    async def _wake(self, server: Server) -> bool:
        began = time.monotonic()
        awake = await server.wake() if isinstance(server, Sleeper) else False
        self._say(
            f"{self.name} {f'is awake after {time.monotonic() - began:.0f} s' if awake else 'did not wake'}"
        )
        return awake

    def draining(self) -> bool:
        """Whether everything that was left to be asked is at the server."""
        return any(lane.stats.answered for lane in self.lanes) and not any(
            lane.gate.waiting for lane in self.lanes
        )


def _dialect(model: Model) -> Dialect:
    return "llamacpp" if isinstance(model, LlamaCpp) else "vllm"


@asynccontextmanager
async def open_models(
    models: dict[str, Model],
    folder: Path,
    say: Callable[[str], None] = log.info,
    machine: Machine | None = None,
    purse: Purse | None = None,
    hold: Hold = hold_gpus,
) -> AsyncIterator[Engine]:
    """Lanes to `models`. `folder` takes logs and pid files; servers an earlier run left behind are ended first.

    `machine`: the GPUs that vLLM models share; None takes those that are there. See `serving.turns`.
    `purse`: what may be spent; no late request is then sent twice.
    `hold`: how the GPUs are taken, before the first vLLM server starts and until the last has ended.

    Raises:
        WrongModel: a key's environment variable is not set, or an endpoint cannot be reached.
    """
    from serving.process import reap_orphans

    for name in reap_orphans(folder):
        say(f"ended server {name}, left behind by an earlier run")
    managed: dict[str, Managed] = {}
    lanes: dict[str, Lane] = {}
    adapters: dict[str, dict[str, Path]] = {}
    for name, model in models.items():
        if isinstance(model, Adapter):
            adapters.setdefault(model.served_by, {})[name] = Path(model.model)
    served = " and ".join(name for name, model in models.items() if isinstance(model, Vllm))
    held = AsyncExitStack()

    async def take(count: int, of: int) -> None:
        await held.enter_async_context(hold(count, f"serve {served}", of))

    turns = _turns(models, managed, machine, take)
    for name, model in models.items():
        if isinstance(model, LlamaCpp | Vllm):
            build = _builder(name, model, folder, adapters.get(name, {}), turns)
            managed[name] = Managed(name, build, say, turn=functools.partial(turns.wait_any, name))
    checked = Once(lambda: check_endpoints(models))
    try:
        for name, model in models.items():
            lanes[name] = lane = _lane(name, model, managed, checked)
            if isinstance(model, Endpoint):
                lane.prices = Prices(model.price_in, model.price_out)
            if purse is not None:
                lane.spend_from(purse)
        yield Engine(lanes, turns)
    finally:
        await turns.close()
        for lane in lanes.values():
            await lane.close()
        if purse is not None:
            purse.close()
        try:
            await asyncio.gather(*(server.stop() for server in managed.values()))
        finally:
            await held.aclose()


def _turns(
    models: dict[str, Model],
    managed: dict[str, Managed],
    machine: Machine | None,
    take: Callable[[int, int], Awaitable[None]],
) -> Turns:
    """The turns of the vLLM models among these; all at once where no GPU is known."""
    if not any(isinstance(model, Vllm) for model in models.values()):
        return Turns()
    known = machine or detect()
    if known is None:
        return Turns()
    weights: dict[str, Path] = {}

    async def fetch(name: str) -> None:
        model = models[name]
        weights[name] = await asyncio.to_thread(resolve_transformers, model.model, model.revision)

    async def warm(name: str) -> None:
        await asyncio.to_thread(read_ahead, weights[name])

    async def leave(name: str, again: bool) -> None:
        await managed[name].leave(again)

    return Turns(
        needs_of(models, known),
        known,
        leave,
        fetch,
        warm,
        draining=lambda name: managed[name].draining(),
        hold=lambda count: take(count, known.gpus),
    )


def _builder(
    name: str, model: LlamaCpp | Vllm, folder: Path, adapters: dict[str, Path], turns: Turns
) -> Callable[[], Server]:
    """Resolving weights may take minutes, so it waits until somebody asks."""

    def build() -> Server:
        if isinstance(model, LlamaCpp):
            from serving.llamacpp import LlamaCppServer

            return LlamaCppServer(name, model, resolve_gguf(model.model, model.revision), folder)
        from serving.vllm import VllmServer

        return VllmServer(name, model, folder, adapters, turns.place(name))

    return build


class Once:
    """Runs something at the first call; later callers wait for it and share its error."""

    def __init__(self, what: Callable[[], Awaitable[None]]) -> None:
        self._what = what
        self._running: asyncio.Task[None] | None = None

    async def __call__(self) -> None:
        if self._running is None:
            self._running = asyncio.ensure_future(self._what())
        await asyncio.shield(self._running)


def _lane(name: str, model: Model, managed: dict[str, Managed], checked: Once) -> Lane:
    if isinstance(model, Endpoint):
        return endpoint_lane(name, model, checked)
    if isinstance(model, Imported):
        dataset = model.model

        async def nobody() -> Transport:
            raise RequestFailed(
                "not_imported", f"answers of {name} were imported from {dataset}, none to this"
            )

        return Lane(name, nobody, model.max_in_flight)
    if isinstance(model, Classifier):
        classifier = model

        async def load_classifier() -> Transport:
            from serving.classifier import ClassifierTransport

            await checked()
            return ClassifierTransport(name, classifier)

        return Lane(name, load_classifier, model.max_in_flight)
    owner = managed[model.served_by if isinstance(model, Adapter) else name]

    async def connect_managed() -> Transport:
        await checked()
        return PlainTransport(
            await owner.url(), name, _dialect(model), None, model.timeout, model.max_in_flight
        )

    async def look() -> Queue | None:
        return await queue_at(owner.address) if owner.address else None

    steered = look if _dialect(model) == "vllm" else None
    lane = Lane(
        name, connect_managed, model.max_in_flight, recover=owner.recover, look=steered, copies=bool(steered)
    )
    lane.suspects = owner.suspects
    owner.lanes.append(lane)
    return lane
