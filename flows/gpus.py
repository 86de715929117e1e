"""Who has the GPUs: whatever serves or trains holds them, at the Prefect server and on the machine, until it ends.

The server's limit `gpu:<machine>` has a slot per GPU, is seen by all and queues runs of all workers; its lease falls
by itself when the holder is gone. It counts and does not say which GPU, and a run without a server does not ask it:
the lock on the device (`serving.devices`) does both.
"""

import contextlib
import os
import socket
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager

from prefect.client.orchestration import get_client
from prefect.concurrency.asyncio import concurrency
from prefect.exceptions import ObjectNotFound

from flows.progress import display
from serving.devices import held_gpus, hold_gpus

LEASE = 60.0
"""Seconds for which slots stay taken after their holder is gone; it renews them in between."""


def node() -> str:
    """What this machine is called in the names of limits; of `/ % & > <` Prefect allows none."""
    return os.environ.get("ZEPHYR_NODE") or socket.gethostname().split(".")[0].lower()


def gpu_limit(name: str | None = None) -> str:
    """The name of a machine's concurrency limit, which counts its GPUs."""
    return f"gpu:{name or node()}"


@asynccontextmanager
async def hold(count: int, why: str, of: int | None = None) -> AsyncIterator[None]:
    """So many GPUs of this machine while the block runs, see `serving.devices.hold_gpus`.

    They are as many as a server's tensor, pipeline and data parallelism multiply to, or as a training has devices.
    """
    async with AsyncExitStack() as stack:
        if count and not held_gpus() and await _limited():
            display().say(f"{why}: {count} GPUs by the limit {gpu_limit()}")
            await stack.enter_async_context(
                concurrency(
                    gpu_limit(),
                    occupy=count,
                    lease_duration=LEASE,
                    strict=True,
                    # a server that restarts must not end a training of a day
                    raise_on_lease_renewal_failure=False,
                )
            )
        await stack.enter_async_context(hold_gpus(count, why, of, display().say))
        yield


async def _limited() -> bool:
    """Whether the Prefect server has a limit for this machine: `zephyr setup` makes it."""
    async with get_client() as client:
        with contextlib.suppress(ObjectNotFound):
            return bool((await client.read_global_concurrency_limit_by_name(gpu_limit())).active)
    return False
