# pyright: reportMissingImports=false
"""NeMo Data Designer: a column per model and a judge column that scores them all in one call.

Tuned: the endpoint's limit for its default of 4 requests, the job's timeout, no early stop at many errors, row groups
of 100 (what a kill repeats) and so many of them open that no model waits for the others. Metrics port off in both.
"""

from pathlib import Path
from typing import Any

import data_designer.config as dd
import pandas as pd
from data_designer.interface import DataDesigner

from benchmarks.peers.job import Job

SCALE = {1: "irrelevant", 2: "partial focus", 3: "partial compliance", 4: "almost there", 5: "comprehensive"}


def column(name: str) -> str:
    return name.replace("-", "_")


def models_of(job: Job) -> tuple[list[dd.ModelProvider], list[dd.ModelConfig]]:
    urls = job.models | ({"judge": job.judge} if job.judge else {})
    more: dict[str, Any] = (
        {"max_parallel_requests": job.in_flight, "timeout": int(job.timeout)} if job.tuned else {}
    )
    providers = [
        dd.ModelProvider(name=name, endpoint=url, provider_type="openai", api_key="none")
        for name, url in urls.items()
    ]
    models = [
        dd.ModelConfig(
            alias=name,
            model=name,
            provider=name,
            skip_health_check=True,
            inference_parameters=dd.ChatCompletionInferenceParams(
                temperature=0.0 if name == "judge" else 1.0, max_tokens=job.max_tokens, **more
            ),
        )
        for name in urls
    ]
    return providers, models


def judge_column(job: Job) -> dd.LLMJudgeColumnConfig:
    texts = "\n\n".join(f"{column(name)}:\n{{{{ {column(name)} }}}}" for name in job.models)
    ask = "Say how far" if job.changed else "Rate how far"
    return dd.LLMJudgeColumnConfig(
        name="judge",
        model_alias="judge",
        prompt=f"{ask} each text does what the instruction asks.\n\nInstruction: {{{{ instruction }}}}\n\n{texts}",
        scores=[
            dd.Score(name=column(name), description=f"How far {column(name)} complies", options=SCALE)
            for name in job.models
        ],
    )


def rows_of(job: Job) -> list[dict[str, Any]]:
    folder = Path(job.folder)
    folder.mkdir(exist_ok=True)
    providers, models = models_of(job)
    builder = dd.DataDesignerConfigBuilder(model_configs=models)
    frame = pd.DataFrame({"i": range(len(job.prompts)), "instruction": job.prompts})
    builder.with_seed_dataset(dd.DataFrameSeedSource(df=frame))
    for name in job.models:
        builder.add_column(
            dd.LLMTextColumnConfig(name=column(name), model_alias=name, prompt="{{ instruction }}")
        )
    if job.judge:
        builder.add_column(judge_column(job))
    designer = DataDesigner(artifact_path=folder, model_providers=providers)
    tuned: dict[str, Any] = {
        "buffer_size": 100,
        "max_concurrent_row_groups": 30,
        "max_in_flight_tasks": 4096,
        "disable_early_shutdown": True,
    }
    designer.set_run_config(dd.RunConfig(otel_metrics_port=None, **(tuned if job.tuned else {})))
    made = designer.create(
        builder, num_records=len(frame), dataset_name="bench", resume=dd.ResumeMode.IF_POSSIBLE
    )
    rows = []
    for row in made.load_dataset().to_dict("records"):
        scores = row.get("judge") or {}
        rows.append(
            {
                "i": int(row["i"]),
                "answers": {name: row[column(name)] for name in job.models},
                "ratings": {name: int(scores[column(name)]["score"]) for name in job.models}
                if job.judge
                else {},
            }
        )
    return rows


if __name__ == "__main__":
    JOB = Job.read()
    JOB.hand_back(rows_of(JOB))
