"""What the trainer is told: a recipe's stage with its settings, its base, its rows and where they came from."""

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Literal

from pydantic import TypeAdapter

from flows.dataset_card import lineage
from flows.inputs import gather_prompts
from flows.recipe import RecipeError
from flows.run import Run
from flows.shareable import licences, shareable, shown
from flows.training_plan import Pretraining
from pairs.training_data import DATA, TrainingData, prepare
from prompts.chat import chat_template
from records.schema import Prompt
from trainers.job import Data, Job

Kind = Literal["pretrain", "sft", "reward", "dpo", "rlhf"]
STAGES: tuple[Kind, ...] = ("pretrain", "sft", "reward", "dpo", "rlhf")
"""In the order in which they are trained."""
BEFORE: dict[Kind, tuple[Kind, ...]] = {
    "pretrain": (),
    "sft": ("pretrain",),
    "reward": ("sft", "pretrain"),
    "dpo": ("sft", "pretrain"),
    "rlhf": ("sft", "pretrain"),
}
"""What a stage starts from: the first of these that the recipe has, else its base."""
VIEWS: dict[Kind, str] = {"sft": "trl_sft/{}", "reward": "data/{}_prefs", "dpo": "data/{}_prefs"}
"""Where a stage's rows are in the dataset's folder, by split. Of pairs it is also read what the margin is, and which
models wrote the answers."""


def job_of(run: Run, kind: Kind, stage: str | None = None, reward: dict[str, Any] | None = None) -> Job:
    """What the trainer is told, for a model named `stage`. `reward`: see `train`, or `looked_on`.

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
    base, receipt = None, {"name": shown(name), "revision": revision}
    if served is not None and served.weights:
        receipt = {"name": shown(name), "digest": served.weights}
    if before := next((each for each in BEFORE[kind] if getattr(plan, each) is not None), None):
        base = run.model_folder(before)
        if not (base / "model.json").exists():
            raise RecipeError(
                f"{base} does not exist; run `zephyr {before}` first, or `zephyr run` for everything"
            )
        made = json.loads((base / "model.json").read_text())
        receipt = {"name": f"{recipe.name}-{before}", "digest": made["weights"]}
        receipt["licenses"] = made.get("licenses")
    fields: dict[str, Any] = {
        "kind": kind,
        "settings": settings.trained if isinstance(settings, Pretraining) else settings,
        "name": f"{recipe.name}-{stage or kind}",
        "base": base or resolve_transformers(name, revision),
        "base_receipt": receipt | {"license": served.license if served else plan.license},
        "train": train,
        "eval": held_out,
        "data_receipts": receipts,
        "out": run.model_folder(stage or kind),
        "seed": recipe.seed,
        "recipe": shareable(recipe),
    }
    if plan.gguf is not None and kind not in ("pretrain", "reward"):
        fields |= {"gguf": resolve_gguf(name, revision).path, "gguf_type": plan.gguf}
    if kind == "dpo":
        fields["references"] = run.folder / "reference"
    return TypeAdapter(Job).validate_python(fields | (reward or {}))


def published(run: Run, kind: Kind) -> TrainingData | None:
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
        prompts = [prompt for prompt in gather_prompts(run)[0] if prompt.meta["split"] == "train"]
        if not prompts:
            raise RecipeError("training.rlhf: every prompt is held out; lower splits.test or add prompts")
        told = {"licenses": licences(run.recipe)}
        return Data(files=(write_prompts(run, prompts, "rlhf"),)), None, (told,)
    if (source := published(run, kind)) is not None:
        folder = run.training_data(DATA[kind])
        receipt = prepare(source, DATA[kind], folder)
        receipt |= {"source": shown(source.label), "license": source.license}
        of = {split: folder / f"{split}.parquet" for split in ("train", "test")}
    else:
        digest = run.read_json("summary.json").get("dataset", {}).get("digest")
        receipt = {"dataset": digest} | lineage(run.recipe) | {"licenses": licences(run.recipe)}
        of = {s: run.folder / "dataset" / f"{VIEWS[kind].format(s)}.parquet" for s in ("train", "test")}
    if not of["train"].exists():
        raise RecipeError(
            f"{of['train']} does not exist; run `zephyr pairs` first, or `zephyr run` for everything"
        )
    held = Data(files=(of["test"],)) if of["test"].exists() else None
    return Data(files=(of["train"],)), held, (receipt,)


def write_prompts(run: Run, prompts: Sequence[Prompt], stage: str) -> Path:
    """Prompts as a file of `prompt` and `prompt_id`, beside the stage's model."""
    import pyarrow as pa
    import pyarrow.parquet as pq

    rows = [{"prompt": [m.model_dump() for m in p.messages], "prompt_id": p.id} for p in prompts]
    path = run.folder / "models" / f"{stage}.prompts.parquet"
    path.parent.mkdir(parents=True, exist_ok=True)
    pq.write_table(pa.Table.from_pylist(rows), path)
    return path
