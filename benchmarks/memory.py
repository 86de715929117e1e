"""What a long run holds in memory and on disk, and how soon one that was stopped asks again.

    make bench-memory                       # 20,000 and 100,000 prompts, each answered and judged
    python -m benchmarks.memory --rows 0.1  # a tenth of them

Everything is real but the network: prompts from a file, the stages, the store with its fsyncs; models answer in this
process. Each size runs in a process of its own, so its peak is its own.
"""

import argparse
import asyncio
import json
import shutil
import subprocess
import sys
import tempfile
import time
from contextlib import nullcontext
from pathlib import Path
from typing import Any
from unittest.mock import patch

from benchmarks.clients import measured
from benchmarks.replies import Lengths, say, shown
from benchmarks.report import finish, table
from benchmarks.workload import Load, opened, samplers_of, write_recipe
from serving.chat import Reply, Request
from serving.client import body_of, read_reply
from serving.engine import Engine, Lane

ROOT = Path(__file__).parent.parent
SIZES = (20_000, 100_000)


class Told:
    """A model in this process: the simulator's answers without waiting for them."""

    first: tuple[float, float] | None = None
    """When the first request of all came: by the clock, and in CPU seconds of this process."""

    def __init__(self, name: str) -> None:
        self.name, self.lengths = name, Lengths()

    async def ask(self, request: Request) -> Reply:
        Told.first = Told.first or (time.perf_counter(), time.process_time())
        await asyncio.sleep(0)
        body = body_of(request, self.name, "vllm")
        choices = [
            {"message": {"content": one.text}, "logprobs": one.logprobs, "finish_reason": one.finish_reason}
            for one in say(body, shown(body), self.lengths)
        ]
        return read_reply({"choices": choices, "usage": {"completion_tokens": 1}}, request.n, request.prefix)

    async def close(self) -> None: ...


def lane(name: str, limit: int) -> Lane:
    async def connect() -> Told:
        return Told(name)

    return Lane(name, connect, limit)


async def run_once(recipe: Path) -> dict[str, Any]:
    """Answer and judge what is missing; seconds until the first request, from before the prompts are read."""
    from flows import collect, conduct, tasks
    from flows.inputs import gather_prompts

    run = opened(recipe)
    engine = Engine({name: lane(name, model.max_in_flight) for name, model in run.recipe.models.items()})
    with recipe.with_name("prompts.jsonl").open(
        "rb"
    ) as file:  # never whole: its peak would be taken for the run's
        rows = sum(1 for _ in file)

    async def work() -> dict[str, Any]:
        began = time.perf_counter(), time.process_time()
        prompts, _ = gather_prompts(run)
        answers = await collect.answer_and_judge(run, samplers_of(run), prompts, engine)
        kept = sum(r.answers for own in answers for each in own.judged.values() for r in each.values())
        wall, cpu = (end - start for end, start in zip(Told.first or began, began, strict=True))
        return {"kept": kept, "asked": engine.usage.requests, "first_s": wall, "first_cpu_s": cpu}

    with (
        patch.object(conduct, "generate_shard", tasks.generate_shard.fn),
        patch.object(conduct, "judge_shard", tasks.judge_shard.fn),
        patch.object(collect, "progress_artifact", nullcontext),
    ):
        return await measured(rows, work)


def in_a_process(recipe: Path) -> dict[str, Any]:
    command = [sys.executable, "-m", "benchmarks.memory", "--once", str(recipe)]
    ended = subprocess.run(command, cwd=ROOT, capture_output=True, text=True)
    if ended.returncode:
        raise RuntimeError(ended.stderr.strip()[-2000:])
    return json.loads(ended.stdout.splitlines()[-1])


def stop_before_the_end(runs: Path) -> int:
    """Take away every stage's last shard, as if the run had been killed there; returns how many files."""
    gone = 0
    for stage in ("completions", "judgements"):
        for folder in (runs / "bench" / stage).iterdir():
            last = max(path.stem for path in folder.glob("*.parquet"))
            for path in folder.glob(f"{last}.*"):
                path.unlink()
                gone += 1
    return gone


def measure(sizes: list[int]) -> dict[str, Any]:
    """Peaks of whole runs by size, their slope, and the resumed run of the largest."""
    found: dict[str, Any] = {"sizes": {}}
    for rows in sizes:
        with tempfile.TemporaryDirectory(prefix="bench-") as name:
            load, folder = Load(rows, judged=True), Path(name)
            urls = dict.fromkeys([*load.names, "judge"], "http://127.0.0.1:9/v1")
            recipe = write_recipe(load, urls, folder)
            whole = in_a_process(recipe)
            size = sum(p.stat().st_size for p in (folder / "runs").rglob("*") if p.is_file())
            found["sizes"][rows] = {
                "peak_mb": whole["peak_mb"],
                "disk_bytes_per_row": size / rows,
                "cpu_ms_per_row": whole["cpu_ms_per_row"],
                "rows_per_s": rows / whole["wall_s"],
                "lost": rows - whole["kept"],
            }
            if rows == max(sizes):
                stop_before_the_end(folder / "runs")
                again = in_a_process(recipe)
                lists = again["rows"] - again["asked"] / 2
                found["resume"] = {
                    "finished_rows": lists,
                    "first_request_s": again["first_s"],
                    "first_request_s_per_100k": again["first_s"] / lists * 100_000,
                    "first_request_cpu_s": again["first_cpu_s"],
                    "wall_s": again["wall_s"],
                    "peak_mb": again["peak_mb"],
                }
            shutil.rmtree(folder / "runs")
    low, high = min(sizes), max(sizes)
    peaks = {rows: found["sizes"][rows]["peak_mb"] for rows in (low, high)}
    found["bytes_per_row"] = (peaks[high] - peaks[low]) * 1e6 / (high - low)
    return found


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--rows", type=float, default=1.0, help="times the usual number of rows")
    parser.add_argument("--once", type=Path, metavar="RECIPE", help="run this one and print what it took")
    parser.add_argument("--out", type=Path, help="write the result here, too")
    asked = parser.parse_args()
    if asked.once:
        print(json.dumps(asyncio.run(run_once(asked.once))))
        return
    found = measure([round(rows * asked.rows) for rows in SIZES])
    head = ("rows", "peak MB", "disk B/row", "ms/row", "rows/s", "lost")
    print(table(head, [[rows, *sizes.values()] for rows, sizes in found["sizes"].items()]))
    resume = found["resume"]
    print(f"memory: {found['bytes_per_row']:.0f} bytes for every further row")
    print(
        f"resume: first request after {resume['first_request_s']:.2f} s ({resume['first_request_cpu_s']:.2f} s CPU) "
        f"over {resume['finished_rows']:.0f} finished rows, {resume['first_request_s_per_100k']:.2f} s per 100k"
    )
    finish("memory", found, asked.out)


if __name__ == "__main__":
    main()
