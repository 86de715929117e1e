# pyright: reportMissingImports=false, reportUnusedExpression=false
"""distilabel: a pipeline of steps, one process each; UltraFeedback judges.

Tuned: the loader hands over everything at once, a step's batch is as large as the endpoint's limit, and the timeout is
the job's. The judge's longest answer is set in both, since the default of 128 tokens cuts every one of them.
"""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

from distilabel.models import OpenAILLM
from distilabel.pipeline import Pipeline
from distilabel.steps import GroupColumns, LoadDataFromDicts
from distilabel.steps.tasks import TextGeneration, UltraFeedback

from benchmarks.peers.job import Job


def llm(job: Job, name: str, url: str, temperature: float) -> OpenAILLM:
    asked = {"max_new_tokens": job.max_tokens, "temperature": temperature}
    more = {"timeout": int(job.timeout)} if job.tuned else {}
    return OpenAILLM(model=name, base_url=url, api_key="none", generation_kwargs=asked, **more)


def pipeline_of(job: Job) -> Pipeline:
    data = [{"i": i, "instruction": prompt} for i, prompt in enumerate(job.prompts)]
    batch = {"input_batch_size": job.in_flight} if job.tuned else {}
    aspect = "honesty" if job.changed else "instruction-following"
    with Pipeline(name="bench", cache_dir=Path(job.folder) / "pipelines") as pipeline:
        load = LoadDataFromDicts(data=data, **({"batch_size": len(data)} if job.tuned else {}))
        generators = [
            TextGeneration(
                name=name.replace("-", "_"),
                llm=llm(job, name, url, 1.0),
                output_mappings={"model_name": "generation_model"},
                **batch,
            )
            for name, url in job.models.items()
        ]
        if job.judge:
            group = GroupColumns(
                columns=["generation", "generation_model"],
                output_columns=["generations", "generation_models"],
                **batch,
            )
            judge = UltraFeedback(name="judge", aspect=aspect, llm=llm(job, "judge", job.judge, 0.0), **batch)
            load >> generators >> group >> judge
        else:
            load >> generators
    return pipeline


def rows_of(job: Job, distiset: Any) -> Iterator[dict[str, Any]]:
    (name,) = job.models if not job.judge else [""]
    for row in distiset["default"]["train"]:
        if not job.judge:
            yield {"i": row["i"], "answers": {name: row["generation"]}, "ratings": {}}
        else:
            names = row["generation_models"] or []
            ratings = row.get("ratings") or [None] * len(names)
            yield {
                "i": row["i"],
                "answers": dict(zip(names, row["generations"] or [], strict=False)),
                "ratings": dict(zip(names, ratings, strict=False)),
            }


if __name__ == "__main__":
    JOB = Job.read()
    JOB.hand_back(rows_of(JOB, pipeline_of(JOB).run()))
