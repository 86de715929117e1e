"""What it costs to say how a run is: CPU per minute of watching models, and of drawing the table in a terminal.

python -m benchmarks.status --models 5
"""

import argparse
import asyncio
import io
import time

from rich.console import Console
from rich.progress import BarColumn, Progress, TextColumn

from benchmarks.report import finish, table
from benchmarks.simulator import simulator
from flows.progress import FRAMES, Display
from records.schema import Usage
from serving.client import Transport
from serving.engine import Lane
from serving.limits import Queue
from serving.meter import LOOK, Meter
from serving.models import queue_at

MINUTES = 10
"""Of looks; of frames, one."""


async def never() -> Transport:
    raise AssertionError("nothing is asked here")


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--models", type=int, default=5)
    count = parser.parse_args().models
    meters = {f"model-{i}": Meter(Lane(f"model-{i}", never, 256)) for i in range(count)}

    began = time.process_time()
    for look in range(round(MINUTES * 60 / LOOK)):
        for meter in meters.values():
            meter.lane.stats.sent += 30
            meter.lane.stats.usage += Usage(prompt_tokens=9000, completion_tokens=9000, requests=30)
            meter.look(look * LOOK, Queue(240, 12))
    looks = 1000 * (time.process_time() - began) / MINUTES

    console = Console(file=io.StringIO(), force_terminal=True, width=140)
    columns = TextColumn("{task.description}"), BarColumn(), TextColumn("{task.fields[left]}")
    shown = Display(rich=Progress(*columns, console=console), meters=meters)
    for name in meters:
        shown.add(f"generate {name}", 60_000, name)()
    began = time.process_time()
    for _ in range(round(60 * FRAMES)):
        console.print(shown)
    frames = 1000 * (time.process_time() - began)

    async def read() -> None:
        for _ in range(60):
            await queue_at(server.url)

    with simulator() as server:
        began = time.process_time()
        asyncio.run(read())
        reads = 1000 * (time.process_time() - began) * count

    rows = [
        ("watching", looks, looks / 600),
        ("table in a terminal", frames, frames / 600),
        ("their /metrics, which lanes read to steer by", reads, reads / 600),
    ]
    print(table((f"{count} models", "CPU ms per minute", "% of a core"), rows))
    minute = {"watching_ms": looks, "table_ms": frames, "metrics_ms": reads}
    finish("status", {"models": count, "cpu_per_minute": minute})


if __name__ == "__main__":
    main()
