"""How long models take for so many tokens, before any is asked. Pure; every constant has its source.

    seconds of a model = start + uncached prompt tokens / P + answer tokens / D + tail
    tail               = longest answer * half a full step = longest * slots / D / 2

P and D are tokens per second of a server that is kept busy. The tail is the last answer's, when hardly anything runs
beside it and a step takes half as long; it is paid once for each time a server drains. A recipe's `throughput` replaces
P, D and the start.
"""

import re
from collections.abc import Mapping
from dataclasses import dataclass

from serving.gpus import need_of
from serving.placement import GENERATE, JUDGE, Machine, Part, Room, Schedule, Stay
from serving.settings import Endpoint, LlamaCpp, Model, Throughput, Vllm
from serving.weights import WHEELS

H100_PREFILL, H100_DECODE, H100_JUDGE = 33_000.0, 12_000.0, 5_000.0
"""Tokens per second of 8e9 parameters in bf16 on one H100. Prefill: 60 % of the bound of 8e14 FLOP/s; published: 27,700
on prompts of 4,000 (SGLang, sglang#1060). Decode: 65 % of the bound at 256 sequences of 600 tokens; published: 12,500
(vLLM). Judges read 2,600 tokens for each answer, so the cache holds fewer sequences."""
SIZE = 8.0
START = 90.0
"""Seconds until a vLLM server of that size answers: 60 to 120 cold, 48 on average in vLLM's post on sleep mode."""
SLOTS = 256
"""Sequences a vLLM server runs together, of which D is."""
CORE_DECODE, CORE_PREFILL, CORE_START = 70.0, 300.0, 3.0
"""Tokens per second and core of 0.135e9 parameters in Q8_0 on llama.cpp: 141 on two cores of an AMD EPYC; prefill is
our choice, low."""
CORE_SIZE = 0.135


@dataclass(frozen=True)
class Work:
    """What is asked of one model in one part."""

    requests: int = 0
    uncached: float = 0.0
    """Prompt tokens."""
    out: float = 0.0
    longest: float = 0.0
    """Tokens of the longest answer."""

    def __add__(self, other: "Work") -> "Work":
        longest = max(self.longest, other.longest)
        return Work(
            self.requests + other.requests, self.uncached + other.uncached, self.out + other.out, longest
        )


def parameters(name: str) -> float | None:
    """Billions, as a model's name says it: `Qwen2.5-7B`, `SmolLM2-135M`; None where it does not, or names experts."""
    name = next((wheel.model for wheel in WHEELS if wheel.package in name), name)
    if re.search(r"\d+x\d+(\.\d+)?b", name, re.IGNORECASE):
        return None
    found = re.findall(r"(?<![\w.])(\d+(?:\.\d+)?)([bm])(?![a-z0-9])", name, re.IGNORECASE)
    return float(found[-1][0]) * (1e-3 if found[-1][1] in "mM" else 1.0) if found else None


def throughput_of(model: Model, machine: Machine, judging: bool = False) -> Throughput | None:
    """The recipe's, else an estimate from the model's size; None where neither is known."""
    if model.throughput is not None:
        return model.throughput
    size = parameters(model.model)
    if size is None:
        return None
    if isinstance(model, Vllm):
        scale = SIZE / size * need_of(model, machine).gpus
        decode = H100_JUDGE if judging else H100_DECODE
        return Throughput(prefill=H100_PREFILL * scale, decode=decode * scale, start=START)
    if isinstance(model, LlamaCpp):
        scale = CORE_SIZE / size * model.threads
        return Throughput(prefill=CORE_PREFILL * scale, decode=CORE_DECODE * scale, start=CORE_START)
    return None


def slots_of(model: Model) -> int:
    """Sequences it runs together."""
    if isinstance(model, LlamaCpp):
        return model.slots
    if isinstance(model, Vllm):
        return int(model.arg("max-num-seqs") or SLOTS)
    servers = len(model.addresses) if isinstance(model, Endpoint) else 1
    return servers * min(SLOTS, model.max_in_flight)


def seconds_of(
    work: Work, speed: Throughput, slots: int, per_minute: float | None = None
) -> tuple[float, float]:
    """Of the work and of the tail after it; the start is apart. `per_minute`: requests the endpoint allows."""
    busy = work.uncached / speed.prefill + work.out / speed.decode
    if per_minute:
        busy = max(busy, 60 * work.requests / per_minute)
    return busy, work.longest * slots / speed.decode / 2


@dataclass(frozen=True)
class Span:
    """When one stay of a model begins and ends, in seconds from the start of the run."""

    stay: Stay
    begins: float
    ends: float


def timeline(
    schedule: Schedule, seconds: Mapping[tuple[str, Part], tuple[float, float]], starts: Mapping[str, float]
) -> list[Span]:
    """The stays of a schedule in time. `seconds`: (model, part) -> busy and tail; a model without any is left out.

    Judges end when the last answer has been written and they have judged it, at the earliest.
    """
    stays = list(schedule.stays)
    placed = {stay.model for stay in stays}
    both: tuple[Part, ...] = (GENERATE, JUDGE)
    parts: dict[str, tuple[Part, ...]] = {
        model: tuple(part for part in both if (model, part) in seconds) for model, _ in seconds
    }
    gangs = [tuple(Stay(model, own) for model, own in parts.items() if model not in placed), *schedule.gangs]
    room = Room(schedule.machine) if schedule.machine and schedule.gangs else None
    spans: list[Span] = []
    running: list[tuple[float, Stay, tuple[int, ...]]] = []
    lasting: list[tuple[float, Stay, tuple[int, ...]]] = []
    now = written = 0.0

    def end_of(stay: Stay, begins: float) -> float:
        busy = [seconds.get((stay.model, part), (0.0, 0.0)) for part in stay.parts]
        tail = max((tail for _, tail in busy), default=0.0)
        alone = begins + sum(work for work, _ in busy) + tail
        judged = any(seconds.get((stay.model, JUDGE), (0.0,))[0] for part in stay.parts if part == JUDGE)
        return max(alone, written + seconds[stay.model, JUDGE][1]) if judged else alone

    def resolve() -> None:
        """Every generator has its time by now."""
        while lasting:
            began, stay, gpus = lasting.pop()
            end = end_of(stay, began)
            spans.append(Span(stay, began, end))
            running.append((end, stay, gpus))

    for gang in gangs:
        if room is not None and gang and gang[0].model in placed:
            needs = {stay.model: schedule.needs[stay.model] for stay in gang}
            while (places := room.take(needs)) is None:
                if not running:
                    resolve()
                running.sort()
                now_, stay, gpus = running.pop(0)
                now = max(now, now_)
                room.give_back(schedule.needs[stay.model], gpus)
        else:
            places = {}
        for stay in gang:
            work = sum(seconds.get((stay.model, part), (0.0, 0.0))[0] for part in stay.parts)
            began = (now if stay.model in placed else 0.0) + (starts.get(stay.model, 0.0) if work else 0.0)
            if GENERATE in stay.parts:
                busy, tail = seconds.get((stay.model, GENERATE), (0.0, 0.0))
                written = max(written, began + busy + tail if busy else 0.0)
            if JUDGE in stay.parts:
                lasting.append((began, stay, (places or {}).get(stay.model, ())))
                continue
            spans.append(Span(stay, began, end_of(stay, began)))
            if stay.model in placed:
                running.append((spans[-1].ends, stay, (places or {})[stay.model]))
        if all(JUDGE in stay.parts and GENERATE not in stay.parts for stay in gang) and gang is not gangs[0]:
            remaining = [s for g in gangs[gangs.index(gang) + 1 :] for s in g]
            if not any(GENERATE in stay.parts for stay in remaining):
                resolve()
    resolve()
    return spans
