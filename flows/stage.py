"""Fill one shard: the only loop over records. Rows run at once, are journalled as they finish, and keep their order."""

import asyncio
from collections.abc import Awaitable, Callable

from records.store import Receipt, Row, Shard

ROWS_OPEN = 1024
"""Rows of one shard under way at a time; the lanes decide how many of them are at a model."""
COMMIT = 1.0
"""Seconds between two fsyncs of the journal."""


async def fill(shard: Shard, step: Callable[[str], Awaitable[Row]], done: Callable[[], None]) -> Receipt:
    """Run `step` for every key without an answer, then seal.

    The first error stops the rest; what was finished stays in the journal for the next run.
    """
    keys = iter(shard.missing)

    async def work() -> None:
        for key in keys:
            shard.put(await step(key))
            done()

    async def commit() -> None:
        while True:
            await asyncio.sleep(COMMIT)
            await asyncio.to_thread(shard.sync)

    committing = asyncio.create_task(commit())
    workers = [asyncio.create_task(work()) for _ in range(min(ROWS_OPEN, len(shard.missing)))]
    try:
        await asyncio.gather(*workers)
    except BaseException:
        for worker in workers:
            worker.cancel()
        await asyncio.gather(*workers, return_exceptions=True)
        raise
    finally:
        committing.cancel()
        await asyncio.gather(committing, return_exceptions=True)
        if shard.missing:
            shard.close()
    return shard.seal()
