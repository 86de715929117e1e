"""A training YAML of the alignment handbook, TRL or Axolotl -> a recipe, with every key that did not come along named.

    learning_rate: 5.0e-7                    training: {dpo: {learning_rate: 5.0e-7,
    lr_scheduler_type: cosine                          scheduler: cosine,
    per_device_train_batch_size: 8      ->             batch: 128, micro_batch: 8}}
    gradient_accumulation_steps: 2                     (with --gpus 8)
    push_to_hub: true                        # push_to_hub: dropped, …

What a key meant there decides, not what it is called; one that has no meaning here is dropped with its reason, and one
that nobody knows here is dropped as unknown. Never in silence, and never to a default that says otherwise.
"""

import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import yaml
from pydantic import ValidationError

from flows.recipe import Recipe, RecipeError
from flows.recipe_file import explain, read_fields
from flows.translate_keys import DROPPED, OPTIMIZERS, RENAMED, SAME, SCHEDULERS, TRL_DEFAULTS


@dataclass
class Translation:
    """A recipe's fields, and what became of the file's keys."""

    fields: dict[str, Any] = field(default_factory=dict)
    renamed: dict[str, str] = field(default_factory=dict)
    """Key -> place in the recipe, where it has another name or unit."""
    dropped: dict[str, str] = field(default_factory=dict)
    """Key -> why."""
    notes: list[str] = field(default_factory=list)

    def text(self) -> str:
        """The recipe as YAML, opened by what became of the keys."""
        head = [f"# {note}" for note in self.notes]
        head += [f"# {key} -> {place}" for key, place in self.renamed.items()]
        head += [f"# {key}: dropped, {why}" for key, why in self.dropped.items()]
        body = yaml.safe_dump(self.fields, sort_keys=False, allow_unicode=True, width=110)
        return "\n".join(head) + "\n" + body


def translate(files: list[Path], gpus: int = 1) -> Translation:
    """One recipe from one file, or from one of SFT and one of DPO. `gpus`: how many the batch was meant for.

    Raises:
        RecipeError: a file cannot be read or is no training YAML of the three, or the recipe it gives is refused.
    """
    found = Translation({"name": _name(files[0]), "training": {}})
    for file in files:
        _add(found, file, read_fields(file), gpus)
    try:
        Recipe.model_validate(found.fields)
    except ValidationError as error:
        raise RecipeError(
            f"{', '.join(map(str, files))}: what it says makes no recipe:\n{explain(error)}"
        ) from error
    return found


def _name(file: Path) -> str:
    names = [file.stem, file.parent.name] if file.stem.startswith("config") else [file.stem]
    return re.sub(r"[^a-z0-9]+", "-", "-".join(reversed(names)).lower()).strip("-")[:60] or "translated"


def _add(found: Translation, file: Path, given: dict[str, Any], gpus: int) -> None:
    given = {key: value for key, value in given.items() if value is not None}  # as if it were not there
    axolotl = "base_model" in given
    if not axolotl and "model_name_or_path" not in given:
        raise RecipeError(
            f"{file} names no model: wanted model_name_or_path (alignment handbook, TRL) or base_model (Axolotl)"
        )
    stage, plan = _stage(file, given), found.fields["training"]
    if stage in plan:
        raise RecipeError(f"{file} is a second file of {stage}; wanted one of SFT and one of DPO")
    mark = "" if len(plan) == 0 else f"{file.name}: "
    used: set[str] = set()

    def take(key: str, place: str | None = None) -> Any:
        """The key's value, if there; `place`: where it goes under another name."""
        if key in given:
            used.add(key)
            if place:
                found.renamed[mark + key] = place
        return given.get(key)

    base = take("base_model" if axolotl else "model_name_or_path", "training.base")
    if plan.get("sft") and stage == "dpo":
        found.notes.append(f"{file.name}: DPO starts from the model that SFT makes, in place of {base}")
    else:
        plan["base"] = base
        revision = take("model_revision", "training.revision")
        if revision not in (None, "main"):
            plan["revision"] = revision
    data = "pairs" if stage == "dpo" else "dialogues"
    plan[data] = _dataset(file, take, f"training.{data}")
    settings: dict[str, Any] = {}
    for key in SAME:
        if key in given:
            settings[key] = take(key)
    for key, name in RENAMED.items():
        if key in given and key != "chat_template":
            settings[name] = take(key, f"training.{stage}.{name}" if key != name else None)
    _template(take, settings, stage, found, mark)
    _batch(given, take, settings, stage, gpus, found, mark)
    _choices(take, settings, stage, found, mark)
    _adapter(given, take, settings, stage, found, mark)
    if stage == "sft" and take("packing", f"training.{stage}.packing") is not False:
        old = "dataset_mixer" in given  # the handbook's script packed whatever its file said
        if old or given.get("packing") or take("sample_packing", f"training.{stage}.packing"):
            settings["packing"] = "wrapped" if old or given.get("packing_strategy") == "wrapped" else True
        if old:
            settings["loss"] = "all"
            found.notes.append(f"{file.name}: the handbook's SFT always packs and trains on all tokens")
    if "seed" in given:
        found.fields["seed"] = take("seed")
    if not axolotl and (unsaid := {k: v for k, v in TRL_DEFAULTS[stage].items() if k not in settings}):
        settings |= unsaid
        found.notes.append(
            f"{mark}not in the file, so TRL's: {', '.join(f'{k} {v}' for k, v in unsaid.items())}"
        )
    plan[stage] = settings
    for key in given:
        if key not in used:
            found.dropped[mark + key] = DROPPED.get(key, "not known here")


def _stage(file: Path, given: Mapping[str, Any]) -> str:
    rl = given.get("rl")
    if rl not in (None, False, "dpo", "ipo"):
        raise RecipeError(f"{file}: rl={rl!r}; wanted dpo, ipo or none")
    pairwise = {"beta", "max_prompt_length", "loss_type", "rl_beta", "dpo_beta"} & given.keys()
    return "dpo" if rl or pairwise else "sft"


Take = Callable[..., Any]


def _dataset(file: Path, take: Take, place: str) -> dict[str, Any]:
    """The one dataset of a file, under any of the four ways of naming it."""
    if (mixer := take("dataset_mixer", f"{place}.dataset")) is not None:
        names = [{"id": name, "weight": share} for name, share in mixer.items()]
        splits = take("dataset_splits", f"{place}.train, {place}.test") or ["train", "test"]
        names[0] |= {"split": splits[0], "test": next((s for s in splits if s.startswith("test")), None)}
    elif (mixture := take("dataset_mixture", place)) is not None:
        names = [dict(one) for one in mixture["datasets"]]
    elif (listed := take("datasets", place)) is not None:
        names = [{"id": one["path"], "config": one.get("name"), "split": one.get("split")} for one in listed]
        test = take("test_datasets", f"{place}.test")
        names[0]["test"] = test[0].get("split") if test else None
    elif (name := take("dataset_name", f"{place}.dataset")) is not None:
        names = [{"id": name, "config": take("dataset_config", f"{place}.config")}]
        names[0] |= {"split": take("dataset_train_split", f"{place}.train")}
        names[0] |= {"test": take("dataset_test_split", f"{place}.test")}
    else:
        raise RecipeError(
            f"{file} names no data; wanted dataset_mixer, dataset_mixture, dataset_name or datasets"
        )
    share = names[0].get("weight", 1.0)
    if len(names) != 1 or share != 1.0:
        raise RecipeError(
            f"{file} mixes {', '.join(str(n['id']) + ' x ' + str(n.get('weight', 1.0)) for n in names)}; here a stage "
            "learns from all of one dataset: join them first, or take a part with `limit`"
        )
    (one,) = names
    found = {"dataset": one["id"], "config": one.get("config"), "train": one.get("split") or "train"}
    return {key: value for key, value in (found | {"test": one.get("test")}).items() if value is not None}


def _template(take: Take, settings: dict[str, Any], stage: str, found: Translation, mark: str) -> None:
    text = take("chat_template")
    if isinstance(text, str) and "{" in text:
        settings["template"] = text
        found.renamed[mark + "chat_template"] = f"training.{stage}.template"
    elif text and "template" not in settings:
        found.dropped[mark + "chat_template"] = (
            f"{text!r} is a name of its own; the base's template holds, or give its text as training.{stage}.template"
        )


def _batch(
    given: Mapping[str, Any],
    take: Take,
    settings: dict[str, Any],
    stage: str,
    gpus: int,
    found: Translation,
    mark: str,
) -> None:
    micro_key = "micro_batch_size" if "micro_batch_size" in given else "per_device_train_batch_size"
    micro = take(micro_key, f"training.{stage}.micro_batch")
    steps = take("gradient_accumulation_steps", f"training.{stage}.batch") or 1
    if micro is None and micro_key == "per_device_train_batch_size":
        micro = 8  # transformers' default
    if micro is not None:
        settings |= {"batch": micro * steps * gpus, "micro_batch": micro}
        found.notes.append(
            f"{mark}batch {micro * steps * gpus} = {micro} per GPU x {steps} x {gpus} GPUs; "
            "--gpus says how many there were"
        )
    limit = take("max_steps", None)
    if limit is not None and limit > 0:
        settings["max_steps"] = limit
    warmup = take("warmup_steps", f"training.{stage}.warmup")
    if warmup is not None and 0 < warmup < 1:
        settings["warmup"] = warmup
    elif warmup:
        found.renamed.pop(mark + "warmup_steps")
        found.dropped[mark + "warmup_steps"] = (
            f"warmup is a share of all steps here, and {warmup} is a number"
        )


def _choices(take: Take, settings: dict[str, Any], stage: str, found: Translation, mark: str) -> None:
    """Settings whose values have other names here."""
    for key, name, known in (
        ("lr_scheduler_type", "scheduler", SCHEDULERS),
        ("lr_scheduler", "scheduler", SCHEDULERS),
        ("optim", "optimizer", OPTIMIZERS),
        ("optimizer", "optimizer", OPTIMIZERS),
    ):
        value = take(key, f"training.{stage}.{name}")
        if value is None:
            continue
        if value in known:
            settings[name] = known[value]
        else:
            found.renamed.pop(mark + key)
            found.dropped[mark + key] = (
                f"{value!r} is none of {', '.join(sorted(set(known.values())))}; the default holds"
            )
    losses = take("loss_type", f"training.{stage}.loss")
    weights = take("loss_weights", f"training.{stage}.loss")
    if isinstance(losses, list):
        shares = weights or [1.0] * len(losses)
        settings["loss"] = losses[0] if len(losses) == 1 else dict(zip(losses, shares, strict=True))
    elif losses is not None:
        settings["loss"] = losses
    if take("rl", f"training.{stage}") == "ipo":
        settings["loss"] = "ipo"


def _adapter(
    given: Mapping[str, Any], take: Take, settings: dict[str, Any], stage: str, found: Translation, mark: str
) -> None:
    uses = bool(take("use_peft", f"training.{stage}.lora") or take("adapter", f"training.{stage}.lora"))
    places = {
        "lora_r": "r",
        "lora_alpha": "alpha",
        "lora_dropout": "dropout",
        "lora_target_modules": "target",
    }
    own: dict[str, Any] = {}
    for key, name in places.items():
        value = take(key, f"training.{stage}.lora.{name}" if uses else None)
        if value is not None and uses:
            own[name] = value
        elif value is not None:
            found.dropped[mark + key] = "all weights are trained, by use_peft or adapter"
    if take("lora_target_linear", f"training.{stage}.lora.target" if uses else None) and uses:
        own["target"] = "all-linear"
    if uses:
        if stage == "dpo" and own.pop("dropout", 0):
            found.renamed.pop(mark + "lora_dropout")
            found.dropped[mark + "lora_dropout"] = "DPO compares policy and reference without noise"
        four = take("load_in_4bit", f"training.{stage}.lora.quantize")
        kind = take("bnb_4bit_quant_type", f"training.{stage}.lora.quantize") if four else None
        if four:
            own["quantize"] = kind or "nf4"  # TRL's and the handbook's
        settings |= {"lora": own, "dtype": "bfloat16"}
