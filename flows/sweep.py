"""The same pairs under several settings of DPO: a model each, one pass of the reference, one table at the end."""

import itertools
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import yaml
from pydantic import ValidationError

from flows.facts import Facts
from flows.flow import Given, flow
from flows.recipe import Recipe, RecipeError
from flows.recipe_file import explain
from flows.run import Run
from flows.train import train

SHOWN = ("loss", "rewards/accuracies", "rewards/margins", "logps/chosen")
"""What the table has of the held-out pairs, after training."""


def settings_of(recipe: Given, sweep: Sequence[str]) -> dict[str, Recipe]:
    """Label -> recipe, for every combination of `field=value,value,…` of DPO's settings.

    Raises:
        RecipeError: not of that form, no such field, or a value that it cannot have.
    """
    if recipe.training is None or recipe.training.dpo is None:
        raise RecipeError(f"training.dpo is not in recipe {recipe.name!r}; add it to train this stage")
    axes = []
    for each in sweep:
        field, found, values = each.partition("=")
        if not found or not values:
            raise RecipeError(f"--sweep {each!r} must be field=value,value, as in --sweep beta=0.01,0.1")
        axes.append([(field.strip(), yaml.safe_load(value)) for value in values.split(",")])
    made = {}
    for chosen in itertools.product(*axes):
        label = "-".join(f"{field}-{value}" for field, value in chosen).replace("/", "-")
        plain = recipe.model_dump(mode="json")
        plain["training"]["dpo"] |= dict(chosen)
        try:
            made[label] = Recipe.model_validate(plain)
        except ValidationError as error:
            raise RecipeError(f"--sweep {label}:\n{explain(error)}") from error
    return made


@flow(name="sweep-dpo", flow_run_name="sweep-{recipe.name}")
async def sweep_dpo(recipe: Given, sweep: list[str], out: Path | None = None) -> dict[str, Any]:
    """Train one model for each setting, one after the other. The reference is computed for the first alone."""
    recipes = settings_of(recipe, sweep)
    with Run.opened(recipe, out) as run:
        facts = Facts.of(run)
        for label, variant in recipes.items():
            await train(Run(variant, run.folder, run.store), "dpo", facts, label)
        models = facts.content["models"]
        facts.put("sweep", {label: table_row(models[f"dpo-{label}"]) for label in recipes})
        return facts.content


def table_row(model: dict[str, Any]) -> dict[str, Any]:
    after, reference = model.get("eval_after") or {}, model.get("reference") or {}
    return {
        "model": model["folder"],
        **{name: after.get(name) for name in SHOWN},
        "reference_computed": sum(split["computed"] for split in reference.values()),
    }


def table_text(sweep: dict[str, dict[str, Any]]) -> str:
    width = max(map(len, sweep), default=0)
    head = f"{'':<{width}}  {'loss':>8}{'accuracy':>10}{'margin':>9}{'chosen':>10}   on held-out pairs"
    lines = [head]
    for label, row in sweep.items():
        figures = ["-" if row[name] is None else f"{row[name]:.3f}" for name in SHOWN]
        cells = "".join(figure.rjust(w) for figure, w in zip(figures, (8, 10, 9, 10), strict=True))
        lines.append(f"{label:<{width}}  {cells}   {row['model']}")
    return "\n".join(lines)
