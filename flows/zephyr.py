"""The whole recipe: preferences, training, evaluation, report. Every step resumes what the last run left."""

import time
from pathlib import Path
from typing import Any

from flows.artifacts import publish_plan, publish_summary
from flows.evaluate import evaluate_at
from flows.facts import Facts
from flows.flow import Given, flow
from flows.job import STAGES
from flows.plan import plan as count
from flows.plan import plan_text
from flows.preferences import build_preferences
from flows.progress import display
from flows.ranges import Elsewhere
from flows.report import draw
from flows.rounds import train_in_rounds
from flows.run import Run
from flows.shown import show_report
from flows.suites.flow import benchmark
from flows.train import train_at


@flow(name="zephyr", flow_run_name="zephyr-{recipe.name}")
async def zephyr(
    recipe: Given, out: Path | None = None, store: str | None = None, elsewhere: Elsewhere | None = None
) -> dict[str, Any]:
    """Prompts -> completions -> judgements -> pairs -> models -> evaluation.

    Args:
        recipe: What is done: the path of a recipe's file, or its fields.
        out: Folder for runs; runs/ of the checkout.
        store: Where shards go instead: any fsspec address, as s3://bucket/folder.
        elsewhere: Child runs on other machines; without it everything is done here.
    """
    with Run.opened(recipe, out, store) as run:
        facts = Facts.of(run)
        found = count(run)
        text = plan_text(run, found)
        display().ends = {name: time.monotonic() + end for name, end in found.ends.items()}
        await publish_plan(recipe.name, text)
        if facts.content.get("planned") != recipe.fingerprint:  # later runs find everything there already
            facts.content["plan"] = text
            facts.put("planned", recipe.fingerprint)
        if recipe.training and recipe.training.rounds:
            await train_in_rounds(recipe, out, store)
        else:
            if recipe.samplers:
                await build_preferences(recipe, out, store, elsewhere)
            for stage in STAGES:
                if getattr(recipe.training, stage, None) is not None:
                    await train_at(run, stage, elsewhere.training if elsewhere else None)
        if recipe.evaluation:
            await evaluate_at(run, elsewhere.evaluation if elsewhere else None)
        if recipe.benchmark:
            await benchmark(recipe, out, store)
        facts = Facts.of(run)
        report = draw(run)
        facts.put("report", str(report))
        await show_report(report)
        await publish_summary(facts)
        return facts.content
