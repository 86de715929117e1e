"""More than one core: processes that each ask their own shards, where one cannot feed the servers.

    python -m flows.processes JOB.json

They share nothing but the run's folder. Each takes every n-th shard, has its part of every limit, and seals what it
asked; the run that started them then finds their shards finished, and asks what one of them left.
"""

import asyncio
import json
import logging
import os
import subprocess
import sys
from collections.abc import Collection
from pathlib import Path
from typing import Any

from flows.recipe import Recipe
from flows.run import Run
from records.base import Strict
from serving import guard
from serving.settings import Endpoint

GRACE = 15.0
"""Seconds between SIGTERM and SIGKILL of a process whose run is gone."""

log = logging.getLogger(__name__)


class Part(Strict):
    """What one process does."""

    recipe: Recipe
    out: Path
    store: str
    number: int
    """From 0."""
    of: int
    judged: bool
    again: tuple[str, ...] = ()


def shared(recipe: Recipe, count: int) -> Recipe:
    """The recipe of one of `count` that ask at the same time: together they keep to the limits of its endpoints."""
    models = {
        name: model.model_copy(
            update={
                "max_in_flight": max(1, model.max_in_flight // count),
                "requests_per_minute": model.requests_per_minute and model.requests_per_minute / count,
                "tokens_per_minute": model.tokens_per_minute and model.tokens_per_minute / count,
            }
        )
        if isinstance(model, Endpoint)
        else model
        for name, model in recipe.models.items()
    }
    return recipe.model_copy(update={"models": models})


def parts(run: Run, *, judged: bool, again: Collection[str]) -> list[Part]:
    """A part for every process of the recipe; their limits together are the recipe's."""
    count = run.recipe.processes
    recipe = shared(run.recipe, count).model_copy(update={"processes": 1})
    common: dict[str, Any] = {"recipe": recipe, "out": run.folder.parent, "store": run.store}
    common |= {"of": count, "judged": judged, "again": tuple(again)}
    return [Part(number=number, **common) for number in range(count)]


async def ask_in_processes(run: Run, *, judged: bool, again: Collection[str] = ()) -> int:
    """Have every shard asked by one of the recipe's processes; returns the requests they made.

    What one of them could not do is said and left: it is done, or fails with its reason, in this process.
    """
    folder = run.folder / "processes"
    folder.mkdir(exist_ok=True)
    running = []
    for part in parts(run, judged=judged, again=again):
        job = folder / f"{part.number}.json"
        job.write_text(part.model_dump_json())
        above = [sys.executable, "-I", "-S", guard.__file__, str(os.getpid()), str(GRACE)]
        command = [*above, sys.executable, "-m", "flows.processes", str(job)]
        running.append(
            await asyncio.create_subprocess_exec(*command, stdout=subprocess.PIPE, start_new_session=True)
        )
    try:
        said = await asyncio.gather(*(process.communicate() for process in running))
    finally:
        for process in running:
            if process.returncode is None:
                process.terminate()
                await process.wait()
    requests = 0
    for number, (process, (out, _)) in enumerate(zip(running, said, strict=True)):
        if process.returncode:
            log.warning("process %d of %d ended with code %s", number + 1, len(running), process.returncode)
        else:
            requests += json.loads(out.splitlines()[-1])["requests"]
    return requests


async def work(part: Part) -> dict[str, int]:
    """One process's shards, from the first to the last."""
    from flows.answers import stages_of
    from flows.conduct import Conductor
    from flows.inputs import gather_prompts, models_of
    from serving.models import open_models

    recipe, run = part.recipe, Run.at(part.recipe, part.out, part.store)
    prompts, _ = gather_prompts(run)
    members = recipe.jury.members if part.judged else ()
    own = range(part.number, len(prompts.receipts), part.of)
    async with open_models(models_of(recipe, judged=part.judged), run.servers) as engine:
        results = stages_of(run, recipe.samplers, members)
        await Conductor(run, prompts, engine, results, members, part.again, own, plain=True).conduct()
        return {"requests": engine.usage.requests}


def main() -> None:
    logging.basicConfig(stream=sys.stderr, level=logging.WARNING)
    done = asyncio.run(work(Part.model_validate_json(Path(sys.argv[1]).read_text())))
    print(json.dumps(done))


if __name__ == "__main__":
    main()
