"""The figures as tables: for a terminal, and between the markers of docs/benchmarks.md and README.md."""

import re
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

from benchmarks.peers.environments import ROOT
from benchmarks.report import table

RESULT = ROOT / "benchmarks" / "results" / "peers.json"
LARGE = RESULT.with_name("peers-large.json")
"""One model, many rows, one round; shown where it was measured."""
PAGES = {"docs/benchmarks.md": "full", "README.md": "short"}
NAMES = {"loop": "bare loop", "ours": "this project", "data-designer": "Data Designer"}
NOT_RIGHT = ("lost", "wrong", "doubled", "unrated", "misrated")
QUIET_LOAD = 4.0
"""Load average of two cores on which nothing but this runs, at most; above it, figures are called preliminary."""

One = dict[str, Any]


class Column(NamedTuple):
    head: str
    value: Callable[[One], float | str | None]
    best: bool = False
    """The lowest but the loop's is bold: who wins is seen, whoever it is."""


class Table(NamedTuple):
    title: str
    columns: list[Column]
    clients: dict[str, One]


def not_right(one: One) -> int | None:
    return sum(one[key] for key in NOT_RIGHT) if one.get("lost") is not None else None


def ended(one: One) -> str:
    if one.get("hangs"):
        return "hangs"
    return "yes" if not one.get("error") else f"no: {_first(one['error'])}"


def _first(error: str) -> str:
    words = re.sub(r"\s+", " ", re.sub(r"[|`*<>]", " ", error)).strip()
    named = re.findall(r"\w*(?:Error|Exception)\b.*", words)
    return named[-1][:90] if named else words[-70:]


def _get(key: str) -> Callable[[One], float | None]:
    return lambda one: one.get(key)


def _spread(one: One) -> str | None:
    if "seconds" not in one:
        return None
    return f"{number(one['least_s'])}–{number(one['most_s'])}" if one["runs"] > 1 else "one run"


SPEED = [
    Column("seconds", _get("seconds"), True),
    Column("least–most", _spread),
    Column("x loop", _get("time_over_loop"), True),
    Column("answers/s", _get("rows_per_s")),
    Column("client CPU, ms/answer", _get("cpu_ms_per_row"), True),
    Column("requests / fewest", _get("requests"), True),
    Column("not right", not_right, True),
    Column("peak MB", _get("peak_mb"), True),
    Column("ended", ended),
]
START = [
    Column("seconds to the first request", _get("start_s"), True),
    Column("CPU seconds", _get("cpu_s"), True),
]
FAULTS = [
    Column("seconds", _get("seconds"), True),
    Column("answers lost", _get("lost"), True),
    Column("broken answers kept", _get("wrong"), True),
    Column("rows twice", _get("doubled"), True),
    Column("requests / fewest", _get("requests")),
    Column("ended", ended),
]
STOPS = [
    Column("second run, s", lambda one: None if one["hangs"] else one["seconds"], True),
    Column(
        "answered twice", lambda one: None if one.get("lost") is None else max(0, one["asked_again"]), True
    ),
    Column("in flight at the kill", _get("in_flight")),
    Column("answers lost", _get("lost"), True),
    Column("same rows as unbroken", lambda one: "yes" if not_right(one) == 0 else "no"),
    Column("ended", ended),
]
CHANGES = [
    Column("answers asked again, %", lambda one: 100 * one["changed_generated"], True),
    Column("ratings asked again, %", lambda one: 100 * one["changed_judged"]),
    Column("all right", lambda one: "yes" if one["changed_right"] else "no"),
]


def number(value: float) -> str:
    return f"{value:,.0f}" if abs(value) >= 100 or value == int(value) else f"{value:.3g}"


def tables(metrics: dict[str, Any]) -> list[Table]:
    found = []
    for name, clients in metrics["speeds"].items():
        columns = START if name.startswith("start") else FAULTS if "faults" in name else SPEED
        found.append(Table(f"{name}, 8 rows" if columns is START else name, columns, clients))
    if metrics["stops"]:
        found.append(Table("killed with SIGKILL at half, then run again", STOPS, metrics["stops"]))
        found.append(Table("then the judge asked in other words", CHANGES, metrics["stops"]))
    return found


def cells(columns: list[Column], clients: dict[str, One], *, bold: bool) -> list[list[str]]:
    lines = [[NAMES.get(name, name)] for name in clients]
    for column in columns:
        values = [column.value(one) for one in clients.values()]
        counted = [
            v
            for name, v in zip(clients, values, strict=True)
            if isinstance(v, int | float) and name != "loop"
        ]
        best = min(counted) if bold and column.best and len(set(counted)) > 1 else None
        for line, name, value in zip(lines, clients, values, strict=True):
            text = "–" if value is None else value if isinstance(value, str) else number(value)
            line.append(f"**{text}**" if best is not None and value == best and name != "loop" else text)
    return lines


def plain(metrics: dict[str, Any]) -> str:
    return "\n\n".join(
        f"{t.title}\n{table(('client', *(c.head for c in t.columns)), cells(t.columns, t.clients, bold=False))}"
        for t in tables(metrics)
    )


def markdown(columns: list[Column], clients: dict[str, One]) -> str:
    head = ["client", *(column.head for column in columns)]
    lines = [head, ["---"] * len(head), *cells(columns, clients, bold=True)]
    return "\n".join(f"| {' | '.join(line)} |" for line in lines)


def measured(result: dict[str, Any]) -> str:
    """When and where, and whether that was good enough to be quoted."""
    metrics, machine = result["metrics"], result["machine"]
    shares = [
        one["simulator_share"]
        for clients in metrics["speeds"].values()
        for one in clients.values()
        if "simulator_share" in one
    ]
    small = metrics["rows"] < 1 or (metrics["rows"] == 1 and metrics["rounds"] < 3)
    words = "**Preliminary**: measured" if small or machine["load"][2] > QUIET_LOAD else "Measured"
    words += f" on {result['date'][:10]} on {machine['cores']} cores of {machine['cpu']}, "
    words += f"rounds: {metrics['rounds']}, ROWS={metrics['rows']:g}, in {metrics['minutes']:.0f} minutes; "
    words += f"load average {machine['load'][2]:.1f} over the last quarter of an hour."
    if shares:
        words += f" The simulators took {100 * min(shares):.0f} to {100 * max(shares):.0f} % of one core."
    for name, why in metrics["missing"].items():
        words += f" {NAMES.get(name, name)} could not be installed: {_first(why)}."
    return words


def full(result: dict[str, Any], large: dict[str, Any] | None) -> str:
    blocks = [measured(result)]
    blocks += [f"**{t.title}**\n\n{markdown(t.columns, t.clients)}" for t in tables(result["metrics"])]
    if large is not None:
        blocks += [f"**many rows**\n\n{measured(large)}"]
        blocks += [markdown(t.columns, t.clients) for t in tables(large["metrics"]) if t.columns is SPEED]
    pins = result["metrics"]["pinned"]
    versions = ", ".join(f"{name} {version}" for pinned in pins.values() for name, version in pinned.items())
    return "\n\n".join([*blocks, f"Pinned in `benchmarks/peers/requirements/`: {versions}."])


def short(result: dict[str, Any]) -> str:
    """A line for each client, from the judged pipeline, the faults, the kill and the changed judge."""
    speeds, stops = result["metrics"]["speeds"], result["metrics"]["stops"]
    together = {
        name: speeds.get("four models, judge", {}).get(name, {})
        | {"faults": speeds.get("3 % faults", {}).get(name), "stop": stops.get(name)}
        for name in speeds.get("four models, judge", {})
    }

    def faulty(one: One) -> float | str | None:
        if not (found := one["faults"]):
            return None
        return "all: it ends with an error" if found.get("lost") is None else found["lost"] + found["wrong"]

    def killed(one: One) -> float | str | None:
        stop = one["stop"]
        if not stop:
            return None
        return ended(stop) if ended(stop) != "yes" else max(0, stop["asked_again"])

    columns = [
        Column("seconds, x loop", _get("time_over_loop"), True),
        Column("client CPU, ms/answer", _get("cpu_ms_per_row"), True),
        Column("answers lost or broken at 3 % faults", faulty, True),
        Column("answered twice after kill -9", killed, True),
        Column(
            "answers asked again for other judge words, %",
            lambda one: 100 * one["stop"]["changed_generated"] if one["stop"] else None,
            True,
        ),
    ]
    return f"{markdown(columns, together)}\n\n{measured(result)}"


def rewrite(result: dict[str, Any], large: dict[str, Any] | None = None, root: Path = ROOT) -> None:
    """Put the tables between the markers of every page.

    Raises:
        ValueError: a page has no markers.
    """
    for page, size in PAGES.items():
        path, text = root / page, full(result, large) if size == "full" else short(result)
        parts = re.split(r"(<!-- peers: .*? -->)", path.read_text(encoding="utf-8"))
        if len(parts) != 5:
            raise ValueError(f"{page} has {len(parts) // 2} markers of the peers' table, wanted 2")
        parts[2] = f"\n\n{text}\n\n"
        path.write_text("".join(parts), encoding="utf-8")
