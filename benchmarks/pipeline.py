"""What the pipeline costs over a bare asyncio loop, and how busy it keeps four models and a judge.

    make bench-pipeline                       # a quarter of an hour on two cores
    python -m benchmarks.pipeline --rows 0.1  # a tenth of the rows

Models are simulated (`benchmarks.simulator`), everything else is real: HTTP, the store with its fsyncs, Prefect with a
server of its own. Clients take turns within each round, so a busy machine slows all alike; the table shows medians.
"""

import argparse
import asyncio
import contextlib
import json
import os
import subprocess
import sys
import tempfile
from dataclasses import dataclass, replace
from pathlib import Path
from statistics import median
from typing import Any

from benchmarks import rates
from benchmarks.batching import Machine
from benchmarks.ideal import makespan
from benchmarks.report import finish, table
from benchmarks.simulator import Simulated, simulator
from benchmarks.workload import Load, machines_of, opened, settings_of, steps_of, write_recipe

ROOT = Path(__file__).parent.parent
CLIENTS = ("loop", "plain", "prefect")


@dataclass(frozen=True)
class Measurement:
    """A load on machines of one kind, run by several clients."""

    name: str
    load: Load
    speed: float = 1.0
    faults: float = 0.0


MEASUREMENTS = (
    Measurement("one stage x1", Load(1000)),
    Measurement("one stage x20", Load(4000), speed=20),
    Measurement("four models, judge", Load(1000, models=4, judged=True)),
    Measurement("without faults", Load(8000, timeout=5), speed=8),
    Measurement("3 % faults", Load(8000, timeout=5), speed=8, faults=0.03),
)


def run_client(client: str, measurement: Measurement) -> dict[str, Any]:
    """One client against fresh servers: what it cost and what the servers saw."""
    load, machine = measurement.load, Machine(speed=measurement.speed)
    with contextlib.ExitStack() as stack:
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="bench-")))
        options = settings_of(machine, load.lengths) | {"faults": measurement.faults}
        servers: dict[str, Simulated] = {
            name: stack.enter_context(simulator(name=name, **options)) for name in machines_of(load, machine)
        }
        recipe = write_recipe(load, {name: server.url for name, server in servers.items()}, folder)
        environment = os.environ | {
            "PREFECT_HOME": str(folder / "prefect"),
            "PREFECT_LOGGING_LEVEL": "CRITICAL",
            "PREFECT_SERVER_ANALYTICS_ENABLED": "false",
            "PREFECT_SERVER_EPHEMERAL_STARTUP_TIMEOUT_SECONDS": "180",
            "DO_NOT_TRACK": "1",
        }
        command = [sys.executable, "-m", "benchmarks.clients", client, str(recipe)]
        ended = subprocess.run(
            command, cwd=ROOT, env=environment, capture_output=True, text=True, timeout=1800
        )
        if ended.returncode:
            raise RuntimeError(f"{client} on {measurement.name}: {ended.stderr.strip()[-2000:]}")
        found: dict[str, Any] = json.loads(ended.stdout.splitlines()[-1])
        return found | {"servers": {name: server.stats() for name, server in servers.items()}}


def ideal(measurement: Measurement) -> float:
    """Seconds the same requests take when the client costs nothing."""
    load, machine = measurement.load, Machine(speed=measurement.speed)
    with tempfile.TemporaryDirectory() as folder:
        urls = dict.fromkeys(machines_of(load, machine), "http://127.0.0.1:9/v1")
        run = opened(write_recipe(load, urls, Path(folder)))
        return makespan(asyncio.run(steps_of(run, load.lengths)), machines_of(load, machine))


def summary(measurement: Measurement, runs: list[dict[str, Any]], least: float) -> dict[str, Any]:
    """Medians of one client's runs."""
    wall = median(run["wall_s"] for run in runs)
    generators = [[run["servers"][name] for name in measurement.load.names] for run in runs]
    found = {
        "rows_per_s": runs[0]["rows"] / wall,
        "wall_s": wall,
        "efficiency": least / wall,
        "starved": median(sum(s["starved"] for s in servers) / len(servers) for servers in generators),
        "startup_s": median(run["startup_s"] for run in runs),
        "cpu_ms_per_row": median(run["cpu_ms_per_row"] for run in runs),
        "prefect_server_ms_per_row": median(1000 * run["server_cpu_s"] / run["rows"] for run in runs),
        "peak_mb": median(run["peak_mb"] for run in runs),
    }
    if "kept" in runs[0]:
        found |= _accounted(measurement, runs)
    return found


def _accounted(measurement: Measurement, runs: list[dict[str, Any]]) -> dict[str, Any]:
    """Rows without an answer, and answers that were generated more often than once."""
    load, lost, doubled = measurement.load, 0, 0
    wanted = load.rows * load.models
    for run in runs:
        lost += wanted - run["kept"]["answers"]
        lost += wanted - run["kept"]["judgements"] if load.judged else 0
        for server in run["servers"].values():
            spoilt = sum(n for kind, n in server["faults"].items() if kind not in ("429", "503", "hang"))
            doubled += int(server["requests"]) - spoilt
        doubled -= wanted * (2 if load.judged else 1)
    return {"lost": lost, "doubled": doubled, "retries": median(sum(_retries(run)) for run in runs)}


def _retries(run: dict[str, Any]) -> list[int]:
    return [count for lane in run["lanes"].values() for count in lane["retries"].values()]


def measure(
    measurements: list[Measurement], clients: list[str], runs: int
) -> dict[str, dict[str, dict[str, Any]]]:
    """Measurement -> client -> medians. Clients and measurements take turns; what is done is told on stderr."""
    found: dict[tuple[str, str], list[dict[str, Any]]] = {}
    for turn in range(runs):
        for measurement in measurements:
            for client in clients:
                if measurement.faults and client == "loop":
                    continue  # it has no retries
                run = run_client(client, measurement)
                found.setdefault((measurement.name, client), []).append(run)
                print(
                    f"{turn + 1}/{runs}  {measurement.name:<20} {client:<8} {run['wall_s']:7.2f} s "
                    f"{run['cpu_ms_per_row']:6.2f} ms/row  load {os.getloadavg()[0]:.1f}",
                    file=sys.stderr,
                    flush=True,
                )
    least = {measurement.name: ideal(measurement) for measurement in measurements}
    by_name = {measurement.name: measurement for measurement in measurements}
    results: dict[str, dict[str, dict[str, Any]]] = {}
    for (name, client), every in found.items():
        results.setdefault(name, {})[client] = summary(by_name[name], every, least[name])
    for clients_of in results.values():
        for result in clients_of.values():
            if "loop" in clients_of:
                result["time_over_loop"] = result["wall_s"] / clients_of["loop"]["wall_s"]
    return results


def shown(results: dict[str, dict[str, dict[str, Any]]]) -> str:
    columns = ("rows_per_s", "wall_s", "time_over_loop", "efficiency", "starved", "cpu_ms_per_row",
               "prefect_server_ms_per_row", "startup_s", "peak_mb", "lost", "doubled", "retries")  # fmt: skip
    head = ("load", "client", "rows/s", "wall s", "x loop", "of ideal", "starved", "ms/row", "+ server", "start s",
            "peak MB", "lost", "doubled", "retries")  # fmt: skip
    rows = [
        [name, client, *(result.get(column, "") for column in columns)]
        for name, clients in results.items()
        for client, result in clients.items()
    ]
    return table(head, rows)


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--rows", type=float, default=1.0, help="times the usual number of rows")
    parser.add_argument("--runs", type=int, default=3)
    parser.add_argument("--clients", nargs="+", choices=CLIENTS, default=list(CLIENTS))
    parser.add_argument("--only", nargs="+", help="measurements whose name holds one of these")
    parser.add_argument("--out", type=Path, help="write the result here, too")
    asked = parser.parse_args()
    measurements = [
        replace(each, load=replace(each.load, rows=max(1, round(each.load.rows * asked.rows))))
        for each in MEASUREMENTS
        if not asked.only or any(part in each.name for part in asked.only)
    ]
    results: dict[str, Any] = measure(measurements, asked.clients, asked.runs)
    print(shown(results))
    if not asked.only:
        results["refusals"] = rates.measure(60 * asked.rows)
        print(f"\n{rates.shown(results['refusals'])}")
    finish("pipeline", results, asked.out)


if __name__ == "__main__":
    main()
