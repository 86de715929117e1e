"""Prompts in, preference dataset out: the flows over completions and judgements. What they share is in `pool`."""

from pathlib import Path
from typing import Any

from prefect import flow

from flows.artifacts import publish_summary
from flows.cross_check import cross_check, with_judge
from flows.dataset import build_dataset
from flows.facts import Facts
from flows.load import figures
from flows.pool import collect
from flows.recipe import Recipe
from flows.run import Run
from flows.subject import Subject

RETRIED = ("parse_error", "off_scale", "truncated", "refused", "quarantined")
"""Statuses of a verdict that a judge model gave and that is none, and why a row is left out that may be asked again."""


@flow(name="generate-responses", flow_run_name="generate-{recipe.name}")
async def generate_responses(
    recipe: Recipe, out: Path | None = None, store: str | None = None
) -> dict[str, Any]:
    """Every sampler's answers to every prompt. Prompt -> Completion."""
    with Run.opened(recipe, out, store) as run:
        facts = Facts.of(run)
        await collect(run, facts, judged=False)
        return facts.content


@flow(name="judge-responses", flow_run_name="judge-{recipe.name}")
async def judge_responses(
    recipe: Recipe, out: Path | None = None, store: str | None = None, retry_failed: bool = False
) -> dict[str, Any]:
    """Every judge's verdict on every completion; asks for completions not there yet. Completion -> Judgement.

    `retry_failed`: verdicts that could not be read are asked again; the old ones are kept beside the new. So are
    rows that were quarantined.
    """
    with Run.opened(recipe, out, store) as run:
        facts = Facts.of(run)
        await collect(run, facts, again=RETRIED if retry_failed else ())
        return facts.content


@flow(name="reject-sample", flow_run_name="reject-{recipe.name}")
async def reject_sampling(
    recipe: Recipe, out: Path | None = None, store: str | None = None, check_with: Subject | None = None
) -> dict[str, Any]:
    """The judge's best answer of each prompt, as rows for SFT. Prompt -> Completion -> Judgement -> SFT row.

    `check_with`: another judge, that says whether the best answers are better than others.
    """
    if check_with is not None:
        with_judge(recipe, check_with)
    with Run.opened(recipe, out, store) as run:
        facts = Facts.of(run)
        prompts, dropped, answers = await collect(run, facts)
        build_dataset(run, prompts, dropped, answers, facts, of_winners=True)
        if check_with is not None:
            found = await cross_check(run, check_with, prompts, answers)
            facts.put("best_of_n_check", found)
            facts.put("endpoints", figures(run.folder))
        await publish_summary(facts)
        return facts.content


@flow(name="build-preferences", flow_run_name="preferences-{recipe.name}")
async def build_preferences(
    recipe: Recipe, out: Path | None = None, store: str | None = None
) -> dict[str, Any]:
    """Build one preference dataset: Prompt -> Completion -> Judgement -> Pair."""
    with Run.opened(recipe, out, store) as run:
        facts = Facts.of(run)
        prompts, dropped, answers = await collect(run, facts)
        build_dataset(run, prompts, dropped, answers, facts)
        await publish_summary(facts)
        return facts.content
