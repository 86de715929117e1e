"""How busy a run's models are kept: said while they are asked, kept in `endpoints.json` for the summary and the report.

    {"fields": [...], "stages": {stage: {model: {figures..., "series": [[...], ...]}}}}

A stage's figures are of the last run that asked it anything.
"""

import asyncio
import json
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

from flows import telemetry
from flows.artifacts import endpoints_artifact
from flows.progress import display
from serving.engine import Engine
from serving.meter import FIELDS, Meter, watched

FILE = "endpoints.json"


@asynccontextmanager
async def metered(engine: Engine, folder: Path, stage: str, again: bool = False) -> AsyncIterator[None]:
    """Watch the models while the block asks them; what was seen is kept however the block ends.

    `again`: the stage asks models in several blocks, and an earlier one has begun it.
    """
    meters: dict[str, Meter] = {}
    try:
        async with endpoints_artifact(), watched(engine, display().tell) as meters:
            display().meters = meters
            yield
    finally:
        await asyncio.to_thread(telemetry.flush)
        display().meters = {}
        seen = {
            name: meter.figures() | {"series": [[round(v, 2) for v in point] for point in meter.points]}
            for name, meter in meters.items()
            if meter.lane.stats.sent
        }
        if seen:
            stages = read(folder)
            stages[stage] = (stages.get(stage, {}) if again else {}) | seen
            part = folder / f".{FILE}.part"
            part.write_text(json.dumps({"fields": FIELDS, "stages": stages}) + "\n")
            part.replace(folder / FILE)


def read(folder: Path) -> dict[str, dict[str, dict[str, Any]]]:
    """Stage -> model -> figures and series; empty where nothing was asked."""
    path = folder / FILE
    return json.loads(path.read_text())["stages"] if path.exists() else {}


def figures(folder: Path) -> dict[str, dict[str, dict[str, Any]]]:
    """The same without the series."""
    return {
        stage: {name: {k: v for k, v in own.items() if k != "series"} for name, own in models.items()}
        for stage, models in read(folder).items()
    }
