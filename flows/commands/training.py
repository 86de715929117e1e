"""Training, a stage at a time, and what to know before it."""

from pathlib import Path
from typing import Annotated, Any

import typer

from flows.commands.console import Answer, Commands, Out, RecipePath, Set, conduct, read, summary

training = Commands("Training")


def _train(kind: Any, recipe: Path, overrides: list[str] | None, out: Path | None) -> Answer:
    settings = read(recipe, overrides)
    from flows.train import train_stage

    return summary(lambda: train_stage(settings, kind, out))


@training.command()
def doctor(
    recipe: Annotated[
        Path | None, typer.Argument(metavar="[RECIPE]", help="Its training; without one, this machine.")
    ] = None,
    set: Set = None,
    out: Out = None,
) -> Answer:
    """What training would do wrong, its memory and its time, before weights are loaded. Exit code 1 for an error.

    Without a recipe: what this machine has, Python, GPUs, vLLM, Prefect, disk and keys.
    """
    if recipe is None:
        from flows.environment import environment_text, examine

        return examine(out or Path("runs")), environment_text
    settings = read(recipe, set)
    from flows.doctor import doctor as examine
    from flows.doctor import doctor_text
    from flows.run import Run

    return examine(Run.at(settings, out)), doctor_text


@training.command()
def pretrain(recipe: RecipePath, set: Set = None, out: Out = None) -> Answer:
    """Goes on pretraining the base on plain text."""
    return _train("pretrain", recipe, set, out)


@training.command()
def sft(recipe: RecipePath, set: Set = None, out: Out = None) -> Answer:
    """Fine-tune on the best answers."""
    return _train("sft", recipe, set, out)


@training.command()
def reward(recipe: RecipePath, set: Set = None, out: Out = None) -> Answer:
    """A reward model, trained on the pairs, from the SFT model where the recipe has one."""
    return _train("reward", recipe, set, out)


@training.command()
def dpo(
    recipe: RecipePath,
    sweep: Annotated[
        list[str] | None,
        typer.Option(metavar="FIELD=A,B,C", help="Train a model for each value; given twice, for each pair."),
    ] = None,
    set: Set = None,
    out: Out = None,
) -> Answer:
    """Train on the pairs, from the SFT model where the recipe has one."""
    if not sweep:
        return _train("dpo", recipe, set, out)
    settings = read(recipe, set)
    from flows.sweep import settings_of, sweep_dpo, table_text

    settings_of(settings, sweep)
    return conduct(lambda: sweep_dpo(settings, sweep, out)), lambda found: table_text(found["sweep"])


@training.command()
def rlhf(recipe: RecipePath, set: Set = None, out: Out = None) -> Answer:
    """Reinforcement learning on the run's prompts; the recipe's judge, or its reward model, scores the answers."""
    return _train("rlhf", recipe, set, out)
