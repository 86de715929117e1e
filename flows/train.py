"""A dataset in, a model folder out. Training runs in a process of its own, so torch and its memory end with it."""

import asyncio
import contextlib
import json
import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any, Literal

from prefect import flow, task
from prefect.cache_policies import NO_CACHE

from flows.facts import Facts
from flows.progress import display
from flows.recipe import Recipe, RecipeError, TrainingPlan
from flows.run import Run
from serving import guard
from trainers.job import Data, DPOJob, SFTJob

Kind = Literal["sft", "dpo"]


class TrainingFailed(Exception):
    """The training process ended without a model. Its checkpoints are kept; the same command goes on from them."""


@task(name="train", task_run_name="train-{kind}", cache_policy=NO_CACHE, persist_result=False)
async def train(run: Run, kind: Kind, facts: Facts, label: str | None = None) -> dict[str, Any]:
    """Train one stage; a finished model of the same settings, base and data is returned at once.

    `label`: tells models of one stage apart; None is the recipe's own.
    """
    stage = kind if label is None else f"{kind}-{label}"
    job = await asyncio.to_thread(job_of, run, kind, stage)
    job.out.parent.mkdir(parents=True, exist_ok=True)
    path = job.out.with_name(f"{stage}.job.json")
    path.write_text(job.model_dump_json(indent=2))
    steps = display().add(f"train {stage}", job.settings.steps(rows(job.train)))
    await asyncio.to_thread(
        _run, path, job.partial / "progress.jsonl", job.out.with_name(f"{stage}.log"), steps
    )
    made = json.loads((job.out / "model.json").read_text())
    facts.content.setdefault("models", {})[stage] = model_facts(job.out)
    facts.save()
    return made


def job_of(run: Run, kind: Kind, stage: str | None = None) -> SFTJob | DPOJob:
    """What the trainer is told, for a model named `stage`.

    The base is the recipe's model, or for DPO the SFT model where there is one.

    Raises:
        RecipeError: there is no such stage in the recipe, or no dataset to train on yet.
        WrongModel: the base's weights cannot be found.
    """
    from serving.weights import resolve_gguf, resolve_transformers

    recipe, plan = run.recipe, run.recipe.training
    settings = getattr(plan, kind, None)
    if plan is None or settings is None:
        raise RecipeError(f"training.{kind} is not in recipe {recipe.name!r}; add it to train this stage")
    dataset = run.folder / "dataset"
    train, held_out = (dataset / "trl" / f"{split}.parquet" for split in ("train", "test"))
    if kind == "sft":
        train, held_out = (dataset / "trl_sft" / f"{split}.parquet" for split in ("train", "test"))
    if not train.exists():
        raise RecipeError(f"{train} does not exist; run `zephyr pairs` first, or `zephyr run` for everything")
    served = recipe.models.get(plan.base)
    name, revision = (served.model, served.revision) if served else (plan.base, None)
    base, receipt = None, {}
    if served is not None and served.weights:
        receipt = {"name": name, "digest": served.weights}
    if kind == "dpo" and plan.sft is not None:
        base = run.model_folder("sft")
        if not (base / "model.json").exists():
            raise RecipeError(
                f"{base} does not exist; run `zephyr sft` first, or `zephyr run` for everything"
            )
        made = json.loads((base / "model.json").read_text())
        receipt = {"name": f"{recipe.name}-sft", "digest": made["weights"]}
    fields: dict[str, Any] = {
        "name": f"{recipe.name}-{stage or kind}",
        "base": base or resolve_transformers(name, revision),
        "base_receipt": receipt or {"name": name, "revision": revision},
        "train": Data(files=(train,)),
        "eval": Data(files=(held_out,)) if held_out.exists() else None,
        "data_receipts": ({"dataset": run.read_json("summary.json").get("dataset", {}).get("digest")},),
        "out": run.model_folder(stage or kind),
        "seed": recipe.seed,
        "recipe": (run.folder / "recipe.yaml").read_text() if (run.folder / "recipe.yaml").exists() else "",
    }
    if plan.gguf is not None:
        fields |= {"gguf": resolve_gguf(name, revision).path, "gguf_type": plan.gguf}
    return (
        SFTJob(kind="sft", settings=settings, **fields)
        if kind == "sft"
        else DPOJob(kind="dpo", settings=settings, references=run.folder / "reference", **fields)
    )


def last_stage(plan: TrainingPlan) -> Kind:
    """The stage whose model a plan ends with."""
    return "dpo" if plan.dpo is not None else "sft"


def trained(run: Run) -> dict[str, Path]:
    """The finished models of a run by name, in the order they were made: its stages, or the last of each round."""
    plan = run.recipe.training
    if plan is not None and plan.rounds is not None:
        numbers = range(1, plan.rounds.count + 1)
        found = {
            f"round-{i}": run.folder / "rounds" / f"round-{i}" / "models" / last_stage(plan) for i in numbers
        }
    else:
        found = {stage: run.model_folder(stage) for stage in ("sft", "dpo")}
    return {name: folder for name, folder in found.items() if (folder / "model.json").exists()}


def rows(data: Data) -> int:
    import pyarrow.parquet as pq

    return sum(pq.read_metadata(path).num_rows for path in data.paths())


def model_facts(folder: Path) -> dict[str, Any]:
    """What the summary says of a model."""
    made = json.loads((folder / "model.json").read_text())
    metrics = json.loads((folder / "metrics.json").read_text())
    history = metrics.pop("train")
    return {
        "folder": str(folder),
        "key": made["key"],
        "weights": made["weights"],
        "loss_first": history[0]["loss"],
        "loss_last": history[-1]["loss"],
        **metrics,
    }


def _run(job: Path, progress: Path, log: Path, step: Callable[..., None]) -> None:
    """The training process from its start to its end; ended with us, whatever ends us.

    Raises:
        RecipeError: the trainer refused the settings or the data.
        TrainingFailed: it ended otherwise.
    """
    command = [
        sys.executable,
        guard.__file__,
        str(os.getpid()),
        "15",
        sys.executable,
        "-m",
        "trainers.run",
        str(job),
    ]
    done = 0
    with log.open("wb") as output:
        process = subprocess.Popen(command, stdout=output, stderr=output, start_new_session=True)
        try:
            while process.poll() is None:
                with contextlib.suppress(subprocess.TimeoutExpired):
                    process.wait(0.5)
                for line in _lines(progress):
                    if line.get("step", 0) > done:
                        step(
                            line["step"] - done,
                            note=f"loss {line['loss']:.3f}" if line.get("loss") is not None else "",
                        )
                        done = line["step"]
        finally:
            if process.poll() is None:
                process.terminate()
                process.wait()
    if process.returncode == 0:
        return
    tail = "\n".join(log.read_text(errors="replace").splitlines()[-20:])
    if process.returncode == 2:
        raise RecipeError(f"training was refused before it began: {tail}")
    raise TrainingFailed(f"training ended with code {process.returncode}; {log} ends:\n{tail}")


def _lines(progress: Path) -> list[dict[str, Any]]:
    try:
        text = progress.read_text()
    except FileNotFoundError:
        return []
    return [json.loads(line) for line in text.splitlines(keepends=True) if line.endswith("\n")]


@flow(name="train-sft", flow_run_name="sft-{recipe.name}")
async def train_sft(recipe: Recipe, out: Path | None = None) -> dict[str, Any]:
    """Fine-tune on the best answers. Dataset -> model."""
    with Run.opened(recipe, out) as run:
        facts = Facts.of(run)
        await train(run, "sft", facts)
        return facts.content


@flow(name="train-dpo", flow_run_name="dpo-{recipe.name}")
async def train_dpo(recipe: Recipe, out: Path | None = None) -> dict[str, Any]:
    """Train on the pairs, from the SFT model where the recipe has one. Dataset -> model."""
    with Run.opened(recipe, out) as run:
        facts = Facts.of(run)
        await train(run, "dpo", facts)
        return facts.content
