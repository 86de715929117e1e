"""How far a run is: bars and a table of its models in a terminal, a line every few seconds elsewhere. On stderr."""

import logging
import os
import sys
import time
from collections import deque
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field

from rich.console import Console, Group
from rich.live import Live
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TaskID, TextColumn, TimeElapsedColumn
from rich.table import Table

from serving.meter import Meter, Now

log = logging.getLogger(__name__)

EVERY = 10.0
"""Seconds between lines where there is no terminal."""
FRAMES = 1.0
"""Times a second that the table is drawn: 7 ms of CPU each."""
RECENT, FEW = 60.0, 10
"""The pace is that of the last minute, and of so many rows at least."""
HEAD = (
    "model", "running", "waiting", "limit", "tokens/s in", "cached", "tokens/s out", "starved", "sent again", "failed",
    "left", "spend",
)  # fmt: skip


@dataclass
class Bar:
    """One stage's count."""

    name: str
    total: int
    done: int = 0
    model: str = ""
    """Who is asked."""
    note: str = ""
    started: float = 0.0
    said: float = 0.0
    asked: int = 0
    """Rows done by this run."""
    marks: deque[tuple[float, int]] = field(default_factory=deque)
    """When so many were asked, a second apart at least; the pace is counted from the first."""

    def count(self, rows: int, there: bool, now: float) -> None:
        self.done += rows
        if there:
            return
        self.asked += rows
        if not self.marks or now - self.marks[-1][0] >= 1:
            self.marks.append((now, self.asked))
        while (
            len(self.marks) > 1 and now - self.marks[1][0] > RECENT and self.asked - self.marks[1][1] >= FEW
        ):
            self.marks.popleft()

    def left(self, now: float) -> float | None:
        """Seconds until its last row at its pace; None before there is one."""
        rows = self.total - self.done
        if rows <= 0:
            return 0.0
        since, before = self.marks[0] if self.marks else (now, 0)
        made = self.asked - before
        return rows * (now - since) / made if made and now - since >= 1 else None


@dataclass
class Display:
    """Several stages at once; `step` is called for every finished row."""

    bars: dict[str, Bar] = field(default_factory=dict)
    rich: Progress | None = None
    tasks: dict[str, TaskID] = field(default_factory=dict)
    meters: Mapping[str, Meter] = field(default_factory=dict)
    """Of the models that are asked now."""
    ends: Mapping[str, float] = field(default_factory=dict)
    """When each model is done, as planned; of a steady clock."""

    def add(self, name: str, total: int, model: str = "") -> Callable[..., None]:
        """A stage with `total` rows more, which ask `model`; returns its `step`."""
        now = time.monotonic()
        bar = self.bars.setdefault(name, Bar(name, 0, model=model, started=now, said=now))
        bar.total += total
        bar.marks.clear()
        if self.rich is not None:
            if name not in self.tasks:
                self.tasks[name] = self.rich.add_task(name, total=bar.total, left="", note="")
            self.rich.update(self.tasks[name], total=bar.total, completed=bar.done)

        def step(count: int = 1, note: str = "", there: bool = False) -> None:
            """`there`: they were there before, which says nothing of the pace."""
            bar.count(count, there, time.monotonic())
            bar.note = note or bar.note
            self._show(bar)

        return step

    def clear(self) -> None:
        """Other work begins."""
        self.bars.clear()
        for task in self.tasks.values():
            if self.rich is not None:
                self.rich.remove_task(task)
        self.tasks.clear()

    @property
    def percent(self) -> float:
        """Of all rows on display, 0 to 100."""
        total = sum(bar.total for bar in self.bars.values())
        return 100.0 * sum(bar.done for bar in self.bars.values()) / total if total else 100.0

    def left(self, model: str | None = None) -> float | None:
        """Seconds until all rows are there, or one model's: at the current pace, as planned before there is one.

        None: some rows have neither.
        """
        now, found = time.monotonic(), [0.0]
        for bar in self.bars.values():
            if model in (None, bar.model):
                seconds = bar.left(now)
                if seconds is None and (planned := self.ends.get(bar.model, 0.0) - now) > 0:
                    seconds = planned
                if seconds is not None:
                    found.append(seconds)
                elif bar.model:
                    return None
        return max(found)

    def rows(self) -> list[dict[str, str]]:
        """The models that were asked anything, one row each."""
        found = []
        for name, meter in self.meters.items():
            if (now := meter.now()) is not None:
                found.append(dict(zip(HEAD, _cells(name, now, clock(self.left(name))), strict=True)))
        return found

    def tell(self, meter: Meter) -> None:
        """How one model is doing, where there is no table that says it."""
        if self.rich is None and (now := meter.now()) is not None:
            self.say(line(meter.lane.name, now, clock(self.left(meter.lane.name))))

    def say(self, text: str) -> None:
        """One line a person should read."""
        if self.rich is not None:
            self.rich.console.print(text, highlight=False)
        elif "PREFECT__FLOW_RUN_ID" in os.environ:  # a worker's: to Prefect's logs, which also print it
            log.info(text)
        else:
            print(text, file=sys.stderr, flush=True)

    def __rich__(self) -> Group:
        assert self.rich is not None
        now = time.monotonic()
        for name, task in self.tasks.items():
            seconds = self.bars[name].left(now)
            self.rich.update(task, left=f"{clock(seconds)} left" if seconds else "")
        rows = self.rows()
        if not rows:
            return Group(self.rich)
        table = Table(
            box=None, pad_edge=False, header_style="dim", caption=f"{clock(self.left())} left in all"
        )
        for i, head in enumerate(HEAD):
            table.add_column(head, justify="right" if i else "left", no_wrap=not i)
        for row in rows:
            table.add_row(*row.values())
        return Group(self.rich, table)

    def _show(self, bar: Bar) -> None:
        if self.rich is not None:
            self.rich.update(self.tasks[bar.name], completed=bar.done, note=bar.note)
            return
        now = time.monotonic()
        if now - bar.said >= EVERY or bar.done >= bar.total:
            bar.said = now
            seconds = bar.left(now)
            left = f", {clock(seconds)} left" if seconds else ""
            note = f"  {bar.note}" if bar.note else ""
            self.say(f"{bar.name:<24} {bar.done}/{bar.total}  {now - bar.started:.0f} s{left}{note}")


def _cells(name: str, now: Now, left: str) -> tuple[str, ...]:
    """In the order of `HEAD`."""
    return (
        name,
        f"{now.running:.0f}",
        f"{now.waiting:.0f}",
        f"{now.limit:.0f}",
        f"{now.tokens_in:,.0f}",
        f"{now.cached:.0%}",
        f"{now.tokens_out:,.0f}",
        f"{now.starved:.0%}",
        f"{now.again}",
        f"{now.failed}",
        left,
        f"{now.spend:.4g}" if now.spend else "–",
    )


def line(name: str, now: Now, left: str) -> str:
    """One model as a line."""
    spend = f", spent {now.spend:.4g}" if now.spend else ""
    return (
        f"{name}: {now.running:.0f} running, {now.waiting:.0f} waiting, limit {now.limit:.0f}, "
        f"{now.tokens_in:,.0f} tokens/s in ({now.cached:.0%} cached), {now.tokens_out:,.0f} out, "
        f"starved {now.starved:.0%}, {now.again} sent again, {now.failed} failed{spend}, {left} left"
    )


def clock(seconds: float | None) -> str:
    """3723 -> 1 h 02 min; 62 -> 1 min; 7.4 -> 7 s."""
    if seconds is None:
        return "?"
    if seconds < 60:
        return f"{seconds:.0f} s"
    minutes = round(seconds / 60)
    return f"{minutes} min" if minutes < 60 else f"{minutes // 60} h {minutes % 60:02d} min"


_current = Display()


def display() -> Display:
    """The display of this process."""
    return _current


@contextmanager
def shown() -> Iterator[Display]:
    """Bars and table while the block runs, where stderr is a terminal."""
    global _current
    console = Console(stderr=True)
    if not console.is_terminal:
        _current = Display()
        yield _current
        return
    columns = (
        TextColumn("{task.description:<24}"),
        BarColumn(bar_width=30),
        MofNCompleteColumn(),
        TimeElapsedColumn(),
        TextColumn("{task.fields[left]}"),
        TextColumn("{task.fields[note]}"),
    )
    _current = Display(rich=Progress(*columns, console=console))
    with Live(_current, console=console, refresh_per_second=FRAMES):
        yield _current
    _current = Display()
