"""What lies in runs' folders that nothing needs any more: found, counted, and removed only when told to.

Answers were paid for, so of them only those go that the run's recipe as it is now would not use, and that nobody has
touched for a while. A run at work is left alone.
"""

import shutil
import time
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import asdict, dataclass
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any, Literal

import yaml
from pydantic import ValidationError

from flows.answers import stages_of
from flows.evaluate import contenders
from flows.recipe import Recipe, RecipeError
from flows.run import Run
from prompts.load import PromptError
from records.lock import exclusive
from records.store import REPLACED, StoreError
from serving.orphans import reap_orphans

DAY = 86_400.0
STAGES = ("prompts", "completions", "judgements")

Why = Literal["orphaned", "journal", "replaced", "unfinished", "work"]
WHYS: dict[Why, str] = {
    "orphaned": "answers to what the run's recipe does not ask any more",
    "journal": "answers of such a folder that were never sealed",
    "replaced": "answers that were asked or read again since",
    "unfinished": "checkpoints of a training whose model is there",
    "work": "files that a run works with, of one that has ended",
}


@dataclass(frozen=True)
class Garbage:
    """A file or folder that can go."""

    path: str
    why: Why
    bytes: int


def collect_garbage(runs: Path, older_than_days: float, *, delete: bool = False) -> dict[str, Any]:
    """Find what can go in all runs under `runs`, and remove it with `delete`. Servers whose run is gone are ended.

    `skipped`: runs that were left alone, and why.
    """
    before = time.time() - older_than_days * DAY
    found: list[Garbage] = []
    skipped: dict[str, str] = {}
    ended = reap_orphans(runs) if runs.is_dir() else []
    for folder in sorted(path.parent for path in runs.rglob("recipe.yaml")):
        try:
            with exclusive(folder):
                own = list(_of_run(folder, before))
                if delete:
                    for each in own:
                        _remove(Path(each.path))
                found += own
        except (StoreError, RecipeError, PromptError, ValidationError, yaml.YAMLError) as error:
            skipped[str(folder)] = " ".join(str(error).split())[:200]
    return {
        "found": [asdict(each) for each in found],
        "bytes": sum(each.bytes for each in found),
        "deleted": delete,
        "skipped": skipped,
        "servers_ended": ended,
    }


def garbage_text(found: dict[str, Any]) -> str:
    """For a terminal."""
    lines = [f"{_size(each['bytes']):>10}  {each['path']}  ({WHYS[each['why']]})" for each in found["found"]]
    lines += [f"{'skipped':>10}  {run}: {why}" for run, why in found["skipped"].items()]
    lines += [f"{'ended':>10}  server {server}, whose run is gone" for server in found["servers_ended"]]
    done = "removed" if found["deleted"] else "can go; `--delete` removes it"
    return "\n".join([*lines, f"{_size(found['bytes']):>10}  in {len(found['found'])} places {done}"])


def _of_run(folder: Path, before: float) -> Iterator[Garbage]:
    recipe = Recipe.model_validate(yaml.safe_load((folder / "recipe.yaml").read_text()))
    used = wanted(recipe, folder)
    for stage in STAGES:
        for own in sorted((folder / stage).glob("*/")):
            if not _old(own, before):
                continue
            if own.name not in used:
                if recipe.benchmark:  # its answers lie here too, by questions that are not read for this
                    continue
                unsealed = not any(own.glob("*.parquet"))
                yield _garbage(own, "journal" if unsealed and any(own.glob("*.jsonl")) else "orphaned")
            else:
                yield from (_garbage(file, "replaced") for file in sorted(own.glob(f"{REPLACED}*")))
    for partial in sorted((folder / "models").glob("*.partial")):
        if _old(partial, before) and (partial.with_suffix("") / "model.json").exists():
            yield _garbage(partial, "unfinished")
    for work in [folder / "processes", folder / "ranges", *sorted(folder.glob("servers/*.log"))]:
        if work.exists() and _old(work, before):
            yield _garbage(work, "work")


def wanted(recipe: Recipe, folder: Path) -> set[str]:
    """Fingerprints of all that the recipe asks for, its evaluation included. Writes nothing in the run's folder."""
    with TemporaryDirectory() as elsewhere:  # opening a stage makes its folder
        run = Run(recipe, folder, elsewhere)
        members = recipe.judges
        found = {run.prompts_stage().fingerprint}
        every = stages_of(run, recipe.samplers, members)
        if (evaluation := recipe.evaluation) is not None:
            found.add(run.prompts_stage(evaluation.prompts).fingerprint)
            models = contenders(run, evaluation.sampler.model)
            samplers = [
                evaluation.sampler.model_copy(update={"name": each.name, "model": each.name})
                for each in models
            ]
            every += stages_of(run, samplers, members, {each.name: each.identity for each in models})
        for own in every:
            found.add(own.stage.fingerprint)
            found |= {stage.fingerprint for stage in own.judge_stages.values()}
        return found


def _garbage(path: Path, why: Why) -> Garbage:
    files = path.rglob("*") if path.is_dir() else [path]
    return Garbage(str(path), why, sum(file.stat().st_size for file in files if file.is_file()))


def _old(path: Path, before: float) -> bool:
    """Whether nothing in it was changed since."""
    files = [path, *path.rglob("*")] if path.is_dir() else [path]
    return all(file.stat().st_mtime < before for file in files if file.is_file() or file == path)


def _remove(path: Path) -> None:
    with suppress(FileNotFoundError):
        if path.is_dir():
            shutil.rmtree(path)
        else:
            path.unlink()


def _size(count: float) -> str:
    for unit in ("B", "kB", "MB", "GB"):
        if count < 1000:
            return f"{count:.0f} {unit}" if unit == "B" else f"{count:.1f} {unit}"
        count /= 1000
    return f"{count:.1f} TB"
