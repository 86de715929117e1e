"""What is measured, in which order, and what a client's runs come down to."""

import sys
from collections.abc import Iterable
from dataclasses import dataclass, replace
from pathlib import Path
from statistics import median
from typing import Any

from benchmarks.peers.environments import Client
from benchmarks.peers.measure import Work, bench


@dataclass(frozen=True)
class Measurement:
    """A work all clients do, in rounds."""

    name: str
    work: Work
    tuned: bool = True
    rounds: bool = False
    """As often as asked for, else once."""
    limit: float = 900
    """Seconds after which a run is stopped and counted as hanging."""


STARTS = (
    Measurement("start, one model", Work(8, speed=20), rounds=True),
    Measurement("start, four models, judge", Work(8, models=4, judged=True, speed=20), rounds=True),
)
"""What a run of each shape costs before its first row."""
MEASUREMENTS = (
    Measurement("one model", Work(800, speed=3, in_flight=128), rounds=True),
    Measurement("four models, judge", Work(240, models=4, judged=True, in_flight=64, speed=1.5), rounds=True),
    Measurement("one model, defaults", Work(150, speed=3), tuned=False, limit=240),
    Measurement(
        "four models, judge, defaults", Work(40, models=4, judged=True, speed=1.5), tuned=False, limit=240
    ),
    Measurement("3 % faults", Work(500, speed=3, in_flight=128, faults=0.03, timeout=10), limit=240),
)
"""Speeds at which the clients' own cost is seen and the simulators are far from busy."""
STOPPED = Work(200, models=4, judged=True, in_flight=64, speed=2)
PATIENCE = 120
"""Seconds a resumed run may take; the work takes ten at the servers."""


def scaled(work: Work, times: float) -> Work:
    return replace(work, rows=max(8, round(work.rows * times)))


def _shape(work: Work) -> tuple[int, bool]:
    return work.models, work.judged


def told(turn: str, name: str, client: str, run: dict[str, Any]) -> None:
    rate = f"{run['span_s']:6.1f} s" if run.get("span_s") else f"{run['wall_s']:6.1f} s*"
    print(
        f"{turn}  {name:<29} {client:<14} {rate}  {run['cpu_s']:6.1f} s CPU  "
        f"lost {run.get('lost')}, wrong {run.get('wrong')}{'  ' + run['error'] if run['error'] else ''}",
        file=sys.stderr,
        flush=True,
    )


def speeds(
    clients: Iterable[Client], only: list[str], times: float, rounds: int, environments: Path
) -> dict[str, dict[str, list[dict[str, Any]]]]:
    """Measurement -> client -> runs. Clients take turns within a round, so a busy machine slows all alike."""
    wanted = [m for m in MEASUREMENTS if not only or m.name in only]
    found: dict[str, dict[str, list[dict[str, Any]]]] = {}
    for turn in range(rounds):
        for m in [*(s for s in STARTS if any(_shape(s.work) == _shape(m.work) for m in wanted)), *wanted]:
            if turn and not m.rounds:
                continue
            work = m.work if m in STARTS else scaled(m.work, times)
            for client in clients:
                if client.name == "loop" and (work.faults or not m.tuned):
                    continue  # it has neither retries nor settings
                with bench(work, environments) as place:
                    run = place.run(client, tuned=m.tuned, limit=m.limit * max(1.0, times))
                found.setdefault(m.name, {}).setdefault(client.name, []).append(run)
                told(f"{turn + 1}/{rounds}", m.name, client.name, run)
    return found


def stops(clients: Iterable[Client], times: float, environments: Path) -> dict[str, dict[str, Any]]:
    """Client -> what a kill at half, and then other words for the judge, made it ask again."""
    found = {}
    for client in clients:
        if client.name != "loop":
            found[client.name] = stopped(client, scaled(STOPPED, times), environments)
    return found


def stopped(client: Client, work: Work, environments: Path) -> dict[str, Any]:
    """Killed at half, run again until it ends or PATIENCE does, then run again with the judge's words changed.

    Where the second run does not end, the third begins from a finished run of its own.
    """
    with bench(work, environments) as place:
        first = place.run(client, kill_at=work.requests // 2)
        second = place.run(client, limit=PATIENCE)
        place.drain()
        told("kill", "then again", client.name, second)
        asked = place.answered()
        found = {
            "killed_at": sum(first["requests"].values()),
            "in_flight": first["in_flight_at_kill"],
            "asked_again": asked - work.requests,
            "seconds": second["wall_s"],
            "hangs": second["timed_out"],
            "error": second["error"],
        } | {
            key: second.get(key)
            for key in ("rows", "lost", "wrong", "doubled", "unrated", "misrated", "digest")
        }
        if second["code"] == 0:
            return found | _changed(place, client, work)
    with bench(work, environments) as place:
        place.run(client, limit=PATIENCE)
        return found | _changed(place, client, work)


def _changed(place: Any, client: Client, work: Work) -> dict[str, Any]:
    third = place.run(client, changed=True, limit=PATIENCE)
    told("judge", "asked in other words", client.name, third)
    generated = sum(count for name, count in third["requests"].items() if name != "judge")
    return {
        "changed_generated": generated / work.answers,
        "changed_judged": third["requests"]["judge"] / work.rows,
        "changed_right": third.get("rows") == work.rows
        and not any(third[key] for key in ("lost", "wrong", "doubled", "unrated", "misrated")),
    }


def summary(
    work: Work, runs: dict[str, list[dict[str, Any]]], starts: dict[str, list[dict[str, Any]]]
) -> dict[str, dict[str, Any]]:
    """Client -> medians and ranges."""
    found: dict[str, dict[str, Any]] = {}
    for name, every in runs.items():
        ended = [run for run in every if run.get("rows") is not None and run["span_s"]]
        first = every[0]
        found[name] = {
            "rows": work.answers,
            "ended": len(ended),
            "runs": len(every),
            "hangs": sum(run["timed_out"] for run in every),
            "error": next((run["error"] for run in every if run["error"]), ""),
            "requests": median(sum(run["requests"].values()) for run in every) / work.requests,
            "tokens": first["tokens"],
        }
        if not ended:
            continue
        spans = sorted(run["span_s"] for run in ended)
        idle = median(run["cpu_s"] for run in starts[name]) if name in starts else None
        found[name] |= {
            "seconds": median(spans),
            "least_s": spans[0],
            "most_s": spans[-1],
            "rows_per_s": work.answers / median(spans),
            "wall_s": median(run["wall_s"] for run in ended),
            "start_s": median(run["start_s"] for run in ended),
            "cpu_s": median(run["cpu_s"] for run in ended),
            "cpu_ms_per_row": None
            if idle is None
            else median(1000 * max(0.0, run["cpu_s"] - idle) / work.answers for run in ended),
            "simulator_share": median(run["simulator_cpu_s"] / run["span_s"] for run in ended),
            "peak_mb": median(run["peak_mb"] for run in ended),
            "faults": ended[0]["faults"],
        } | {
            key: max(run[key] for run in ended) for key in ("lost", "wrong", "doubled", "unrated", "misrated")
        }
    return found


def summaries(
    found: dict[str, dict[str, list[dict[str, Any]]]], times: float
) -> dict[str, dict[str, dict[str, Any]]]:
    works = {m.name: scaled(m.work, times) for m in MEASUREMENTS} | {s.name: s.work for s in STARTS}
    starts = {_shape(s.work): found.get(s.name, {}) for s in STARTS}
    results = {m: summary(works[m], runs, starts[_shape(works[m])]) for m, runs in found.items()}
    for clients in results.values():
        least = clients.get("loop", {}).get("seconds")
        for result in clients.values():
            if least and "seconds" in result:
                result["time_over_loop"] = result["seconds"] / least
    return results
