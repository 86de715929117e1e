"""The process above a managed server: ends its whole group when told to, or when our process is gone.

    python guard.py PARENT_PID SECONDS COMMAND...

Leads a group of its own; the server and all its children are in that group. The parent is watched by polling:
Linux's parent-death signal fires when the *thread* that started the process ends, and macOS has none. The
server itself carries the signal, with this process as the parent, for the case that this process is killed.
"""

import contextlib
import ctypes
import os
import signal
import subprocess
import sys
import time
from pathlib import Path
from types import FrameType

PR_SET_PDEATHSIG = 1
TICK = 0.1


def members(group: int) -> list[int]:
    """Living processes of a process group or of the session of the same number, zombies left out."""
    found = []
    if not Path("/proc/self/stat").exists():  # macOS
        for pid, pgid, state in (row.split() for row in _ps("-axo", "pid=,pgid=,stat=").splitlines()):
            if int(pgid) == group and not state.startswith("Z"):
                found.append(int(pid))
        return found
    for entry in os.scandir("/proc"):
        if entry.name.isdigit():
            fields = _stat(int(entry.name))
            if fields and fields[0] not in "ZX" and str(group) in (fields[2], fields[3]):
                found.append(int(entry.name))
    return found


def started(pid: int) -> str | None:
    """When a process was started, to tell it from a later one with the same number. None if it is gone."""
    if not Path("/proc/self/stat").exists():
        return _ps("-o", "lstart=", "-p", str(pid)).strip() or None
    fields = _stat(pid)
    if not fields or fields[0] in "ZX":
        return None
    return f"{Path('/proc/sys/kernel/random/boot_id').read_text().strip()}:{fields[19]}"


def _ps(*options: str) -> str:
    return subprocess.run(["ps", *options], capture_output=True, text=True).stdout


def _stat(pid: int) -> list[str]:
    """/proc/PID/stat from the state on: [0] state, [1] parent, [2] group, [3] session, [19] start time."""
    try:
        # the command name before it is in parentheses and may itself hold spaces and parentheses
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    except OSError:  # it ended while we looked
        return []


def signal_all(pids: list[int], number: signal.Signals) -> None:
    for pid in pids:
        with contextlib.suppress(ProcessLookupError, PermissionError):
            os.kill(pid, number)


def end(group: int, seconds: float, spare: int = 0) -> list[int]:
    """SIGTERM to a group, SIGKILL to what is left after `seconds`. Returns what even that did not end.

    `spare`: a member that stays, the caller's own process.
    """
    for number, patience in ((signal.SIGTERM, seconds), (signal.SIGKILL, 5.0)):
        deadline = time.monotonic() + patience
        signal_all([pid for pid in members(group) if pid != spare], number)
        while left := [pid for pid in members(group) if pid != spare]:
            if time.monotonic() > deadline:
                break
            time.sleep(TICK / 2)
        if not left:
            return []
    return left


def die_with_parent(parent: int) -> None:
    """Have Linux send this process a SIGTERM when its parent ends; leave at once if it already has."""
    if sys.platform == "linux":
        ctypes.CDLL(None).prctl(PR_SET_PDEATHSIG, signal.SIGTERM, 0, 0, 0)
    if os.getppid() != parent:
        os._exit(1)


def main(parent: int, seconds: float, command: list[str]) -> int:
    told_to_end = False

    def on_signal(_number: int, _frame: FrameType | None) -> None:
        nonlocal told_to_end
        told_to_end = True

    for number in (signal.SIGTERM, signal.SIGINT, signal.SIGHUP):
        signal.signal(number, on_signal)
    if os.getppid() != parent:
        return 1
    me = os.getpid()
    server = os.fork()
    if server == 0:
        for number in (signal.SIGTERM, signal.SIGINT, signal.SIGHUP):
            signal.signal(number, signal.SIG_DFL)
        die_with_parent(me)
        try:
            os.execvp(command[0], command)
        except OSError as error:
            print(f"cannot start {command[0]!r}: {error.strerror}", file=sys.stderr, flush=True)
            os._exit(127)

    while True:
        pid, status = os.waitpid(server, os.WNOHANG)
        if pid:  # its workers must not outlive it: they hold the memory
            end(me, seconds, spare=me)
            code = os.waitstatus_to_exitcode(status)
            return code if code >= 0 else 128 - code
        if told_to_end or os.getppid() != parent:
            end(me, seconds, spare=me)
            return 0
        time.sleep(TICK)


if __name__ == "__main__":
    sys.exit(main(int(sys.argv[1]), float(sys.argv[2]), sys.argv[3:]))
