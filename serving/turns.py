"""Models take turns: who is served now, who is next, and what is made ready for the next while the last one drains."""

import asyncio
import logging
from collections.abc import Awaitable, Callable, Collection, Mapping

from serving.errors import ServingError
from serving.gpus import Place, place_of
from serving.placement import GENERATE, JUDGE, Gang, Machine, Need, Part, Room, Schedule, Stay, schedule

log = logging.getLogger(__name__)

LOOK = 0.5
"""Seconds between two looks whether the served models drain."""


class Turns:
    """Follows a schedule. Without `begin` every model has its turn at once.

    `leave(model, again)` frees a model's GPUs; `again`: it comes back later. `fetch(model)` has the next model's
    weights brought here while those before it run, and `warm(model)` has them read when one of these is `draining`.
    """

    def __init__(
        self,
        needs: Mapping[str, Need] | None = None,
        machine: Machine | None = None,
        leave: Callable[[str, bool], Awaitable[None]] | None = None,
        fetch: Callable[[str], Awaitable[None]] | None = None,
        warm: Callable[[str], Awaitable[None]] | None = None,
        draining: Callable[[str], bool] | None = None,
        hold: Callable[[int], Awaitable[None]] | None = None,
    ) -> None:
        """`hold`: waits until so many of the machine's GPUs are ours alone; called once, before the first is used."""
        self._needs, self._machine = needs or {}, machine
        self._hold, self._holding = hold, asyncio.Lock()
        self._leave, self._fetch, self._warm, self._draining = leave, fetch, warm, draining
        self.schedule = Schedule()
        self.gpus: dict[str, tuple[int, ...]] = {}
        """Of the models that are served now."""
        self._room = Room(machine) if machine else None
        self._queue: list[Gang] = []
        self._up: list[Stay] = []
        self._done: set[tuple[str, Part]] = set()
        self._begun: dict[tuple[str, Part], asyncio.Event] = {}
        self._preparing: asyncio.Task[None] | None = None
        self._prepared: set[str] = set()

    async def begin(self, generators: Collection[str], judges: Collection[str]) -> Schedule:
        """Plan the turns of these models and begin with the first ones; all that was begun before is finished.

        Servers that are still there from before stay if they are wanted at once and where they are.

        Raises:
            WrongModel: a model has no room even alone.
        """
        self.schedule = schedule(self._needs, self._machine, generators, judges)
        if self.schedule.stays:
            await self._have_gpus()
            self.schedule = schedule(self._needs, self._machine, generators, judges)
        self._queue, self._up, self._done = list(self.schedule.gangs), [], set()
        self._begun = {
            (stay.model, part): asyncio.Event() for stay in self.schedule.stays for part in stay.parts
        }
        before, self.gpus = self.gpus, {}
        self._room = Room(self._machine) if self._machine else None
        first = {s.model: self.schedule.needs[s.model] for gang in self.schedule.gangs[:1] for s in gang}
        places = self._room.beside().take(first) if self._room and not self.schedule.by_turns else {}
        for model, gpus in before.items():
            if (places or {}).get(model) != gpus and self._leave is not None:
                await self._leave(model, False)
        self._admit()
        return self.schedule

    async def wait(self, model: str | None, part: Part) -> None:
        """Until the model has its turn for this part of the work; at once where it takes no place."""
        if model is not None and (begun := self._begun.get((model, part))) is not None:
            await begun.wait()

    async def wait_any(self, model: str) -> None:
        """Until the model is served for one part or another."""
        if model in self._needs:
            await self._have_gpus()
        waiting = [self._begun[key] for part in (GENERATE, JUDGE) if (key := (model, part)) in self._begun]
        if not waiting or any(stay.model == model for stay in self._up):
            return
        tasks = [asyncio.ensure_future(event.wait()) for event in waiting if not event.is_set()]
        try:
            if tasks:
                await asyncio.wait(tasks, return_when=asyncio.FIRST_COMPLETED)
        finally:
            for task in tasks:
                task.cancel()

    async def _have_gpus(self) -> None:
        """Hold as many GPUs as these models can use, and count with no others."""
        async with self._holding:
            if self._machine is None or self._hold is None:
                return
            hold, self._hold = self._hold, None
            count = min(self._machine.gpus, sum(need.gpus for need in self._needs.values()))
            await hold(count)
            self._machine = self._machine.model_copy(update={"gpus": count})

    async def finished(self, model: str | None, part: Part) -> None:
        """Nothing of this part will be asked of the model any more: it leaves when that was its last."""
        if model is None or (model, part) not in self._begun:
            return
        self._done.add((model, part))
        for stay in [stay for stay in self._up if stay.model == model and self._over(stay)]:
            await self._end(stay)
        self._admit()

    def place(self, model: str) -> Place | None:
        """Where a model whose turn it is runs; None where nothing was planned."""
        if self._machine is None or (gpus := self.gpus.get(model)) is None:
            return None
        return place_of(self.schedule.needs[model], gpus, self._machine)

    def _over(self, stay: Stay) -> bool:
        return all((stay.model, part) in self._done for part in stay.parts)

    async def _end(self, stay: Stay) -> None:
        if stay not in self._up:
            return
        self._up.remove(stay)
        if not self._queue:  # nobody wants the room; it may be asked again
            return
        if self._leave is not None:
            later = (other for gang in self._queue for other in gang)
            await self._leave(stay.model, any(s.model == stay.model and not self._over(s) for s in later))
        if self._room is not None:
            self._room.give_back(self.schedule.needs[stay.model], self.gpus.pop(stay.model))

    def _admit(self) -> None:
        """Begin with the next stays, in their order, as long as there is room."""
        while self._queue and self._room is not None:
            gang = self._queue[0]
            places = self._room.take({stay.model: self.schedule.needs[stay.model] for stay in gang})
            if places is None:
                break
            self._queue.pop(0)
            for stay in gang:
                if self._over(stay):  # all of it was there already
                    self._room.give_back(self.schedule.needs[stay.model], places[stay.model])
                    continue
                self.gpus[stay.model] = places[stay.model]
                self._up.append(stay)
            for stay in gang:
                for part in stay.parts:
                    self._begun[stay.model, part].set()
        following = next((s.model for gang in self._queue for s in gang if not self._over(s)), None)
        if following is not None and self._fetch is not None and following not in self._prepared:
            self._prepared.add(following)
            self._preparing = asyncio.create_task(self._make_ready(following))

    async def _make_ready(self, model: str) -> None:
        assert self._fetch is not None
        try:
            await self._fetch(model)
        except ServingError as error:  # its own start will say so, when what comes before it is safe
            log.warning("%s will not start: %s", model, error)
            return
        if self._warm is not None and self._draining is not None:
            while not any(self._draining(stay.model) for stay in self._up):
                await asyncio.sleep(LOOK)
            await self._warm(model)

    async def close(self) -> None:
        if self._preparing is not None:
            self._preparing.cancel()
            await asyncio.gather(self._preparing, return_exceptions=True)
