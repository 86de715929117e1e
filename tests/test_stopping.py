"""SIGTERM ends a flow wherever it comes: in a callback of the loop, in one of many rows, while nothing happens."""

import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]

BODY = """
import asyncio, os, signal, sys, time
from prefect.utilities import engine

where, mended = sys.argv[1], sys.argv[2] == "mended"
bare = engine._prefect_sigterm_handler
from flows.stopping import stoppable

if not mended:
    engine._prefect_sigterm_handler = bare
    stoppable = lambda body: body

def kill():
    os.kill(os.getpid(), signal.SIGTERM)
    time.sleep(0.01)

async def row(i):
    for turn in range(200):
        await asyncio.sleep(0.01)
        if where == "row" and i == 7 and turn == 20:
            kill()

@stoppable
async def body():
    loop, rows = asyncio.get_running_loop(), []
    try:
        rows = [asyncio.ensure_future(row(i)) for i in range(20)]
        await asyncio.sleep(0)
        if where == "callback":
            loop.call_soon(kill)
        if where == "idle":
            loop.run_in_executor(None, lambda: (time.sleep(0.3), kill()))
        if where == "body":
            kill()
        await asyncio.wait(rows)
        print("ran to its end")
    finally:
        print(sum(row.done() for row in rows), "rows ended", flush=True)

async def flow():
    with engine.capture_sigterm():
        assert engine.can_ack_control_intent(), "Prefect's runner is told that a cancellation will be heeded"
        await body()

asyncio.run(flow())
"""


def run(where: str, how: str, folder: Path) -> "subprocess.CompletedProcess[str]":
    file = folder / "stopped.py"
    file.write_text(BODY)
    environment = os.environ | {"PYTHONPATH": str(ROOT)}
    command = [sys.executable, str(file), where, how]
    return subprocess.run(command, env=environment, capture_output=True, text=True, timeout=100)


@pytest.mark.parametrize("where", ["callback", "row", "idle", "body"])
def test_a_signal_ends_the_body_at_once_and_no_row_fails_first(where: str, tmp_path: Path):
    done = run(where, "mended", tmp_path)
    assert done.stdout == "0 rows ended\n", done.stdout + done.stderr
    assert done.returncode == -signal.SIGTERM, done.stderr


def test_prefects_own_handler_loses_it_in_a_callback(tmp_path: Path):
    """Where this fails, the mend is not needed any more."""
    done = run("callback", "bare", tmp_path)
    assert done.stdout == "ran to its end\n20 rows ended\n", done.stdout + done.stderr
