"""SIGTERM ends a flow's body at once, wherever it comes.

Within a flow Prefect's handler raises `TerminationSignal` out of whatever the main thread is doing. Where that is a
callback of the event loop, the loop logs it and goes on: the stop is lost. Where it is one of many rows, that row fails
first. Here the signal raises only in the flow's own body and otherwise cancels it, as Ctrl-C does with asyncio.
"""

import asyncio
import functools
import signal
from collections.abc import Callable, Coroutine
from typing import Any, ParamSpec, TypeVar

from prefect.exceptions import TerminationSignal
from prefect.utilities import engine

P = ParamSpec("P")
R = TypeVar("R")

raise_at_once = engine._prefect_sigterm_handler


class _Body:
    """The flow whose body runs in the main thread."""

    task: asyncio.Task[Any] | None = None
    told: bool = False


def stoppable(body: Callable[P, Coroutine[Any, Any, R]]) -> Callable[P, Coroutine[Any, Any, R]]:
    """The same coroutine function; a signal that cancelled it comes out of it as Prefect's `TerminationSignal`."""

    @functools.wraps(body)
    async def run(*args: P.args, **kwargs: P.kwargs) -> R:
        outer, _Body.task = _Body.task, asyncio.current_task()
        try:
            return await body(*args, **kwargs)
        except asyncio.CancelledError:
            if not _Body.told:
                raise
            _Body.told = False
            if (task := asyncio.current_task()) is not None:
                task.uncancel()
            raise TerminationSignal(signal=signal.SIGTERM) from None
        finally:
            _Body.task = outer

    return run


def stop(number: int, *frame: object) -> None:
    """In place of Prefect's handler, under its name: it acknowledges a cancellation only while that is installed."""
    task = _Body.task
    if task is None or task.done():
        raise_at_once(number)
    loop = task.get_loop()
    if not loop.is_running() or asyncio.current_task(loop) is task:
        raise_at_once(number)
    _Body.told = True
    loop.call_soon_threadsafe(task.cancel)


engine._prefect_sigterm_handler = stop
