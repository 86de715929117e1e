"""Continuous batching as arithmetic: what a server with slots, prefill and a prefix cache does at which moment.

Time is an argument, so the same code runs behind a live server and, without waiting, under `benchmarks.ideal`. A step
gives every running sequence one token and takes a + b * running milliseconds; admitting a sequence first costs the
prompt tokens its prefix cache does not hold. A sequence's end is known when it is admitted: it is so many steps away.
So work is per request, O(log n), and not per token.
"""

import heapq
from collections import OrderedDict, deque
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

BLOCK = 16
"""Tokens of one block of the prefix cache."""
LETTERS = 4
"""Letters of one token: near enough for English, and no tokenizer is needed."""


@dataclass(frozen=True)
class Machine:
    """What one simulated GPU does. The defaults are near a 7B model in bf16 on one H100."""

    a: float = 8.0
    """Milliseconds of a step that are there whatever runs: reading the weights."""
    b: float = 0.03
    """Milliseconds of a step for each running sequence."""
    prefill: float = 33_000
    """Prompt tokens per second."""
    slots: int = 256
    """Sequences running together: vLLM's max-num-seqs."""
    blocks: int = 25_000
    """Blocks the prefix cache holds; the one not used for longest goes first."""
    speed: float = 1.0
    """Everything this many times faster."""


@dataclass(eq=False, slots=True)
class Job:
    """One request: a prompt and one or more answers of known length."""

    prompt: int
    """Tokens."""
    outputs: Sequence[int]
    """Tokens of each answer."""
    blocks: Sequence[int] = ()
    """The prompt's whole blocks, each hashed with all before it."""
    payload: Any = None
    cached: int = 0
    """Prompt tokens found in the prefix cache."""
    left: int = 0


@dataclass
class Counts:
    """What a batch did so far; times in seconds of its clock."""

    requests: int = 0
    prompt_tokens: int = 0
    generation_tokens: int = 0
    cache_queries: int = 0
    cache_hits: int = 0
    area: float = 0.0
    """Integral of running sequences."""
    idle: float = 0.0
    """Time with a free slot and nobody waiting for it."""
    starved: float = 0.0
    """`idle` until the last arrival: the time in which there was work that nobody had brought yet."""
    first: float | None = None
    last_arrival: float = 0.0
    last: float = 0.0

    def summary(self, slots: int) -> dict[str, float]:
        span = max(1e-9, self.last - (self.first or 0.0))
        asked = max(1e-9, self.last_arrival - (self.first or 0.0))
        return {
            "requests": self.requests,
            "prompt_tokens": self.prompt_tokens,
            "generation_tokens": self.generation_tokens,
            "cache_hits": self.cache_hits,
            "cache_queries": self.cache_queries,
            "span": span,
            "mean_running": self.area / span,
            "utilisation": self.area / span / slots,
            "starved": self.starved / asked,
        }


@dataclass
class Batch:
    """The sequences of one machine. Call `advance` with a time that never goes back."""

    machine: Machine
    now: float = 0.0
    counts: Counts = field(default_factory=Counts)
    waiting: deque[tuple[Job, int]] = field(default_factory=deque)
    running: list[tuple[float, int, Job]] = field(default_factory=list)
    """A heap by the step a sequence ends at."""
    _steps: float = 0.0
    _stall: float = 0.0
    """Seconds of prefill still to be done."""
    _admitted: int = 0
    _cache: OrderedDict[int, None] = field(default_factory=OrderedDict)

    def add(self, job: Job, now: float, copy: bool = False) -> list[Job]:
        """Queue a request; returns what ended before it came. `copy`: of one that is here already, so no new work."""
        done = self.advance(now)
        self.counts.first = now if self.counts.first is None else self.counts.first
        if not copy:
            self.counts.last_arrival, self.counts.starved = now, self.counts.idle
        job.left = len(job.outputs)
        self.waiting.extend((job, i) for i in range(job.left))
        self._admit()
        return done

    def drop(self, job: Job, now: float) -> list[Job]:
        """Stop a request nobody waits for any more; returns what ended before."""
        done = self.advance(now)
        self.waiting = deque(each for each in self.waiting if each[0] is not job)
        self.running = [each for each in self.running if each[2] is not job]
        heapq.heapify(self.running)
        self._admit()
        return done

    def next_end(self) -> float | None:
        """When the next sequence ends, if nothing comes in between."""
        if not self.running:
            return None
        return self.now + self._stall + max(0.0, self.running[0][0] - self._steps) * self._step()

    def advance(self, now: float) -> list[Job]:
        """Let time pass; returns the requests whose last answer ended."""
        done: list[Job] = []
        while (end := self.next_end()) is not None and end <= now:
            self._pass(end)
            self._steps = max(self._steps, self.running[0][0])
            job = heapq.heappop(self.running)[2]
            job.left -= 1
            if not job.left:
                self.counts.requests += 1
                self.counts.generation_tokens += sum(job.outputs)
                self.counts.last = end
                done.append(job)
            self._admit()
        self._pass(now)
        return done

    def _step(self) -> float:
        """Seconds."""
        return (self.machine.a + self.machine.b * len(self.running)) / 1000 / self.machine.speed

    def _pass(self, now: float) -> None:
        passed, self.now = max(0.0, now - self.now), max(now, self.now)
        self.counts.area += passed * len(self.running)
        if not self.waiting and len(self.running) < self.machine.slots and self.counts.first is not None:
            self.counts.idle += passed
        stalled = min(passed, self._stall)
        self._stall -= stalled
        if self.running:
            self._steps += (passed - stalled) / self._step()

    def _admit(self) -> None:
        while self.waiting and len(self.running) < self.machine.slots:
            job, i = self.waiting.popleft()
            cached = self._look_up(job.blocks) * BLOCK
            job.cached = cached if i == 0 else job.cached
            self.counts.prompt_tokens += job.prompt
            self.counts.cache_queries += job.prompt
            self.counts.cache_hits += cached
            self._stall += (job.prompt - cached) / self.machine.prefill / self.machine.speed
            self._admitted += 1
            heapq.heappush(self.running, (self._steps + job.outputs[i], self._admitted, job))

    def _look_up(self, blocks: Sequence[int]) -> int:
        """How many blocks from the start are held; all of them are afterwards."""
        cache, hits, unbroken = self._cache, 0, True
        for block in blocks:
            if block in cache:
                cache.move_to_end(block)
                hits += unbroken
            else:
                unbroken = False
                cache[block] = None
        while len(cache) > self.machine.blocks:
            cache.popitem(last=False)
        return hits


def tokens_of(text: str) -> int:
    return len(text) // LETTERS + 1


def blocks_of(text: str) -> list[int]:
    """A prompt's whole blocks, each hashed with everything before it."""
    size, before, found = BLOCK * LETTERS, 0, []
    for at in range(0, len(text) - size + 1, size):
        before = hash((before, text[at : at + size]))
        found.append(before)
    return found
