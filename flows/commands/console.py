"""What every command shares: its options, how it answers people and machines, and its exit code.

A command is a function of its options that returns an `Answer`: what was found, and how that reads as text. It is
given --json by `Commands`. It imports what it needs inside, so that `zephyr --help` waits for nothing, and reads the
recipe before it imports a flow, so that a mistake does not wait for Prefect.
"""

import asyncio
import functools
import inspect
import json
import logging
import os
import signal
import sys
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Annotated, Any, NoReturn

import typer

Answer = tuple[dict[str, Any], Callable[[dict[str, Any]], str]]
"""What a command found, and the function that writes it for people. `ok: False` in it makes exit code 1."""

RecipePath = Annotated[Path, typer.Argument(metavar="RECIPE", help="A recipe file, as in recipes/.")]
RunPath = Annotated[Path, typer.Argument(metavar="RUN", help="A run's folder, as runs/quickstart.")]
Set = Annotated[
    list[str] | None, typer.Option("--set", metavar="A.B=C", help="Replace a field of the recipe.")
]
Out = Annotated[Path | None, typer.Option("--out", metavar="DIR", help="Folder for runs; default: runs/.")]
Store = Annotated[
    str | None,
    typer.Option("--store", metavar="ADDRESS", help="Where shards go instead: any fsspec address."),
]
Json = Annotated[bool, typer.Option("--json", help="End with one JSON object on stdout.")]


class Commands:
    """Commands of one subject; `zephyr --help` lists them under its heading."""

    def __init__(self, subject: str) -> None:
        self.app, self._subject = typer.Typer(), subject

    def command(self, name: str | None = None) -> Callable[[Callable[..., Answer]], Callable[..., Answer]]:
        """Make a command of a function; `name`: where it is not the function's. Its docstring is the help."""

        def add(work: Callable[..., Answer]) -> Callable[..., Answer]:
            @functools.wraps(work)
            def command(*, json: bool, **options: Any) -> None:
                answer(lambda: work(**options), json)

            signature = inspect.signature(work)
            last = inspect.Parameter("json", inspect.Parameter.KEYWORD_ONLY, default=False, annotation=Json)
            command.__signature__ = signature.replace(parameters=[*signature.parameters.values(), last])  # type: ignore[attr-defined]
            self.app.command(name, rich_help_panel=self._subject)(command)
            return work

        return add


def answer(work: Callable[[], Answer], as_json: bool) -> None:
    """Do a command's work, print what it came to, and leave with the right code."""
    os.environ.setdefault("PREFECT_LOGGING_LEVEL", "CRITICAL")
    os.environ.setdefault("PREFECT_SERVER_ANALYTICS_ENABLED", "false")
    os.environ.setdefault("PREFECT_SERVER_EPHEMERAL_STARTUP_TIMEOUT_SECONDS", "180")
    os.environ.setdefault("DO_NOT_TRACK", "1")
    os.environ.setdefault("HF_DATASETS_DISABLE_PROGRESS_BARS", "1")
    logging.basicConfig(
        stream=sys.stderr, level=logging.WARNING, format="%(levelname)s %(name)s: %(message)s"
    )
    if threading.current_thread() is threading.main_thread():
        signal.signal(signal.SIGTERM, signal.default_int_handler)  # both mean: stop, and keep what is there
    try:
        found, text = work()
    except BaseException as error:
        # within a flow Prefect turns SIGTERM into an exception of its own
        if (
            isinstance(error, KeyboardInterrupt | asyncio.CancelledError)
            or type(error).__name__ == "TerminationSignal"
        ):
            _fail("stopped; what was answered is kept, the same command goes on from here", 130, as_json)
        code = exit_code(error)
        if code is None:
            raise
        _fail(str(error), code, as_json)
    if as_json:
        print(json.dumps({"ok": True, **found}, ensure_ascii=False, default=str))
    else:
        print(text(found))
    if found.get("ok") is False:
        sys.stdout.flush()
        raise typer.Exit(1)


def exit_code(error: BaseException) -> int | None:
    """2 where the input was wrong, 1 where the run failed, None for what nobody foresaw: that wants a traceback."""
    from flows.recipe import RecipeError
    from judges.gold import GoldError
    from prompts.load import PromptError
    from records.store import StoreError
    from serving.errors import ServingError, WrongModel

    if isinstance(error, RecipeError | GoldError | PromptError | WrongModel):
        return 2
    # their modules import Prefect; not needed for a name
    failures = {"DatasetError", "StageFailed", "TrainingFailed"}
    if isinstance(error, StoreError | ServingError) or type(error).__name__ in failures:
        return 1
    return None


def _fail(message: str, code: int, as_json: bool) -> NoReturn:
    print(f"zephyr: {message}", file=sys.stderr)
    if as_json:
        print(json.dumps({"ok": False, "error": message, "exit": code}, ensure_ascii=False))
    sys.stdout.flush()
    raise typer.Exit(code)


def read(recipe: Path, overrides: list[str] | None) -> Any:
    """The recipe with what `--set` replaces."""
    from flows.recipe_file import load_recipe

    return load_recipe(recipe, overrides or ())


def conduct(start: Callable[[], Any]) -> dict[str, Any]:
    """Run a flow to its end with progress on stderr."""
    from flows.progress import shown
    from flows.server import guard_temporary_server

    guard_temporary_server()
    with shown():
        return asyncio.run(start())


def summary(start: Callable[[], Any]) -> Answer:
    """Run a flow that returns the run's summary."""
    found = conduct(start)
    from flows.artifacts import summary_text

    return found, summary_text
