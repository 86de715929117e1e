"""A lock on every GPU of this machine, so that whatever serves or trains has it to itself, whoever started it.

    async with hold_gpus(2, "serve judge"):     # CUDA_VISIBLE_DEVICES names two that nobody else holds

A lock is the kernel's, on a file per GPU, and is handed to the process that guards a server or a training. It falls
when the last of them has ended, so a GPU is free when its memory is, and never held by someone who is gone.
"""

import asyncio
import contextlib
import fcntl
import os
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from pathlib import Path

from serving.errors import WrongModel
from serving.gpus import visible_gpus

LOOK = 0.5
"""Seconds between two looks whether a GPU is free."""

_held: list[int] = []
"""Open files of the locks that this process holds."""


def lock_folder() -> Path:
    """$ZEPHYR_GPU_LOCKS, else a folder in /tmp; one for all who share the machine's GPUs."""
    return Path(os.environ.get("ZEPHYR_GPU_LOCKS", "/tmp/zephyr-gpus"))


def held_gpus() -> tuple[int, ...]:
    """For `pass_fds` of a process that uses the GPUs this one holds."""
    return tuple(_held)


@asynccontextmanager
async def hold_gpus(
    count: int, why: str, of: int | None = None, say: Callable[[str], None] = lambda text: None
) -> AsyncIterator[None]:
    """Hold `count` of the GPUs that CUDA_VISIBLE_DEVICES leaves, `of` so many, and have it name them meanwhile.

    Waits until so many are free at once. A process that holds some already goes on with those: what it serves and
    trains at one time shares them by its own arrangement. `why`: is told to those who wait.

    Raises:
        WrongModel: there are not so many.
    """
    if count == 0 or _held:
        yield
        return
    before = os.environ.get("CUDA_VISIBLE_DEVICES")
    names = visible_gpus(of or (count if before is None else len(before)))
    if count > len(names):
        raise WrongModel(f"{why}: {count} GPUs are needed, and there are {len(names)}: {', '.join(names)}")
    taken = await _take(names, count, why, say)
    _held.extend(taken.values())
    os.environ["CUDA_VISIBLE_DEVICES"] = ",".join(taken)
    try:
        yield
    finally:
        if before is None:
            del os.environ["CUDA_VISIBLE_DEVICES"]
        else:
            os.environ["CUDA_VISIBLE_DEVICES"] = before
        for file in taken.values():
            _held.remove(file)
            os.close(file)


async def _take(names: list[str], count: int, why: str, say: Callable[[str], None]) -> dict[str, int]:
    """GPU -> open file of its lock: so many, or none yet."""
    folder = lock_folder()
    folder.mkdir(parents=True, exist_ok=True)
    with contextlib.suppress(PermissionError):  # it is another user's, who has opened it to all
        folder.chmod(0o1777)
    said = False
    while True:
        taken: dict[str, int] = {}
        for name in names:
            if len(taken) < count and (file := _try(folder / f"gpu-{name}.lock", why)) is not None:
                taken[name] = file
        if len(taken) == count:
            return taken
        for file in taken.values():
            os.close(file)
        if not said:
            say(f"{why}: waiting for {count} of the GPUs {', '.join(names)}; {_holders(folder, names)}")
            said = True
        await asyncio.sleep(LOOK)


def _try(path: Path, why: str) -> int | None:
    file = os.open(path, os.O_RDWR | os.O_CREAT, 0o666)
    try:
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError:
        os.close(file)
        return None
    os.ftruncate(file, 0)
    os.pwrite(file, f"{why}, process {os.getpid()}".encode(), 0)
    return file


def _holders(folder: Path, names: list[str]) -> str:
    found = []
    for name in names:
        with contextlib.suppress(OSError):
            found.append(f"GPU {name}: {(folder / f'gpu-{name}.lock').read_text()}")
    return "; ".join(found)
