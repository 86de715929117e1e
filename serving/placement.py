"""Which vLLM models are served when, on so many GPUs: all at once where they fit, by turns where they do not. Pure.

A stay is one model on its GPUs from start to end. Stays begin in order, each as soon as there is room, so no GPU waits
for another. Generators come first, each over all its rows, judges last: every model then starts once, which is the
least there can be. The exceptions prove it: of models that both answer and judge, those that have no room beside each
other must come back, for at the end all of them judge what the last one wrote.

Nothing waits for ever: what a stay needs before it can end is written by stays that began before it or begin with it.
"""

from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import combinations
from typing import Literal, NamedTuple

from pydantic import Field

from records.base import Strict
from serving.errors import WrongModel

Part = Literal["generate", "judge"]
GENERATE: Part = "generate"
JUDGE: Part = "judge"

VLLM_SHARE = 0.92
"""Of a GPU's memory, what vLLM takes where it is told nothing (0.32, --gpu-memory-utilization)."""


class Machine(Strict):
    """The GPUs that vLLM models share."""

    gpus: int = Field(ge=1)
    """How many, counted from 0 or along CUDA_VISIBLE_DEVICES."""
    gpu_memory: float = Field(default=80.0, gt=0)
    """GiB of each."""


class Need(NamedTuple):
    """What one model takes while it is served."""

    gpus: int
    memory: float
    """GiB on each of its GPUs."""


class Stay(NamedTuple):
    """One model on its GPUs from start to end."""

    model: str
    parts: tuple[Part, ...]
    """What it does in that time."""


Gang = tuple[Stay, ...]
"""Stays that begin together because each has work from the others."""
Places = dict[str, tuple[int, ...]]
"""Model -> its GPUs."""


class Room:
    """What is free on each GPU."""

    def __init__(self, machine: Machine) -> None:
        self.free = [machine.gpu_memory] * machine.gpus

    def take(self, needs: Mapping[str, Need]) -> Places | None:
        """Places for all of these, or for none. The fullest GPU that has room is taken, the largest model first."""
        free, places = list(self.free), Places()
        for name in sorted(needs, key=lambda name: _size(needs[name]), reverse=True):
            need = needs[name]
            able = sorted((left, gpu) for gpu, left in enumerate(free) if left + 1e-6 >= need.memory)
            if len(able) < need.gpus:
                return None
            places[name] = tuple(sorted(gpu for _, gpu in able[: need.gpus]))
            for gpu in places[name]:
                free[gpu] -= need.memory
        self.free = free
        return places

    def give_back(self, need: Need, gpus: Iterable[int]) -> None:
        for gpu in gpus:
            self.free[gpu] += need.memory

    def beside(self) -> "Room":
        """A copy, to try something."""
        other = object.__new__(Room)
        other.free = list(self.free)
        return other


@dataclass(frozen=True)
class Schedule:
    """The stays of a run, in the order in which they begin."""

    gangs: tuple[Gang, ...] = ()
    """Empty: everything is served whenever it is asked."""
    needs: Mapping[str, Need] = field(default_factory=dict)
    machine: Machine | None = None

    @property
    def stays(self) -> list[Stay]:
        return [stay for gang in self.gangs for stay in gang]

    @property
    def by_turns(self) -> bool:
        """Whether any model waits for another one's place."""
        return len(self.gangs) > 1

    @property
    def switches(self) -> int:
        """Starts beyond the first gang's: how often a server takes the place of another."""
        return sum(len(gang) for gang in self.gangs[1:])

    def together(self, generator: str, judge: str | None) -> bool:
        """Whether the judge is served all the time that the generator is, so answers can be judged as they come."""
        if judge not in self.needs or generator not in self.needs or not self.gangs:
            return True
        own = next(
            gang for gang in self.gangs if any(s.model == generator and GENERATE in s.parts for s in gang)
        )
        return any(stay.model == judge and JUDGE in stay.parts for stay in (*self.gangs[0], *own))

    def text(self) -> list[str]:
        """The turns as people read them."""
        if not self.by_turns or self.machine is None:
            return []
        gpus = f"{self.machine.gpus} GPU{'s' * (self.machine.gpus > 1)} of {self.machine.gpu_memory:g} GiB"
        lines = [f"models take turns on {gpus}, {len(self.stays)} starts; each as soon as there is room:"]
        for i, gang in enumerate(self.gangs, start=1):
            said = [f"{stay.model} ({' and '.join(stay.parts)})" for stay in gang]
            lines.append(f"  {i}. {', '.join(said)}")
        return lines


def schedule(
    needs: Mapping[str, Need],
    machine: Machine | None,
    generators: Collection[str],
    judges: Collection[str],
) -> Schedule:
    """The order of stays with the fewest starts. Names without a need are served elsewhere and take no place.

    Raises:
        WrongModel: a model has no room even alone.
    """
    answer = [name for name in needs if name in generators]
    both = [name for name in answer if name in judges]
    only_judge = [name for name in needs if name in judges and name not in generators]
    used = {name: needs[name] for name in (*answer, *only_judge)}
    if machine is None or not used:
        return Schedule((), used, machine)
    for name, need in used.items():
        if Room(machine).take({name: need}) is None:
            raise WrongModel(
                f"models.{name} needs {need.gpus} GPUs with {need.memory:g} GiB on each, the machine has "
                f"{machine.gpus} with {machine.gpu_memory:g}; lower its parallel sizes, gpu_memory or "
                "gpu-memory-utilization, or correct `machine`"
            )

    def stay(name: str) -> Stay:
        wanted: tuple[Part, ...] = (GENERATE, JUDGE)
        return Stay(
            name, tuple(p for p, names in zip(wanted, (generators, judges), strict=True) if name in names)
        )

    if Room(machine).take(used) is not None:
        return Schedule((tuple(map(stay, used)),), used, machine)
    lasting = _residents(needs, machine, answer, [*only_judge, *both])
    room = Room(machine)
    room.take({name: needs[name] for name in lasting})
    largest = sorted((n for n in answer if n not in lasting), key=lambda n: _size(needs[n]), reverse=True)
    coming_back = [name for name in largest if name in both]
    last = _most(needs, room, coming_back)
    gangs: list[Gang] = [tuple(map(stay, lasting))]
    gangs += [(Stay(name, (GENERATE,)),) for name in largest if name not in both]
    gangs += [(Stay(name, (GENERATE,)),) for name in coming_back if name not in last]
    gangs.append(tuple(map(stay, last)))
    judging = [name for name in (*only_judge, *coming_back) if name not in (*lasting, *last)]
    judging.sort(key=lambda name: _size(needs[name]), reverse=True)
    gangs += [(Stay(name, (JUDGE,)),) for name in judging]
    return Schedule(tuple(gang for gang in gangs if gang), used, machine)


def _residents(
    needs: Mapping[str, Need], machine: Machine, generators: Sequence[str], judges: Sequence[str]
) -> list[str]:
    """Judges that have room beside the generators without keeping one of them waiting: they stay from first to last."""
    found: list[str] = []
    both = [name for name in generators if name in judges]
    lasting = len(_most(needs, Room(machine), both))
    for judge in sorted(judges, key=lambda name: _size(needs[name])):
        trial = [*found, judge]
        others = [name for name in generators if name not in trial]
        room, without = Room(machine), Room(machine)
        without.take({name: needs[name] for name in found})
        if room.take({name: needs[name] for name in trial}) is None:
            continue
        each = all(room.beside().take({name: needs[name]}) is not None for name in others)
        as_many = _at_once(needs, room, others) >= _at_once(needs, without, others)
        kept = sum(name in trial for name in both) + len(_most(needs, room, [n for n in both if n in others]))
        if each and others and as_many and kept >= lasting:
            found = trial
    return found


def _at_once(needs: Mapping[str, Need], room: Room, names: Sequence[str]) -> int:
    """How many of these, the largest first, have room together from the start."""
    room, count = room.beside(), 0
    for name in sorted(names, key=lambda name: _size(needs[name]), reverse=True):
        if room.take({name: needs[name]}) is None:
            break
        count += 1
    return count


def _most(needs: Mapping[str, Need], room: Room, names: Sequence[str]) -> tuple[str, ...]:
    """The most of these that have room at one time; of equally many, the largest."""
    for count in range(len(names), 0, -1):
        for some in combinations(names, count):
            if room.beside().take({name: needs[name] for name in some}) is not None:
                return some
    return ()


def _size(need: Need) -> tuple[int, float]:
    return need.gpus, need.memory
