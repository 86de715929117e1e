"""Fill one shard: the only loop over records. Rows run at once, are journalled as they finish, and keep their order."""

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable, Coroutine, Iterable, Sequence
from contextlib import asynccontextmanager
from typing import Any, TypeVar

from records.store import Receipt, Row, Shard

ROWS_OPEN = 1024
"""Rows of one shard under way at a time; the lanes decide how many of them are at a model."""
COMMIT = 1.0
"""Seconds between two fsyncs of the journal."""

T = TypeVar("T")
Step = Callable[[str], Awaitable[Row]]
Done = Callable[..., None]


async def fill(shard: Shard, step: Step, done: Done) -> Receipt:
    """Run `step` for every key without an answer, then seal.

    The first error stops the rest; what was finished stays in the journal for the next run.
    """
    keys = iter(shard.missing)

    async def work() -> None:
        for key in keys:
            shard.put(await step(key))
            done()

    async with _committed(shard):
        await together(work() for _ in range(min(ROWS_OPEN, len(shard.missing))))
    return await asyncio.to_thread(shard.seal)


async def follow(
    shard: Shard, arriving: Iterable[Coroutine[Any, Any, Sequence[str]]], step: Step, done: Done
) -> Receipt:
    """Like `fill`, for a shard whose keys are known bit by bit: each of `arriving` gives some, in the rows' order."""

    async def work(key: str) -> None:
        shard.put(await step(key))
        done()

    async def row(some: Coroutine[Any, Any, Sequence[str]]) -> Sequence[str]:
        keys = await some
        missing = shard.want(keys)
        done(len(keys) - len(missing))
        await (work(missing[0]) if len(missing) == 1 else together(map(work, missing)))
        return keys

    async with _committed(shard):
        order = await together(map(row, arriving))
    return await asyncio.to_thread(shard.seal, [key for keys in order for key in keys])


async def together(coroutines: Iterable[Coroutine[Any, Any, T]]) -> list[T]:
    """Run all; the first error cancels the others and is raised as itself."""
    tasks = [asyncio.ensure_future(c) for c in coroutines]
    try:
        return await asyncio.gather(*tasks)
    except BaseException:
        for each in tasks:
            each.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        raise


@asynccontextmanager
async def _committed(shard: Shard) -> AsyncIterator[None]:
    """What is put in the block is forced to the disk once a second, and at its end if that is an error."""

    async def commit() -> None:
        while True:
            await asyncio.sleep(COMMIT)
            await asyncio.to_thread(shard.sync)

    committing = asyncio.create_task(commit())
    try:
        try:
            yield
        finally:
            committing.cancel()
            await asyncio.gather(committing, return_exceptions=True)
    except BaseException:
        shard.close()
        raise
