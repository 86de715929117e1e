"""What training a recipe would do wrong, and what it would take; from `trainers.doctor`, before weights are loaded."""

from typing import Any

from flows.job import BEFORE, Kind, job_of
from flows.recipe import RecipeError
from flows.run import Run
from trainers.doctor import Examined, Finding, examine
from trainers.job import Job


def doctor(run: Run) -> dict[str, Any]:
    """`ok`: no stage has an error. `stages`: what was found of each, and its cost where nothing stands against it.

    Raises:
        RecipeError: the recipe trains nothing.
    """
    plan = run.recipe.training
    kinds: list[Kind] = ["pretrain", "sft", "reward", "dpo"]  # rlhf has prompts alone, and samples its rows
    kinds = [kind for kind in kinds if getattr(plan, kind, None) is not None]
    if not kinds:
        raise RecipeError(f"recipe {run.recipe.name!r} trains nothing; add training.sft or training.dpo")
    found = {kind: _stage(run, kind) for kind in kinds}
    return {
        "ok": not any(stage.errors for stage in found.values()),
        "stages": {kind: stage.model_dump(mode="json") for kind, stage in found.items()},
    }


def _stage(run: Run, kind: Kind) -> Examined:
    try:
        launch = run.recipe.training.launch if run.recipe.training else None
        return examine(_job(run, kind), launch.devices if launch else 1)
    except RecipeError as error:
        what, _, fix = str(error).partition("; ")
        return Examined(findings=(Finding(level="warning", what="no_dataset", detail=what, fix=fix),))


def _job(run: Run, kind: Kind) -> Job:
    """As it would be trained; on the recipe's base where the model before it is not there yet: it is shaped alike."""
    plan = run.recipe.training
    missing = [each for each in BEFORE[kind] if not (run.model_folder(each) / "model.json").exists()]
    if plan is not None and missing:
        without = plan.model_copy(update=dict.fromkeys(missing))
        run = Run(run.recipe.model_copy(update={"training": without}), run.folder, run.store)
    return job_of(run, kind)


def doctor_text(found: dict[str, Any]) -> str:
    lines = []
    for kind, stage in found["stages"].items():
        findings, cost = stage["findings"], stage["cost"]
        lines.append(f"{kind}: {len(findings)} findings" if findings else f"{kind}: nothing found")
        lines += [f"  {f['level']:<8}{f['what']}: {f['detail']}; {f['fix']}" for f in findings]
        if cost is not None:
            parts = ", ".join(f"{name} {gb:.2f}" for name, gb in cost["memory_parts_gb"].items())
            lines += [
                f"  {cost['rows']} rows of {cost['tokens_per_row']:.0f} tokens, {cost['steps']} steps; "
                f"{cost['trained']:,} of {cost['parameters']:,} parameters trained",
                f"  memory  about {cost['memory_gb']:.2f} of {cost['available_gb']:.2f} GB: {parts}; "
                f"micro_batch up to {cost['micro_batch_that_fits']} fits",
                f"  time    about {_duration(cost['hours'])} at {cost['rows_per_s']:.2f} rows/s on {cost['device']}",
            ]
    return "\n".join(lines)


def _duration(hours: float) -> str:
    return f"{hours:.1f} h" if hours >= 1 else f"{60 * hours:.1f} min"
