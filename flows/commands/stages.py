"""A recipe from its plan to its report: the whole run, its stages one by one, and what they made."""

import asyncio
import sys
from pathlib import Path
from typing import Annotated

import typer

from flows.commands.console import (
    Answer,
    Commands,
    Out,
    RecipePath,
    RunPath,
    Set,
    Store,
    conduct,
    read,
    summary,
)

stages = Commands("A run")


@stages.command()
def run(recipe: RecipePath, set: Set = None, out: Out = None, store: Store = None) -> Answer:
    """Everything: completions, judgements, pairs, SFT, DPO, evaluation, report. Goes on where it was stopped."""
    settings = read(recipe, set)
    from flows.zephyr import zephyr

    return summary(lambda: zephyr(settings, out, store))


@stages.command()
def plan(
    recipe: RecipePath,
    set: Set = None,
    out: Out = None,
    store: Store = None,
    probe: Annotated[
        bool,
        typer.Option(
            "--probe",
            help="Measure the speed of endpoints that are up: some seventy requests each, a minute at most.",
        ),
    ] = False,
) -> Answer:
    """Calls, tokens, money, GPU-hours and time before anything is spent, and what is there already."""
    settings = read(recipe, set)
    from flows.plan import plan as count
    from flows.plan import plan_text
    from flows.run import Run
    from flows.speeds import speeds

    found = Run.at(settings, out, store)
    counted = count(found, asyncio.run(speeds(found)) if probe else None)
    return counted.content() | {"text": plan_text(found, counted)}, lambda plan: plan["text"]


@stages.command()
def generate(recipe: RecipePath, set: Set = None, out: Out = None, store: Store = None) -> Answer:
    """Every sampler's answers to every prompt."""
    settings = read(recipe, set)
    from flows.preferences import generate_responses

    return summary(lambda: generate_responses(settings, out, store))


@stages.command()
def judge(
    recipe: RecipePath,
    retry_failed: Annotated[
        bool, typer.Option("--retry-failed", help="Ask again where a judge's answer was no verdict.")
    ] = False,
    reparse: Annotated[
        bool, typer.Option("--reparse", help="Read stored answers of judges again; asks nothing.")
    ] = False,
    set: Set = None,
    out: Out = None,
    store: Store = None,
) -> Answer:
    """Every judge's verdict on every completion."""
    settings = read(recipe, set)
    if reparse:
        from flows.recipe import RecipeError
        from flows.reparse import reparse as read_again
        from flows.reparse import reparse_text

        if retry_failed:
            raise RecipeError("--reparse asks nothing and --retry-failed asks again; give one of them")
        return conduct(lambda: read_again(settings, out, store)), reparse_text
    from flows.preferences import judge_responses

    return summary(lambda: judge_responses(settings, out, store, retry_failed))


@stages.command()
def pairs(recipe: RecipePath, set: Set = None, out: Out = None, store: Store = None) -> Answer:
    """The preference dataset, from completions and judgements; asks only for those that are missing."""
    settings = read(recipe, set)
    from flows.preferences import build_preferences

    return summary(lambda: build_preferences(settings, out, store))


@stages.command("reject-sample")
def reject_sample(
    recipe: RecipePath,
    check_with: Annotated[
        Path | None,
        typer.Option(
            "--check-with",
            metavar="OTHER",
            help="A recipe or judge file: does its judge find the best better?",
        ),
    ] = None,
    set: Set = None,
    out: Out = None,
    store: Store = None,
) -> Answer:
    """Best-of-n: the judge's best answer of each prompt as a row for SFT."""
    settings = read(recipe, set)
    from flows.subject import load_subject

    other = load_subject(check_with) if check_with else None
    from flows.preferences import reject_sampling

    return summary(lambda: reject_sampling(settings, out, store, other))


@stages.command()
def evaluate(recipe: RecipePath, set: Set = None, out: Out = None, store: Store = None) -> Answer:
    """Held-out prompts before and after training, scored by the recipe's judge, with intervals."""
    settings = read(recipe, set)
    from flows.evaluate import evaluate as flow

    return summary(lambda: flow(settings, out, store))


@stages.command()
def benchmark(recipe: RecipePath, set: Set = None, out: Out = None, store: Store = None) -> Answer:
    """MT-Bench, AlpacaEval, Arena-Hard, IFEval and academic sets, before and after training."""
    settings = read(recipe, set)
    from flows.suites.flow import benchmark as flow

    return summary(lambda: flow(settings, out, store))


@stages.command()
def show(
    recipe: RecipePath,
    prompt_id: Annotated[
        str | None, typer.Argument(help="The beginning of a prompt's id; without it, one that became a pair.")
    ] = None,
    set: Set = None,
    out: Out = None,
    store: Store = None,
) -> Answer:
    """One record at every stage, with the judge's exact prompt and raw answer."""
    settings = read(recipe, set)
    from flows.run import Run
    from flows.show import show as find
    from flows.show import show_text

    return find(Run.at(settings, out, store), prompt_id), show_text


@stages.command()
def report(run: RunPath) -> Answer:
    """Write the run's report.html again and say where it is."""
    from flows.report import write

    return {"report": str(write(run))}, lambda found: found["report"]


@stages.command()
def view(
    run: RunPath,
    against: Annotated[
        Path | None,
        typer.Option("--against", metavar="OTHER", help="A run's or dataset's folder, to see what differs."),
    ] = None,
    annotator: Annotated[
        str, typer.Option("--annotator", metavar="NAME", help="Who labels, as it stands in the labels.")
    ] = "person",
    seed: Annotated[int, typer.Option(min=0, help="Of the order in which pairs are asked about.")] = 0,
    port: Annotated[int, typer.Option(min=0, max=65535, help="On 127.0.0.1; 0 takes any.")] = 8321,
) -> Answer:
    """A local page to search a run's pairs, see what judges said, compare datasets and label by hand. Asks no model."""
    from flows.view import serve

    def say(text: str) -> None:
        print(text, file=sys.stderr, flush=True)

    found = serve(run, against, annotator, seed, port, say)
    return found, lambda found: f"{found['new']} new labels, {found['labels']} of {annotator} in all"
