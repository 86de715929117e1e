"""Deployments, the machines they run on, and what is left over."""

from pathlib import Path
from typing import Annotated

import typer

from flows.commands.console import Answer, Commands, Out, RecipePath, Set, Store, read

machines = Commands("Machines")


@machines.command()
def setup(
    pool: Annotated[
        list[str] | None,
        typer.Option(
            metavar="POOL=KIND",
            help="Kind of a pool's workers: process, docker, kubernetes, slurm.",
        ),
    ] = None,
    gpus: Annotated[
        list[str] | None,
        typer.Option(
            metavar="[MACHINE=]N",
            help="GPUs of a machine, as a limit; default: this one's.",
        ),
    ] = None,
    secret: Annotated[
        list[str] | None,
        typer.Option(
            metavar="NAME", help="An environment variable that becomes a secret block of the server."
        ),
    ] = None,
) -> Answer:
    """What deployments need of a Prefect server: pools, limits, automations, secrets. Again brings them up to date."""
    import asyncio

    from flows.recipe import RecipeError

    kinds = dict(_pair(each, "--pool", "zephyr-gpu=docker") for each in pool or ())
    counted: dict[str, int] | None = {} if gpus else None
    for each in gpus or ():
        machine, _, count = each.rpartition("=")
        if not count.isdigit():
            raise RecipeError(f"--gpus {each!r}: wanted a number, or MACHINE=NUMBER as in node1=8")
        from flows.gpus import node

        assert counted is not None
        counted[machine or node()] = int(count)
    from flows.setup import set_up

    def text(found: dict) -> str:
        return "\n".join(f"{what:<44} {how}" for what, how in found["done"].items())

    return asyncio.run(set_up(kinds, counted, secret or ())), text


@machines.command()
def submit(
    recipe: RecipePath,
    to: Annotated[
        str, typer.Option("--to", metavar="FLOW/NAME", help="The deployment that runs it.")
    ] = "zephyr/local",
    set: Set = None,
    out: Out = None,
    store: Store = None,
) -> Answer:
    """Send a recipe to a deployment, checked as a whole before a run is made of it."""
    import asyncio

    settings = read(recipe, set)
    from flows.submit import submit as send

    def text(found: dict) -> str:
        return f"{found['flow_run']}  {found['name']}  {found['url'] or ''}".rstrip()

    return asyncio.run(send(settings, to, out, store)), text


@machines.command()
def gc(
    out: Out = None,
    older_than: Annotated[
        float, typer.Option("--older-than", metavar="DAYS", min=0, help="What was changed since then stays.")
    ] = 14.0,
    delete: Annotated[
        bool, typer.Option("--delete", help="Remove what was found; without it, it is only counted.")
    ] = False,
) -> Answer:
    """What lies in runs' folders that nothing needs any more, and how much it is; ends servers whose run is gone."""
    from flows.garbage import collect_garbage, garbage_text

    return collect_garbage(out or Path("runs"), older_than, delete=delete), garbage_text


def _pair(given: str, option: str, example: str) -> tuple[str, str]:
    from flows.recipe import RecipeError

    name, found, value = given.partition("=")
    if not found:
        raise RecipeError(f"{option} {given!r}: wanted as in {example}")
    return name, value
