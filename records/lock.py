"""One process at a time in a folder."""

import contextlib
import fcntl
import os
import socket
from collections.abc import Callable, Iterator
from pathlib import Path

from records.journal import StoreError

_held_folders: set[Path] = set()


@contextlib.contextmanager
def exclusive(
    folder: Path, holder: str = "", lender: Callable[[], str | None] = lambda: None
) -> Iterator[None]:
    """Hold a run's folder for this process; may be nested. The lock falls with the process, however it ends.

    `holder`: what this process's run is called. `lender`: the name of the run that waits for this one, perhaps on
    another machine: where that holds the folder, it is lent.

    Raises:
        StoreError: another process holds it, or it cannot be written.
    """
    key = folder.absolute()
    if key in _held_folders:
        yield
        return
    try:
        folder.mkdir(parents=True, exist_ok=True)
        file = (folder / ".lock").open("a+")
    except OSError as error:
        raise StoreError(f"cannot write to {folder}: {error.strerror}; choose another --out") from error
    with file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError as error:
            file.seek(0)
            who = file.read().strip() or "?"
            if (lent_by := lender()) and who.endswith(f" for {lent_by}"):
                yield
                return
            raise StoreError(f"{folder} is in use by process {who}; wait or choose another --out") from error
        file.truncate(0)
        file.write(f"{os.getpid()} on {socket.gethostname()}" + (f" for {holder}" if holder else ""))
        file.flush()
        _held_folders.add(key)
        try:
            yield
        finally:
            _held_folders.discard(key)
