"""How good a judge is, on labels of people and on a truth that is known."""

from pathlib import Path
from typing import Annotated

import typer

from flows.commands.console import Answer, Commands, Out, Set, conduct, read

judges = Commands("Judges")


@judges.command("judge-card")
def judge_card(
    judge: Annotated[
        Path,
        typer.Argument(metavar="RECIPE|JUDGE", help="A recipe, or a file with only `models` and `judge`."),
    ],
    gold: Annotated[
        Path,
        typer.Option(
            "--gold",
            metavar="FILE|RUN",
            help="Answers that people have compared, or a run labelled in the viewer.",
        ),
    ],
    layout: Annotated[
        str, typer.Option(help="Of the file: gold, pandalm, hhh, judgebench, llmbar, autoj; auto looks.")
    ] = "auto",
    limit: Annotated[
        int | None, typer.Option(min=1, help="Rows of the file, at most; drawn by chance.")
    ] = None,
    margin: Annotated[
        float, typer.Option(min=0, max=1, help="Scores nearer than this are a tie; on the scale 0 to 1.")
    ] = 0.0,
    canaries: Annotated[
        int, typer.Option(min=0, help="Items whose better answer is put against bad ones that must lose.")
    ] = 50,
    set: Set = None,
    out: Out = None,
) -> Answer:
    """How good a judge is on labels of people: agreement, biases, calibration, failures, cost."""
    from flows.subject import load_subject
    from judges.gold import layout_named, load_gold

    subject, known = load_subject(judge, set or ()), layout_named(layout)
    if gold.is_dir():
        from flows.labels import gold_file

        gold = gold_file(gold)
    load_gold(gold, known)
    from flows.card_text import card_text
    from flows.judge_card import judge_card as flow

    return conduct(lambda: flow(subject, gold, known, limit, margin, canaries, out)), card_text


Share = Annotated[float, typer.Option(min=0, max=1, help="Share of its replies.")]


@judges.command()
def selftest(
    recipe: Annotated[
        Path | None,
        typer.Argument(
            metavar="[RECIPE]", help="Its judge, pairs and samplers; without one, every kind of judge."
        ),
    ] = None,
    prompts: Annotated[int, typer.Option(min=1, help="Prompts asked.")] = 500,
    answers: Annotated[
        int | None,
        typer.Option(min=2, max=16, help="Answers to each; 4. A recipe's samplers decide themselves."),
    ] = None,
    kinds: Annotated[
        str, typer.Option(metavar="A,B", help="Kinds of judges, or single ones as pairwise/ties; all.")
    ] = "",
    seed: Annotated[int, typer.Option(min=0, help="Of all chance.")] = 0,
    bias: Annotated[
        float, typer.Option(min=0, max=0.4, help="The oracle's liking for the first place.")
    ] = 0.2,
    noise: Annotated[
        float, typer.Option(min=0, max=0.5, help="Of its verdicts, as a share of the scale.")
    ] = 0.05,
    malformed: Share = 0.05,
    truncated: Share = 0.02,
    refused: Share = 0.02,
    set: Set = None,
    out: Annotated[Path | None, typer.Option("--out", metavar="DIR", help="Keep the run there.")] = None,
) -> Answer:
    """Prove the labels: a run whose truth is known; none may be wrong, and each that can be told is recovered."""
    from flows.recipe import RecipeError

    settings = read(recipe, set) if recipe else None
    wanted = [kind.strip() for kind in kinds.split(",") if kind.strip()]
    if recipe and (answers or wanted):
        raise RecipeError("a recipe has its own samplers and judge; leave out --answers and --kinds")
    if set and not recipe:
        raise RecipeError("--set replaces fields of a recipe; name one")
    failing = {"malformed": malformed, "truncated": truncated, "refused": refused}
    if sum(failing.values()) > 1:
        raise RecipeError("--malformed, --truncated and --refused are shares and sum to more than 1")
    from flows.selftest import chosen_cases
    from flows.selftest import selftest as flow
    from flows.selftest_text import selftest_text

    chosen_cases(wanted, answers or 4)
    rates = {"bias": bias, "noise": noise, **failing}
    found = conduct(lambda: flow(settings, wanted, prompts, answers or 4, rates, seed, out))
    return found, selftest_text
