"""Fill one shard: the only loop over records. Rows run at once, are journalled as they finish, and keep their order."""

import asyncio
from collections import Counter
from collections.abc import AsyncIterator, Awaitable, Callable, Coroutine, Iterable, Sequence
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from typing import Any, TypeVar

from records.store import Receipt, Row, Shard
from serving.settings import LlamaCpp, Model

ROWS_OPEN = 1024
"""Rows of one shard under way at a time; the lanes decide how many of them are at a model."""
COMMIT = 1.0
"""Seconds between two fsyncs of the journal."""

CHAINS = 256
"""Chains at one model at a time, at most: a server is busy with them, and they do not push each other's text out of its
cache."""

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
    shard: Shard,
    arriving: Iterable[Coroutine[Any, Any, Sequence[str]]],
    step: Step,
    done: Done,
    in_turn: Callable[[str], AbstractAsyncContextManager[None]] | None = None,
    made_from: Callable[[], Awaitable[str]] | None = None,
) -> Receipt:
    """Like `fill`, for a shard whose keys are known bit by bit: each of `arriving` gives some, in the rows' order.

    `in_turn`: gives the turn in which those that one of `arriving` gives are asked, one after the other, so that each
    finds in the server's prefix cache what the one before it left there; by the first of their keys. See `Chains`.
    `made_from`: asked at the end, for the receipt's `of`.
    """

    async def work(key: str) -> None:
        shard.put(await step(key))
        done()

    async def row(some: Coroutine[Any, Any, Sequence[str]]) -> Sequence[str]:
        keys = await some
        missing = shard.want(keys)
        done(len(keys) - len(missing), there=True)
        if in_turn is None or len(missing) < 2:
            await together(map(work, missing))
            return keys
        async with in_turn(missing[0]):
            for key in missing:
                await work(key)
        return keys

    async with _committed(shard):
        order = await together(map(row, arriving))
        of = await made_from() if made_from else ""
    return await asyncio.to_thread(shard.seal, [key for keys in order for key in keys], of)


class Chains:
    """Lets calls that begin alike follow each other at one model: those about one prompt by all who want to, and so
    many prompts at a time as the model can hold.

    llama.cpp keeps what it read in the slot that read it, so a chain needs one to itself. vLLM's cache is shared.
    """

    def __init__(self, model: Model) -> None:
        self.limit = model.slots if isinstance(model, LlamaCpp) else min(model.max_in_flight, CHAINS)
        self._gate = asyncio.Semaphore(self.limit)
        self._turns: dict[str, asyncio.Lock] = {}
        self._members: Counter[str] = Counter()
        self._admitted: set[str] = set()

    @asynccontextmanager
    async def of(self, prompt: str) -> AsyncIterator[None]:
        """A turn in this prompt's chain, which keeps its place at the model until nobody waits for one."""
        turn = self._turns.setdefault(prompt, asyncio.Lock())
        self._members[prompt] += 1
        try:
            async with turn:
                if prompt not in self._admitted:
                    await self._gate.acquire()
                    self._admitted.add(prompt)
                yield
        finally:
            self._members[prompt] -= 1
            if not self._members[prompt]:
                del self._turns[prompt], self._members[prompt]
                if prompt in self._admitted:
                    self._admitted.remove(prompt)
                    self._gate.release()


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
