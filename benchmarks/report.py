"""How a benchmark ends: a table for people, then one JSON object for machines."""

import importlib.metadata
import json
import os
import platform
from collections.abc import Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

LIBRARIES = ("aiohttp", "orjson", "prefect", "pyarrow", "pydantic", "uvloop")


def machine() -> dict[str, Any]:
    """Where it was measured."""
    names = (
        line.partition(":")[2].strip() for line in _lines("/proc/cpuinfo") if line.startswith("model name")
    )
    return {
        "cpu": next(names, platform.processor()),
        "cores": len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count(),
        "system": platform.platform(),
        "load": [round(load, 2) for load in os.getloadavg()],
    }


def versions() -> dict[str, str]:
    found = {"python": platform.python_version()}
    for name in LIBRARIES:
        try:
            found[name] = importlib.metadata.version(name)
        except importlib.metadata.PackageNotFoundError:
            continue
    return found


def table(head: Sequence[str], rows: Sequence[Sequence[Any]]) -> str:
    """Columns as wide as they must be; numbers to three figures."""
    cells = [[*head], *([_shown(cell) for cell in row] for row in rows)]
    widths = [max(len(line[i]) for line in cells) for i in range(len(head))]
    return "\n".join(
        "  ".join(
            cell.ljust(w) if i == 0 else cell.rjust(w)
            for i, (cell, w) in enumerate(zip(line, widths, strict=True))
        )
        for line in cells
    )


def finish(name: str, metrics: dict[str, Any], path: Path | None = None) -> None:
    """The last line: one JSON object; the same in the file at `path`."""
    date = datetime.now(UTC).isoformat(timespec="seconds")
    result = {"name": name, "metrics": metrics, "machine": machine(), "versions": versions(), "date": date}
    if path is not None:
        path.write_text(json.dumps(result, indent=1) + "\n")
    print(json.dumps(result))


def _shown(cell: Any) -> str:
    return (
        f"{cell:.3g}"
        if isinstance(cell, float) and abs(cell) < 1000
        else f"{cell:.0f}"
        if isinstance(cell, float)
        else str(cell)
    )


def _lines(path: str) -> list[str]:
    return Path(path).read_text().splitlines() if Path(path).exists() else []
