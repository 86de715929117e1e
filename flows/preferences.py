"""Prompts in, preference dataset out: the flows over completions and judgements. What they share is in `pool`."""

from pathlib import Path
from typing import Any

from flows.artifacts import publish_summary
from flows.cross_check import cross_check, with_judge
from flows.dataset import build_dataset
from flows.facts import Facts
from flows.flow import Given, flow
from flows.load import figures
from flows.pool import collect
from flows.ranges import Elsewhere
from flows.run import Run
from flows.shown import show_dataset
from flows.subject import Subject

RETRIED = ("parse_error", "off_scale", "truncated", "refused", "quarantined")
"""Statuses of a verdict that a judge model gave and that is none, and why a row is left out that may be asked again."""


@flow(name="generate-responses", flow_run_name="generate-{recipe.name}")
async def generate_responses(
    recipe: Given, out: Path | None = None, store: str | None = None, elsewhere: Elsewhere | None = None
) -> dict[str, Any]:
    """Every sampler's answers to every prompt. Prompt -> Completion.

    Args:
        recipe: What is done: the path of a recipe's file, or its fields.
        out: Folder for runs; runs/ of the checkout.
        store: Where shards go instead: any fsspec address, as s3://bucket/folder.
        elsewhere: Child runs on other machines; without it everything is done here.
    """
    with Run.opened(recipe, out, store) as run:
        facts = Facts.of(run)
        await collect(run, facts, judged=False, elsewhere=elsewhere)
        return facts.content


@flow(name="judge-responses", flow_run_name="judge-{recipe.name}")
async def judge_responses(
    recipe: Given,
    out: Path | None = None,
    store: str | None = None,
    retry_failed: bool = False,
    elsewhere: Elsewhere | None = None,
) -> dict[str, Any]:
    """Every judge's verdict on every completion; asks for completions not there yet. Completion -> Judgement.

    Args:
        recipe: What is done: the path of a recipe's file, or its fields.
        out: Folder for runs; runs/ of the checkout.
        store: Where shards go instead: any fsspec address, as s3://bucket/folder.
        retry_failed: Verdicts that could not be read are asked again; the old ones are kept beside the new. So are
            rows that were quarantined.
        elsewhere: Child runs on other machines; without it everything is done here.
    """
    with Run.opened(recipe, out, store) as run:
        facts = Facts.of(run)
        await collect(run, facts, again=RETRIED if retry_failed else (), elsewhere=elsewhere)
        return facts.content


@flow(name="reject-sample", flow_run_name="reject-{recipe.name}")
async def reject_sampling(
    recipe: Given, out: Path | None = None, store: str | None = None, check_with: Subject | None = None
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
    recipe: Given, out: Path | None = None, store: str | None = None, elsewhere: Elsewhere | None = None
) -> dict[str, Any]:
    """Build one preference dataset: Prompt -> Completion -> Judgement -> Pair.

    Args:
        recipe: What is done: the path of a recipe's file, or its fields.
        out: Folder for runs; runs/ of the checkout.
        store: Where shards go instead: any fsspec address, as s3://bucket/folder.
        elsewhere: Child runs on other machines; without it everything is done here.
    """
    with Run.opened(recipe, out, store) as run:
        facts = Facts.of(run)
        prompts, dropped, answers = await collect(run, facts, elsewhere=elsewhere)
        build_dataset(run, prompts, dropped, answers, facts)
        await show_dataset(run, facts)
        await publish_summary(facts)
        return facts.content
