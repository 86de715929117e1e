"""The whole recipe: preferences, training, evaluation, report. Every step resumes what the last run left."""

import time
from pathlib import Path
from typing import Any

from prefect import flow

from flows.artifacts import publish_plan, publish_summary
from flows.evaluate import evaluate
from flows.facts import Facts
from flows.job import STAGES
from flows.plan import plan as count
from flows.plan import plan_text
from flows.preferences import build_preferences
from flows.progress import display
from flows.recipe import Recipe
from flows.report import draw
from flows.rounds import train_in_rounds
from flows.run import Run
from flows.suites.flow import benchmark
from flows.train import train_stage


@flow(name="zephyr", flow_run_name="zephyr-{recipe.name}")
async def zephyr(recipe: Recipe, out: Path | None = None, store: str | None = None) -> dict[str, Any]:
    """Prompts -> completions -> judgements -> pairs -> models -> evaluation."""
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
                await build_preferences(recipe, out, store)
            for stage in STAGES:
                if getattr(recipe.training, stage, None) is not None:
                    await train_stage(recipe, stage, out)
        if recipe.evaluation:
            await evaluate(recipe, out, store)
        if recipe.benchmark:
            await benchmark(recipe, out, store)
        facts = Facts.of(run)
        facts.put("report", str(draw(run)))
        await publish_summary(facts)
        return facts.content
