"""What stages made, as artifacts under the same keys in every run, so that Prefect shows how they change.

plan progress endpoints summary                              in `flows.artifacts`, as the run goes
funnel judge-summary preference-summary dataset              when pairs are written
training-<stage>                                             when a stage is trained
report                                                       at the end
"""

import json
from pathlib import Path
from typing import Any

from prefect.artifacts import acreate_link_artifact, acreate_markdown_artifact, acreate_table_artifact

from flows.artifacts import interval
from flows.events import tell
from flows.facts import Facts
from flows.run import Run
from reports.data import Training

ROWS = 40
"""Points of a training's table, at most; the curves in full are in the report."""


async def show_dataset(run: Run, facts: Facts) -> None:
    """What was left at every step, what judges said, and what the pairs are like."""
    content = facts.content
    dataset, preflight = content["dataset"], content.get("preflight", {})
    steps = [
        {"stage": s["stage"], "in": s["rows_in"], "out": s["rows_out"], "dropped": _counts(s["dropped"])}
        for s in dataset.get("funnel", ())
    ]
    await acreate_table_artifact(table=steps, key="funnel", description="Rows in and out of every step")
    judged = [
        {"answers by": model, "verdicts": sum(counts.values()), **counts}
        for model, counts in preflight.get("judgements", {}).items()
    ]
    await acreate_table_artifact(
        table=judged, key="judge-summary", description="Verdicts by status; only `ok` and `tie` have a score"
    )
    await acreate_markdown_artifact(
        key="preference-summary",
        markdown=preference_markdown(run.recipe.name, dataset, preflight),
        description="Pairs, and who wins them",
    )
    folder = (run.folder / "dataset").absolute()
    await acreate_link_artifact(
        link=folder.as_uri(),
        key="dataset",
        link_text=str(folder),
        description=f"digest {dataset['digest'][:16]}",
    )
    tell("dataset.published", run, pairs=dataset["pairs"], digest=dataset["digest"])


def preference_markdown(name: str, dataset: dict[str, Any], preflight: dict[str, Any]) -> str:
    lines = [f"# Pairs of {name}", "", "| split | pairs |", "|---|---|"]
    lines += [f"| {split} | {count} |" for split, count in dataset["pairs"].items()]
    lines += ["", f"Left out: {_counts(dataset['dropped']) or 'none'}", ""]
    if rates := preflight.get("win_rates"):
        lines += ["| model | wins of its pairs |", "|---|---|"]
        lines += [f"| {model} | {interval(rate)} |" for model, rate in rates.items()]
    if longer := preflight.get("longer_chosen"):
        lines += ["", f"The longer answer was chosen in {interval(longer)} of the pairs."]
    lines += [f"- {warning}" for warning in preflight.get("warnings", ())]
    return "\n".join(lines)


async def show_training(run: Run, stage: str, folder: Path) -> None:
    """Its curves, as a row for every logged step, or for some of them."""
    metrics = folder / "metrics.json"
    log = json.loads(metrics.read_text()).get("train", ()) if metrics.exists() else ()
    by_step: dict[float, dict[str, Any]] = {}
    for curve in Training.from_log(stage, log).curves:
        for step, value in curve.points:
            by_step.setdefault(step, {"step": step})[curve.metric] = float(f"{value:.4g}")
    rows = [by_step[step] for step in sorted(by_step)]
    every = max(1, -(-len(rows) // ROWS))
    await acreate_table_artifact(
        table=[row for i, row in enumerate(rows) if i % every == 0 or i == len(rows) - 1],
        key=f"training-{stage}",
        description=f"{run.recipe.name}, {stage}: {len(rows)} logged steps",
    )
    made = json.loads((folder / "model.json").read_text())
    tell("model.trained", run, stage=stage, folder=str(folder.absolute()), weights=made["weights"])


async def show_report(path: Path) -> None:
    await acreate_link_artifact(link=path.absolute().as_uri(), key="report", link_text=str(path.absolute()))


def _counts(found: dict[str, int]) -> str:
    return ", ".join(f"{count} {name}" for name, count in found.items())
