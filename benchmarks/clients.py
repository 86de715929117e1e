"""One client in a process of its own: `python -m benchmarks.clients loop|plain|prefect RECIPE` prints what it cost.

`loop`: asyncio and aiohttp and nothing else, answers written to a file: the practical limit.
`plain`: the pipeline's stages as plain functions. `prefect`: the same stages as tasks of a flow, as they are run.
"""

import asyncio
import json
import os
import resource
import sys
import time
from collections.abc import Awaitable, Callable
from contextlib import nullcontext
from pathlib import Path
from typing import Any
from unittest.mock import patch

BEGAN = time.perf_counter()


def cpu() -> float:
    """Seconds of this process, user and system."""
    used = resource.getrusage(resource.RUSAGE_SELF)
    return used.ru_utime + used.ru_stime


def cpu_below(pid: int) -> float:
    """Seconds of the processes this one started, as far as they still run: Prefect's server."""
    ticks, total = os.sysconf("SC_CLK_TCK"), 0.0
    for children in Path(f"/proc/{pid}/task").glob("*/children"):
        for child in children.read_text().split():
            fields = Path(f"/proc/{child}/stat").read_text().rpartition(")")[2].split()
            total += (int(fields[11]) + int(fields[12])) / ticks + cpu_below(int(child))
    return total


def resident() -> float:
    """Bytes of memory in use now."""
    return int(Path("/proc/self/statm").read_text().split()[1]) * resource.getpagesize()


async def measured(rows: int, work: Callable[[], Awaitable[dict[str, Any]]]) -> dict[str, Any]:
    """What `work` cost, start-up apart."""
    startup, before, below, memory = time.perf_counter() - BEGAN, cpu(), cpu_below(os.getpid()), resident()
    began = time.perf_counter()
    found = await work()
    wall = time.perf_counter() - began
    used = cpu() - before
    return found | {
        "rows": rows,
        "startup_s": startup,
        "wall_s": wall,
        "cpu_s": used,
        "cpu_ms_per_row": 1000 * used / rows,
        "server_cpu_s": cpu_below(os.getpid()) - below,
        "grown_mb": (resident() - memory) / 1e6,
        "peak_mb": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1e3,
    }


async def loop(recipe: Path) -> dict[str, Any]:
    """The bare loop: one worker per request in flight, judge requests made from the answer's text."""
    import aiohttp
    import orjson

    from benchmarks.workload import judge_request, opened, request_for, samplers_of
    from flows.inputs import gather_prompts
    from judges.rating import Rating
    from records.schema import Completion
    from serving.client import body_of

    run = opened(recipe)
    prompts = list(gather_prompts(run)[0])
    (member,) = run.recipe.jury.members
    judge = member.build(None) if isinstance(member, Rating) else None
    models: dict[str, Any] = run.recipe.models
    requests = {}
    for sampler in samplers_of(run):
        asked = run.completions_stage(sampler).fingerprint
        requests[sampler.name] = [await request_for(run, prompt, sampler, asked) for prompt in prompts]
    rows = len(prompts) * len(requests)

    async def work() -> dict[str, Any]:
        sessions = {
            name: aiohttp.ClientSession(
                connector=aiohttp.TCPConnector(limit=model.max_in_flight),
                timeout=aiohttp.ClientTimeout(total=model.timeout),
            )
            for name, model in models.items()
        }
        judging: set[asyncio.Task[None]] = set()
        with (recipe.parent / "loop.jsonl").open("wb") as out:

            async def ask(name: str, body: dict[str, Any]) -> dict[str, Any]:
                url, data = f"{models[name].addresses[0]}/chat/completions", orjson.dumps(body)
                async with sessions[name].post(
                    url, data=data, headers={"content-type": "application/json"}
                ) as reply:
                    return orjson.loads(await reply.read())["choices"][0]

            async def grade(i: int, name: str, text: str) -> None:
                completion = Completion.model_construct(text=text)
                body = body_of(judge_request(judge, prompts[i], completion), "judge", "vllm")  # type: ignore[arg-type]
                choice = await ask("judge", body)
                out.write(
                    orjson.dumps({"i": i, "model": name, "grade": choice["logprobs"]["content"][0]}) + b"\n"
                )

            async def worker(name: str, places: Any) -> None:
                for i in places:
                    choice = await ask(name, body_of(requests[name][i], name, "vllm"))
                    text = choice["message"]["content"]
                    out.write(orjson.dumps({"i": i, "model": name, "text": text}) + b"\n")
                    if judge is not None:
                        task = asyncio.create_task(grade(i, name, text))
                        judging.add(task)
                        task.add_done_callback(judging.discard)

            workers = []
            for name in requests:
                places = iter(range(len(prompts)))
                workers += [worker(name, places) for _ in range(models[name].max_in_flight)]
            await asyncio.gather(*workers)
            await asyncio.gather(*judging)
        for session in sessions.values():
            await session.close()
        return {}

    return await measured(rows, work)


async def stages(recipe: Path, *, prefect: bool) -> dict[str, Any]:
    """The pipeline's own stages, from opening the models to the last sealed shard."""
    from prefect import flow

    from benchmarks.workload import opened, samplers_of
    from flows import collect, conduct, tasks
    from flows.inputs import gather_prompts, models_of
    from serving.models import open_models

    run = opened(recipe)
    judged = bool(run.recipe.models.get("judge"))
    prompts, _ = gather_prompts(run)
    samplers = samplers_of(run)
    rows = len(prompts) * len(samplers)

    async def work() -> dict[str, Any]:
        async with open_models(models_of(run.recipe, judged=judged), run.servers) as engine:
            answers = await collect.answer_and_judge(run, samplers, prompts, engine, judged=judged)
            lanes = {
                name: {
                    "retries": dict(lane.stats.retries),
                    "answered": lane.stats.answered,
                    "limit": lane.gate.limit,
                }
                for name, lane in engine.lanes.items()
            }
        receipts = [r for own in answers for r in own.receipts.values()]
        verdicts = [r for own in answers for judge in own.judged.values() for r in judge.values()]
        dropped = sum(sum(r.dropped.values()) for r in receipts + verdicts)
        kept = {"answers": sum(r.answers for r in receipts), "judgements": sum(r.answers for r in verdicts)}
        return {"kept": kept, "dropped": dropped, "lanes": lanes}

    if prefect:

        @flow(name="bench")
        async def bench() -> dict[str, Any]:
            return await measured(rows, work)

        return await bench()
    with (
        patch.object(conduct, "generate_shard", tasks.generate_shard.fn),
        patch.object(conduct, "judge_shard", tasks.judge_shard.fn),
        patch.object(collect, "progress_artifact", nullcontext),
    ):
        return await measured(rows, work)


def main() -> None:
    mode, recipe = sys.argv[1], Path(sys.argv[2])
    work = loop(recipe) if mode == "loop" else stages(recipe, prefect=mode == "prefect")
    print(json.dumps(asyncio.run(work)))


if __name__ == "__main__":
    main()
