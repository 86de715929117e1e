"""How far a run is: bars in a terminal, a line every few seconds elsewhere. Always on stderr."""

import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field

from rich.console import Console
from rich.progress import (
    BarColumn,
    MofNCompleteColumn,
    Progress,
    TaskID,
    TextColumn,
    TimeElapsedColumn,
    TimeRemainingColumn,
)

EVERY = 10.0
"""Seconds between lines where there is no terminal."""


@dataclass
class Bar:
    """One stage's count."""

    name: str
    total: int
    done: int = 0
    note: str = ""
    started: float = field(default_factory=time.monotonic)
    said: float = field(default_factory=time.monotonic)


@dataclass
class Display:
    """Several stages at once; `step` is called for every finished row."""

    bars: dict[str, Bar] = field(default_factory=dict)
    rich: Progress | None = None
    tasks: dict[str, TaskID] = field(default_factory=dict)

    def add(self, name: str, total: int, done: int = 0) -> Callable[..., None]:
        """A stage with `total` rows of which `done` were there before; returns its `step`."""
        bar = self.bars.setdefault(name, Bar(name, 0))
        bar.total += total
        bar.done += done
        if self.rich is not None:
            if name not in self.tasks:
                self.tasks[name] = self.rich.add_task(name, total=bar.total, note="")
            self.rich.update(self.tasks[name], total=bar.total, completed=bar.done)

        def step(count: int = 1, note: str = "") -> None:
            bar.done += count
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

    def say(self, text: str) -> None:
        """One line a person should read."""
        if self.rich is not None:
            self.rich.console.print(text, highlight=False)
        else:
            print(text, file=sys.stderr, flush=True)

    def _show(self, bar: Bar) -> None:
        if self.rich is not None:
            self.rich.update(self.tasks[bar.name], completed=bar.done, note=bar.note)
            return
        now = time.monotonic()
        if now - bar.said >= EVERY or bar.done >= bar.total:
            bar.said = now
            note = f"  {bar.note}" if bar.note else ""
            print(
                f"{bar.name:<24} {bar.done}/{bar.total}  {now - bar.started:.0f} s{note}",
                file=sys.stderr,
                flush=True,
            )


_current = Display()


def display() -> Display:
    """The display of this process."""
    return _current


@contextmanager
def shown() -> Iterator[Display]:
    """Bars while the block runs, where stderr is a terminal."""
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
        TimeRemainingColumn(),
        TextColumn("{task.fields[note]}"),
    )
    with Progress(*columns, console=console) as progress:
        _current = Display(rich=progress)
        yield _current
    _current = Display()
