"""A dataset in, a model folder out. Training runs in a process of its own, so torch and its memory end with it."""

import asyncio
import contextlib
import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any, Literal

from prefect import flow, task
from prefect.cache_policies import NO_CACHE
from pydantic import TypeAdapter

from flows.facts import Facts
from flows.inputs import gather_prompts
from flows.progress import display
from flows.recipe import Pretraining, Recipe, RecipeError, TrainingPlan
from flows.rewards import judging
from flows.run import Run
from pairs.training_data import DATA, TrainingData, prepare
from prompts.chat import chat_template
from serving import guard
from trainers.job import Data, Job

Kind = Literal["pretrain", "sft", "reward", "dpo", "rlhf"]
BEFORE: dict[Kind, tuple[Kind, ...]] = {
    "pretrain": (),
    "sft": ("pretrain",),
    "reward": ("sft", "pretrain"),
    "dpo": ("sft", "pretrain"),
    "rlhf": ("sft", "pretrain"),
}
"""What a stage starts from: the first of these that the recipe has, else its base."""
VIEWS: dict[Kind, str] = {"sft": "trl_sft/{}", "reward": "data/{}_prefs", "dpo": "trl/{}"}
"""Where a stage's rows are in the dataset's folder, by split. The reward model reads margins too."""


class TrainingFailed(Exception):
    """The training process ended without a model. Its checkpoints are kept; the same command goes on from them."""


@task(name="train", task_run_name="train-{kind}", cache_policy=NO_CACHE, persist_result=False)
async def train(
    run: Run, kind: Kind, facts: Facts, label: str | None = None, reward: dict[str, Any] | None = None
) -> dict[str, Any]:
    """Train one stage; a finished model of the same settings, base and data is returned at once.

    `label`: tells models of one stage apart; None is the recipe's own. `reward`: the fields of a job of kind rlhf that
    say who scores.
    """
    stage = kind if label is None else f"{kind}-{label}"
    job = await asyncio.to_thread(job_of, run, kind, stage, reward)
    job.out.parent.mkdir(parents=True, exist_ok=True)
    path = job.out.with_name(f"{stage}.job.json")
    path.write_text(job.model_dump_json(indent=2))
    known = 0 if kind == "pretrain" else job.settings.steps(rows(job.train))
    display().add(f"train {stage}", known)
    await asyncio.to_thread(_run, path, job, f"train {stage}")
    made = json.loads((job.out / "model.json").read_text())
    facts.content.setdefault("models", {})[stage] = model_facts(job.out)
    if _published(run, kind) is not None:
        facts.content.setdefault("training_data", {})[kind] = dict(job.data_receipts[0])
    facts.save()
    return made


def job_of(run: Run, kind: Kind, stage: str | None = None, reward: dict[str, Any] | None = None) -> Job:
    """What the trainer is told, for a model named `stage`. `reward`: see `train`.

    Raises:
        RecipeError: there is no such stage in the recipe, or no dataset or model to start from yet.
        WrongModel: the base's weights cannot be found.
    """
    from serving.weights import resolve_gguf, resolve_transformers

    recipe, plan = run.recipe, run.recipe.training
    settings = getattr(plan, kind, None)
    if plan is None or settings is None:
        raise RecipeError(f"training.{kind} is not in recipe {recipe.name!r}; add it to train this stage")
    train, held_out, receipts = _data(run, kind)
    if settings.template_name:
        settings = settings.model_copy(update={"template": chat_template(settings.template_name)})
    served = recipe.models.get(plan.base)
    name, revision = (served.model, served.revision) if served else (plan.base, plan.revision)
    base, receipt = None, {}
    if served is not None and served.weights:
        receipt = {"name": name, "digest": served.weights}
    if before := next((each for each in BEFORE[kind] if getattr(plan, each) is not None), None):
        base = run.model_folder(before)
        if not (base / "model.json").exists():
            raise RecipeError(
                f"{base} does not exist; run `zephyr {before}` first, or `zephyr run` for everything"
            )
        made = json.loads((base / "model.json").read_text())
        receipt = {"name": f"{recipe.name}-{before}", "digest": made["weights"]}
    fields: dict[str, Any] = {
        "kind": kind,
        "settings": settings.trained if isinstance(settings, Pretraining) else settings,
        "name": f"{recipe.name}-{stage or kind}",
        "base": base or resolve_transformers(name, revision),
        "base_receipt": receipt or {"name": name, "revision": revision},
        "train": train,
        "eval": held_out,
        "data_receipts": receipts,
        "out": run.model_folder(stage or kind),
        "seed": recipe.seed,
        "recipe": (run.folder / "recipe.yaml").read_text() if (run.folder / "recipe.yaml").exists() else "",
    }
    if plan.gguf is not None and kind not in ("pretrain", "reward"):
        fields |= {"gguf": resolve_gguf(name, revision).path, "gguf_type": plan.gguf}
    if kind == "dpo":
        fields["references"] = run.folder / "reference"
    return TypeAdapter(Job).validate_python(fields | (reward or {}))


def _published(run: Run, kind: Kind) -> TrainingData | None:
    """The dataset that a stage learns from in place of this run's."""
    return None if kind in ("pretrain", "rlhf") else getattr(run.recipe.training, DATA[kind])


def _data(run: Run, kind: Kind) -> tuple[Data, Data | None, tuple[dict[str, Any], ...]]:
    """Rows to train on and held-out ones, and what they were made from.

    Raises:
        RecipeError: they are not there.
        PromptError: the recipe names a dataset that cannot be read, or that is not what the recipe says it is.
    """
    plan = run.recipe.training
    if kind == "pretrain":
        assert plan is not None and plan.pretrain is not None
        own = plan.pretrain
        if missing := [file for file in (*own.files, *own.held_out) if not Path(file).is_file()]:
            raise RecipeError(f"training.pretrain: {missing} are not there; files of texts are wanted")
        train, held_out = (tuple(map(Path, files)) for files in (own.files, own.held_out))
        return Data(files=train), Data(files=held_out) if held_out else None, ()
    if kind == "rlhf":
        return Data(files=(write_prompts(run),)), None, ()
    if (source := _published(run, kind)) is not None:
        folder = run.training_data(DATA[kind])
        receipt = prepare(source, DATA[kind], folder)
        of = {split: folder / f"{split}.parquet" for split in ("train", "test")}
    else:
        receipt = {"dataset": run.read_json("summary.json").get("dataset", {}).get("digest")}
        of = {s: run.folder / "dataset" / f"{VIEWS[kind].format(s)}.parquet" for s in ("train", "test")}
    if not of["train"].exists():
        raise RecipeError(
            f"{of['train']} does not exist; run `zephyr pairs` first, or `zephyr run` for everything"
        )
    held = Data(files=(of["test"],)) if of["test"].exists() else None
    return Data(files=(of["train"],)), held, (receipt,)


def write_prompts(run: Run) -> Path:
    """The run's training prompts as a file of `prompt` and `prompt_id`.

    Raises:
        RecipeError: all of them are held out.
    """
    import pyarrow as pa
    import pyarrow.parquet as pq

    prompts = [prompt for prompt in gather_prompts(run)[0] if prompt.meta["split"] == "train"]
    if not prompts:
        raise RecipeError("training.rlhf: every prompt is held out; lower splits.test or add prompts")
    rows = [{"prompt": [m.model_dump() for m in p.messages], "prompt_id": p.id} for p in prompts]
    path = run.folder / "models" / "rlhf.prompts.parquet"
    path.parent.mkdir(parents=True, exist_ok=True)
    pq.write_table(pa.Table.from_pylist(rows), path)
    return path


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


def _run(path: Path, job: Job, bar: str) -> None:
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
        str(path),
    ]
    done, step, log = 0, None, path.with_name(path.name.replace(".job.json", ".log"))
    with log.open("wb") as output:
        process = subprocess.Popen(command, stdout=output, stderr=output, start_new_session=True)
        try:
            while process.poll() is None:
                with contextlib.suppress(subprocess.TimeoutExpired):
                    process.wait(0.5)
                for line in _lines(job.partial / "progress.jsonl"):
                    if step is None:  # now it is known how many there are
                        step = display().add(bar, line["steps"] - display().bars[bar].total)
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


@flow(name="pretrain", flow_run_name="pretrain-{recipe.name}")
async def pretrain(recipe: Recipe, out: Path | None = None) -> dict[str, Any]:
    """Go on pretraining the base on texts. Text -> model."""
    with Run.opened(recipe, out) as run:
        facts = Facts.of(run)
        await train(run, "pretrain", facts)
        return facts.content


@flow(name="train-reward", flow_run_name="reward-{recipe.name}")
async def train_reward(recipe: Recipe, out: Path | None = None) -> dict[str, Any]:
    """Train a reward model on the pairs, from the SFT model where the recipe has one. Dataset -> model."""
    with Run.opened(recipe, out) as run:
        facts = Facts.of(run)
        await train(run, "reward", facts)
        return facts.content


@flow(name="train-rlhf", flow_run_name="rlhf-{recipe.name}")
async def train_rlhf(recipe: Recipe, out: Path | None = None) -> dict[str, Any]:
    """Reinforcement learning from the judge's scores, or a reward model's. Prompts -> model."""
    with Run.opened(recipe, out) as run:
        facts, plan = Facts.of(run), recipe.training
        if plan is None or plan.rlhf is None:
            raise RecipeError(f"training.rlhf is not in recipe {recipe.name!r}; add it to train this stage")
        if plan.rlhf.reward == "reward_model":
            folder = run.model_folder("reward")
            if not (folder / "model.json").exists():
                raise RecipeError(
                    f"{folder} does not exist; run `zephyr reward` first, or `zephyr run` for everything"
                )
            made = json.loads((folder / "model.json").read_text())
            await train(
                run, "rlhf", facts, reward={"reward_model": folder, "reward": {"weights": made["weights"]}}
            )
        else:
            async with judging(run) as (socket, who):
                await train(run, "rlhf", facts, reward={"socket": socket, "reward": who})
        return facts.content


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
