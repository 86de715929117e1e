"""This project, as a flow with its tasks and a Prefect server of its own.

Defaults: the endpoint's address and nothing else. Tuned: its dialect and limit, and shards of 50 prompts, because the
side-by-side judge starts on a shard when every model has answered it.
"""

import asyncio
import itertools
import json
from pathlib import Path
from typing import Any

from prefect import flow

from benchmarks.peers.job import Job
from benchmarks.workload import SPARE, opened, samplers_of
from flows.collect import answer_and_judge
from flows.inputs import gather_prompts, models_of
from serving.models import open_models

HEADER = """---
source: prompts/judges/ultrafeedback_instruction_following.md
license: MIT
slots: [instruction, texts, count]
---
"""


def recipe_of(job: Job) -> Path:
    folder = Path(job.folder)
    folder.mkdir(exist_ok=True)
    prompts, text = (
        folder / "prompts.jsonl",
        folder / f"judge_{{aspect}}_{'other' if job.changed else 'first'}.md",
    )
    prompts.write_text("".join(json.dumps({"prompt": prompt}) + "\n" for prompt in job.prompts))
    Path(str(text).replace("{aspect}", "instruction_following")).write_text(HEADER + job.judge_text)
    tuned = {"dialect": "vllm", "max_in_flight": job.in_flight} if job.tuned else {}
    urls = job.models | ({"judge": job.judge} if job.judge else {})
    sampler = {"temperature": 1.0, "max_tokens": job.max_tokens}
    recipe = {
        "name": "bench",
        "prompts": [{"file": str(prompts)}],
        "models": {
            name: {"kind": "endpoint", "model": name, "base_url": url, "timeout": job.timeout} | tuned
            for name, url in urls.items()
        },
        "samplers": [
            *({"name": name, "model": name} | sampler for name in job.models),
            {"name": SPARE, "model": next(iter(job.models)), "seed": 1} | sampler,
        ],
        "judge": {
            "kind": "ultrafeedback",
            "model": "judge",
            "aspects": ["instruction_following"],
            "prompt": str(text),
        }
        if job.judge
        else {"kind": "rules"},
    } | ({"shard_size": 50} if job.tuned and job.judge else {})
    path = folder / "recipe.json"
    path.write_text(json.dumps(recipe))
    return path


async def rows_of(recipe: Path, *, judged: bool) -> list[dict[str, Any]]:
    run = opened(recipe)
    prompts, _ = gather_prompts(run)
    places = {prompt.id: i for i, prompt in enumerate(prompts)}
    rows: list[dict[str, Any]] = [{"i": i, "answers": {}, "ratings": {}} for i in range(len(prompts))]
    async with open_models(models_of(run.recipe, judged=judged), run.servers) as engine:
        answers = await answer_and_judge(run, samplers_of(run), prompts, engine, judged=judged)
    for own in answers:
        for index in own.receipts:
            judgements = own.judgements(index)
            for completion in itertools.chain(*own.completions(index)):
                row = rows[places[completion.prompt_id]]
                row["answers"][own.sampler.name] = completion.text
                for judgement in judgements.get(completion.id, ()):
                    row["ratings"][own.sampler.name] = judgement.score
    return rows


if __name__ == "__main__":
    JOB = Job.read()
    JOB.hand_back(asyncio.run(flow(rows_of)(recipe_of(JOB), judged=bool(JOB.judge))))
