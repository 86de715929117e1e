"""kill -9 at random moments of `zephyr pairs`, then the same command again: what is lost, what is asked twice.

    make bench-kills                                     # 20 kills, 2,500 prompts, two samplers and a judge
    python -m benchmarks.kills --kills 3 --prompts 150

The command is the real one with everything that belongs to it; only the models are simulated, and note every request.
"""

import argparse
import contextlib
import json
import os
import random
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from itertools import pairwise
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq

from benchmarks.batching import Machine
from benchmarks.report import finish
from benchmarks.simulator import Asked, Simulated, simulator
from benchmarks.workload import Load, settings_of, write_recipe
from records.journal import replay

ROOT = Path(__file__).parent.parent
IN_FLIGHT = 64


def command(recipe: Path, out: Path) -> list[str]:
    return [sys.executable, "-m", "flows.cli", "pairs", str(recipe), "--out", str(out), "--json"]


def start(recipe: Path, out: Path) -> "subprocess.Popen[str]":
    return subprocess.Popen(
        command(recipe, out), cwd=ROOT, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    )


def done(process: "subprocess.Popen[str]") -> dict[str, Any]:
    """The result of a command that ran to its end."""
    said, errors = process.communicate()
    if process.returncode:
        raise RuntimeError(f"zephyr pairs: {errors.strip()[-2000:]}")
    return json.loads(said.splitlines()[-1])


def answered(servers: Sequence[Simulated]) -> int:
    return sum(int(server.stats()["requests"]) for server in servers)


def kill_at(count: int, recipe: Path, out: Path, servers: Sequence[Simulated]) -> float | None:
    """Start the command and kill it when so many requests have been answered; None if it came to its end before."""
    process = start(recipe, out)
    while process.poll() is None:
        if answered(servers) >= count:
            process.send_signal(signal.SIGKILL)
            process.communicate()
            return time.monotonic()
        time.sleep(0.01)
    done(process)
    return None


def stored(run: Path) -> set[tuple[str, str]]:
    """(folder, key) of every finished row, sealed or in a journal: each is one request."""
    found = set()
    for stage in ("completions", "judgements"):
        for path in (run / stage).glob("*/*.jsonl"):
            found |= {(path.parent.name, row.key) for row in replay(path) if row.final}
        for path in (run / stage).glob("*/*.parquet"):
            found |= {
                (path.parent.name, key) for key in pq.read_table(path, columns=["key"])["key"].to_pylist()
            }
    return found


def account(log: list[Asked], kills: list[float]) -> dict[str, int]:
    """How many requests came more than once: after a kill, or as a second copy of one that was late."""
    times: dict[str, list[float]] = {}
    for line in log:
        times.setdefault(line.key, []).append(line.came)
    again = copies = 0
    for came in times.values():
        for first, second in pairwise(sorted(came)):
            killed = any(first < at < second for at in kills)
            again, copies = again + killed, copies + (not killed)
    return {"requests": len(log), "questions": len(times), "asked_again": again, "copies": copies}


def measure(kills: int, prompts: int, speed: float, seed: int = 0) -> dict[str, Any]:
    """An uninterrupted run, and one that is killed so often, against servers of their own."""
    load = Load(prompts, judged=True, in_flight=IN_FLIGHT, shard_size=max(10, prompts // 5))
    options = settings_of(Machine(speed=speed), load.lengths) | {"keep_log": 1}
    dice = random.Random(seed)
    with tempfile.TemporaryDirectory(prefix="bench-") as name, contextlib.ExitStack() as stack:
        folder = Path(name)
        servers = [stack.enter_context(simulator(name=each, **options)) for each in (*load.names, "judge")]
        urls = {each: server.url for each, server in zip((*load.names, "judge"), servers, strict=True)}
        recipe = write_recipe(load, urls, folder)
        whole = done(start(recipe, folder / "whole"))
        total = answered(servers)
        known = [len(server.log()) for server in servers]
        at: list[float] = []
        kept: set[tuple[str, str]] = set()
        unfinished = 0
        for count in sorted(dice.sample(range(1, total), kills)):
            moment = kill_at(total + count, recipe, folder / "killed", servers)
            if moment is None:
                continue
            at.append(moment)
            there = stored(folder / "killed" / result_name(recipe))
            asked = sum(len({line.key for line in s.log()[n:]}) for s, n in zip(servers, known, strict=True))
            unfinished += asked - len(there)
            kept |= there
        result = done(start(recipe, folder / "killed"))
        counts = [account(server.log()[n:], at) for server, n in zip(servers, known, strict=True)]
        found: dict[str, Any] = {key: sum(count[key] for count in counts) for key in counts[0]}
        return found | {
            "kills": len(at),
            "lost": len(kept - stored(folder / "killed" / result_name(recipe))),
            "under_way": unfinished,
            "asked_twice_for_nothing": max(0, found["asked_again"] - unfinished),
            "missing": prompts * 2 * 2 - found["questions"],
            "same_dataset": result["dataset"]["digest"] == whole["dataset"]["digest"],
        }


def result_name(recipe: Path) -> str:
    """Of the run's folder."""
    return json.loads(recipe.read_text())["name"]


@contextlib.contextmanager
def prefect() -> Iterator[None]:
    """One Prefect server for all commands, unless one is named."""
    if os.environ.get("PREFECT_API_URL"):
        yield
        return
    with tempfile.TemporaryDirectory(prefix="bench-") as home:
        os.environ["PREFECT_HOME"] = home
        from prefect.settings import PREFECT_API_URL
        from prefect.testing.utilities import prefect_test_harness

        with prefect_test_harness(server_startup_timeout=180):
            os.environ["PREFECT_API_URL"] = str(PREFECT_API_URL.value())
            yield


def shown(found: dict[str, Any]) -> str:
    return (
        f"{found['kills']} kills of a run of {found['questions']} requests: {found['lost']} finished answers lost, "
        f"{found['missing']} questions never asked, {found['asked_again']} asked again of {found['under_way']} that "
        f"were under way, {found['asked_twice_for_nothing']} for nothing; dataset "
        f"{'the same' if found['same_dataset'] else 'ANOTHER'}"
    )


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--kills", type=int, default=20)
    parser.add_argument("--prompts", type=int, default=2500, help="each answered by two samplers and judged")
    parser.add_argument("--speed", type=float, default=8.0, help="of the simulated servers")
    asked = parser.parse_args()
    with prefect():
        found = measure(asked.kills, asked.prompts, asked.speed)
    print(shown(found))
    finish("kills", found)


if __name__ == "__main__":
    main()
