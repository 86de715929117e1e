"""Run a command and say what it and everything it started cost: `python -m benchmarks.peers.watch LIMIT LOG COMMAND…`.

Processes whose parents are gone fall to this one (Linux's child subreaper), so none is missed; each is counted once,
when it has ended. After LIMIT seconds, or on SIGTERM, all are killed with SIGKILL. The last line is one JSON object.
"""

import ctypes
import json
import os
import resource
import signal
import subprocess
import sys
import time
from pathlib import Path

PR_SET_CHILD_SUBREAPER = 36
GRACE = 20.0
"""Seconds what the command started may live on after it has ended."""


def below(pid: int) -> list[int]:
    """All living descendants."""
    found: list[int] = []
    for children in Path(f"/proc/{pid}/task").glob("*/children"):
        try:
            own = [int(child) for child in children.read_text().split()]
        except OSError:
            continue
        for child in own:
            found += [child, *below(child)]
    return found


def memory(pids: list[int]) -> int:
    """Bytes, shared pages divided among those who share them."""
    total = 0
    for pid in pids:
        try:
            lines = Path(f"/proc/{pid}/smaps_rollup").read_text().splitlines()
        except OSError:
            continue
        total += sum(int(line.split()[1]) * 1024 for line in lines if line.startswith("Pss:"))
    return total


def kill_all() -> None:
    """Twice: what one started while it was being killed is found the second time."""
    for _ in range(2):
        for pid in below(os.getpid()):
            try:
                os.kill(pid, signal.SIGKILL)
            except ProcessLookupError:
                continue


def main() -> None:
    limit, log, command = float(sys.argv[1]), Path(sys.argv[2]), sys.argv[3:]
    ctypes.CDLL(None).prctl(PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0)
    asked_to_kill: list[int] = []
    signal.signal(signal.SIGTERM, lambda number, frame: asked_to_kill.append(number))
    began, peak, looked, code, ended = time.monotonic(), 0, 0.0, None, 0.0
    timed_out = False
    with log.open("ab") as out:
        first = subprocess.Popen(command, stdout=out, stderr=out, stdin=subprocess.DEVNULL)
    while True:
        try:
            pid, status = os.waitpid(-1, os.WNOHANG)
        except ChildProcessError:
            break
        now = time.monotonic()
        if pid == first.pid:
            first.returncode = code = os.waitstatus_to_exitcode(status)
            ended = now
        if pid:
            continue
        timed_out = timed_out or (code is None and now - began > limit)
        if timed_out or asked_to_kill or (code is not None and now - ended > GRACE):
            kill_all()
        if now - looked > 1:
            looked, peak = now, max(peak, memory(below(os.getpid())))
        time.sleep(0.02)
    used = resource.getrusage(resource.RUSAGE_CHILDREN)
    print(
        json.dumps(
            {
                "code": code,
                "wall_s": ended - began,
                "began": began,
                "cpu_s": used.ru_utime + used.ru_stime,
                "peak_mb": peak / 1e6,
                "timed_out": timed_out,
                "killed": bool(asked_to_kill),
            }
        )
    )


if __name__ == "__main__":
    main()
