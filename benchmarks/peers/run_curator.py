# pyright: reportMissingImports=false
"""bespokelabs-curator: one pass over the dataset per model, then one for the judge, joined by the row's number.

Tuned: its guess of 200 requests a minute is replaced by the endpoint's limit, an answer that reaches its longest is
taken as one (by default it is asked for eleven times), failed rows do not end the run, and the models' passes run in
threads at the same time.
"""

import os
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import litellm  # ships the tokenizer curator would fetch

os.environ.setdefault(
    "TIKTOKEN_CACHE_DIR", str(Path(litellm.__path__[0]) / "litellm_core_utils" / "tokenizers")
)

from bespokelabs import curator

from benchmarks.peers.job import Job, ratings_in


class Generator(curator.LLM):
    def prompt(self, row: dict[str, Any]) -> str:
        return row["instruction"]

    def parse(self, row: dict[str, Any], response: str) -> dict[str, Any]:
        return {"i": row["i"], "text": response}


class Judge(curator.LLM):
    def prompt(self, row: dict[str, Any]) -> str:
        return row["asked"]

    def parse(self, row: dict[str, Any], response: str) -> dict[str, Any]:
        return {"i": row["i"], "ratings": ratings_in(response, row["names"])}


def settings(job: Job, name: str, url: str, temperature: float) -> dict[str, Any]:
    tuned = {
        "max_concurrent_requests": job.in_flight,
        "max_requests_per_minute": 10**6,
        "max_tokens_per_minute": 10**12,
        "request_timeout": int(job.timeout),
        "require_all_responses": False,
        "invalid_finish_reasons": ["content_filter"],
    }
    return {
        "model_name": name,
        "backend": "openai",
        "generation_params": {"temperature": temperature, "max_tokens": job.max_tokens},
        "backend_params": {"base_url": url, "api_key": "none"} | (tuned if job.tuned else {}),
    }


def rows_of(job: Job) -> list[dict[str, Any]]:
    data = [{"i": i, "instruction": prompt} for i, prompt in enumerate(job.prompts)]
    rows = [{"i": i, "answers": {}, "ratings": {}} for i in range(len(data))]

    def answer(name: str) -> tuple[str, Any]:
        return name, Generator(**settings(job, name, job.models[name], 1.0))(data).dataset

    with ThreadPoolExecutor(len(job.models) if job.tuned else 1) as pool:
        passes = list(pool.map(answer, job.models))
    for name, answered in passes:
        for row in answered:
            rows[row["i"]]["answers"][name] = row["text"]
    if job.judge:
        names = list(job.models)
        asked = [
            {
                "i": row["i"],
                "names": names,
                "asked": job.judging(row["i"], [row["answers"][n] for n in names]),
            }
            for row in rows
            if len(row["answers"]) == len(names)
        ]
        for row in Judge(**settings(job, "judge", job.judge, 0.0))(asked).dataset:
            rows[row["i"]]["ratings"] = row["ratings"]
    return rows


if __name__ == "__main__":
    JOB = Job.read()
    JOB.hand_back(rows_of(JOB))
