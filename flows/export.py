"""Copy what a run made, and nothing it worked with: the dataset, the models, the report."""

import shutil
from pathlib import Path
from typing import Any

from flows.recipe import RecipeError

WORK = shutil.ignore_patterns("*.partial", "*.job.json", "*.log", ".*")


def export(run: Path, to: Path) -> dict[str, Any]:
    """Copy dataset, models and report of `run` to the new or empty folder `to`.

    Raises:
        RecipeError: there is nothing to copy, or `to` has something in it.
    """
    parts = [run / name for name in ("dataset", "models", "report.html", "summary.json", "recipe.yaml")]
    found = [part for part in parts if part.exists()]
    if not (run / "dataset").exists():
        raise RecipeError(f"{run} has no dataset; run `zephyr run` or `zephyr pairs` first")
    if to.exists() and any(to.iterdir()):
        raise RecipeError(f"{to} is not empty; give a new folder")
    to.mkdir(parents=True, exist_ok=True)
    written = []
    for part in found:
        target = to / part.name
        if part.is_dir():
            shutil.copytree(part, target, ignore=WORK)
        else:
            shutil.copy2(part, target)
        written.append(str(target))
    return {"written": written}
