"""A dataset in, a model folder out. Training runs in a process of its own, so torch and its memory end with it."""

import asyncio
import json
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

from prefect import task
from prefect.cache_policies import NO_CACHE

from flows.children import run_child
from flows.facts import Facts
from flows.flow import Given, flow
from flows.gpus import hold
from flows.job import Kind, job_of, published
from flows.progress import display
from flows.recipe import RecipeError
from flows.rewards import judging, looked_on
from flows.run import Run
from flows.shown import show_training
from flows.trainer import run_training
from flows.training_plan import TrainingPlan
from serving.gpus import detect
from trainers.job import Data
from trainers.launch import Launch, command

TRAINED = 3
"""Attempts of a training that is a child run; each goes on from the checkpoints of the one before."""


@task(name="train", task_run_name="train-{kind}", cache_policy=NO_CACHE, persist_result=False)
async def train(
    run: Run, kind: Kind, facts: Facts, label: str | None = None, reward: dict[str, Any] | None = None
) -> dict[str, Any]:
    """Train one stage; a finished model of the same settings, base and data is returned at once.

    `label`: tells models of one stage apart; None is the recipe's own. `reward`: the fields of a job of kind rlhf that
    say who scores.
    """
    stage = kind if label is None else f"{kind}-{label}"
    async with looked_on(run, kind, stage) as looks:
        job = await asyncio.to_thread(job_of, run, kind, stage, reward or looks)
        job.out.parent.mkdir(parents=True, exist_ok=True)
        path = job.out.with_name(f"{stage}.job.json")
        path.write_text(job.model_dump_json(indent=2))
        known = 0 if kind == "pretrain" else job.settings.steps(rows(job.train))
        display().add(f"train {stage}", known)
        async with hold(devices(run), f"train {stage} of {run.recipe.name}"):
            await run_training(path, job, f"train {stage}", command(launch_of(run), path))
    made = json.loads((job.out / "model.json").read_text())
    facts.content.setdefault("models", {})[stage] = model_facts(job.out)
    if published(run, kind) is not None:
        facts.content.setdefault("training_data", {})[kind] = dict(job.data_receipts[0])
    facts.save()
    await show_training(run, stage, job.out)
    return made


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
        found = {stage: run.model_folder(stage) for stage in ("sft", "dpo", "rlhf")}
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


@flow(name="train", flow_run_name="{kind}-{recipe.name}")
async def train_stage(recipe: Given, kind: Kind, out: Path | None = None) -> dict[str, Any]:
    """One stage of training, from the model of the stage before it where the recipe has one. Rows -> model.

    Pretraining learns from text, SFT from the best answers, a reward model and DPO from pairs; reinforcement learning
    samples answers to the run's prompts, and the judge, or the reward model, scores them.

    Args:
        recipe: What is done: the path of a recipe's file, or its fields.
        kind: The stage.
        out: Folder for runs; runs/ of the checkout.
    """
    with Run.opened(recipe, out) as run:
        facts = Facts.of(run)
        async with _scored(run, kind) as reward:
            await train(run, kind, facts, reward=reward)
        return facts.content


async def train_at(run: Run, kind: Kind, deployment: str | None) -> None:
    """A stage of training here, or as a child run of a deployment whose machine sees the same folder."""
    if deployment is None:
        await train_stage(run.recipe, kind, run.folder.parent)
        return
    recipe = run.recipe.model_dump(mode="json")
    parameters = {"recipe": recipe, "kind": kind, "out": str(run.folder.parent.absolute())}
    tags = [f"run:{run.recipe.name}", f"as:{run.recipe.fingerprint[:12]}", f"train:{kind}"]
    await run_child(deployment, parameters, f"{kind}-{run.recipe.name}", tags, TRAINED)


def devices(run: Run) -> int:
    """GPUs of this machine that a stage of training takes; none where there are none."""
    launch = launch_of(run)
    return (launch.here if launch else 1) if run.recipe.machine or detect() else 0


def launch_of(run: Run) -> Launch | None:
    return run.recipe.training.launch if run.recipe.training else None


@asynccontextmanager
async def _scored(run: Run, kind: Kind) -> AsyncIterator[dict[str, Any]]:
    """The fields of a job that say who scores what is sampled; none but for rlhf. A judge answers within the block.

    Raises:
        RecipeError: the reward model is not trained yet.
    """
    settings = run.recipe.training and run.recipe.training.rlhf
    if kind != "rlhf" or settings is None:
        yield {}
    elif settings.reward == "reward_model":
        folder = run.model_folder("reward")
        if not (folder / "model.json").exists():
            raise RecipeError(
                f"{folder} does not exist; run `zephyr reward` first, or `zephyr run` for everything"
            )
        made = json.loads((folder / "model.json").read_text())
        yield {"reward_model": folder, "reward": {"weights": made["weights"]}}
    else:
        async with judging(run) as (socket, who):
            yield {"socket": socket, "reward": who}
