"""Copy what a run made, or publish it on the Hugging Face Hub; nothing of what it worked with."""

import re
import shutil
from pathlib import Path
from typing import Any

from flows.recipe import RecipeError

WORK = ("*.partial", "*.job.json", "*.log", ".*")
"""Files that a run works with; they stay where they are."""


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
            shutil.copytree(part, target, ignore=shutil.ignore_patterns(*WORK))
        else:
            shutil.copy2(part, target)
        written.append(str(target))
    return {"written": written}


def push(run: Path, name: str, public: bool = False) -> dict[str, Any]:
    """Publish the dataset of `run` as `name` (OWNER/NAME) and its models as NAME-<stage>, each with its card.

    A repository that is not there is made, private unless `public`; one that is there stays as visible as it is and
    its data files become these. The token is that of `hf auth login` or HF_TOKEN.

    Raises:
        RecipeError: nothing to publish, a name of another form, or the Hub refuses; what it said is in the message.
    """
    if not re.fullmatch(r"[\w.-]+/[\w.-]+", name):
        raise RecipeError(f"--push {name!r}: wanted OWNER/NAME, as in my-team/{run.name}")
    if not (run / "dataset").exists():
        raise RecipeError(f"{run} has no dataset; run `zephyr run` or `zephyr pairs` first")
    parts = [("dataset", name, run / "dataset")]
    models = sorted((run / "models").iterdir()) if (run / "models").is_dir() else []
    parts += [
        ("model", f"{name}-{folder.name}", folder) for folder in models if (folder / "model.json").exists()
    ]

    from huggingface_hub import HfApi
    from huggingface_hub.errors import HfHubHTTPError, LocalTokenNotFoundError

    api, written = HfApi(), []
    for kind, repo, folder in parts:
        try:
            api.create_repo(repo, repo_type=kind, private=not public, exist_ok=True)
            done = api.upload_folder(
                repo_id=repo,
                repo_type=kind,
                folder_path=folder,
                commit_message=f"zephyr export {run.name}",
                ignore_patterns=list(WORK),
                delete_patterns=["*.parquet"] if kind == "dataset" else None,
            )
        except (HfHubHTTPError, LocalTokenNotFoundError, OSError) as error:
            there = f"; already there: {', '.join(written)}" if written else ""
            raise RecipeError(f"--push {repo}: {' '.join(str(error).split())}{there}") from error
        written.append(str(done.commit_url))
    return {"pushed": written}
