"""The limit: asyncio and aiohttp and nothing else. No retries, no resume, no checks.

A worker per request in flight; a prompt is judged when its last answer is there.
"""

import asyncio
from typing import Any

import aiohttp
import orjson

from benchmarks.peers.job import Job, ratings_in

HEADERS = {"content-type": "application/json"}


async def rows_of(job: Job) -> list[dict[str, Any]]:
    answers: list[dict[str, str]] = [{} for _ in job.prompts]
    ratings: list[dict[str, int | None]] = [{} for _ in job.prompts]
    judging: set[asyncio.Task[None]] = set()
    urls = job.models | ({"judge": job.judge} if job.judge else {})
    sessions = {
        name: aiohttp.ClientSession(
            connector=aiohttp.TCPConnector(limit=job.in_flight),
            timeout=aiohttp.ClientTimeout(total=job.timeout),
        )
        for name in urls
    }

    async def ask(name: str, text: str, temperature: float) -> str:
        body = {
            "model": name,
            "messages": [{"role": "user", "content": text}],
            "temperature": temperature,
            "max_tokens": job.max_tokens,
        }
        url = f"{urls[name]}/chat/completions"
        async with sessions[name].post(url, data=orjson.dumps(body), headers=HEADERS) as reply:
            return orjson.loads(await reply.read())["choices"][0]["message"]["content"]

    async def judge(i: int) -> None:
        names = list(job.models)
        text = await ask("judge", job.judging(i, [answers[i][name].strip() for name in names]), 0.0)
        ratings[i] = ratings_in(text, names)

    async def worker(name: str, places: Any) -> None:
        for i in places:
            answers[i][name] = await ask(name, job.prompts[i], 1.0)
            if job.judge and len(answers[i]) == len(job.models):
                task = asyncio.create_task(judge(i))
                judging.add(task)
                task.add_done_callback(judging.discard)

    workers = []
    for name in job.models:
        places = iter(range(len(job.prompts)))
        workers += [worker(name, places) for _ in range(job.in_flight)]
    await asyncio.gather(*workers)
    await asyncio.gather(*judging)
    for session in sessions.values():
        await session.close()
    return [{"i": i, "answers": answers[i], "ratings": ratings[i]} for i in range(len(job.prompts))]


if __name__ == "__main__":
    JOB = Job.read()
    JOB.hand_back(asyncio.run(rows_of(JOB)))
