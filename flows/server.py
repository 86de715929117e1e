"""The server that Prefect starts for itself where none is named: it ends with this process, however that ends.

Prefect ends it at a normal exit only; after kill -9 it would stay, with its database open. So it is started under
`serving.guard`, as a model's server is.
"""

import os
import subprocess
import sys
from typing import Any

from serving import guard

GRACE = 5.0
"""Seconds between SIGTERM and SIGKILL."""


class _Guarded:
    """The module `subprocess`, but for one thing: what it starts is started under the guard."""

    def __getattr__(self, name: str) -> Any:
        return getattr(subprocess, name)

    @staticmethod
    def Popen(args: list[str], **options: Any) -> "subprocess.Popen[Any]":
        above = [sys.executable, "-I", "-S", guard.__file__, str(os.getpid()), str(GRACE)]
        options["start_new_session"] = True
        return subprocess.Popen([*above, *args], **options)


def guard_temporary_server() -> None:
    """From now on, in this process."""
    from prefect.server.api import server

    server.subprocess = _Guarded()  # type: ignore[assignment]
