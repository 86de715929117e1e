"""A GPU is one holder's at a time: across processes, until the last that uses it has ended."""

import asyncio
import os
import subprocess
import sys
import time
from pathlib import Path

import pytest

from serving.devices import held_gpus, hold_gpus
from serving.errors import WrongModel

HOLDER = """
import asyncio, os, sys, time
from serving.devices import hold_gpus
async def main():
    async with hold_gpus(1, "another"):
        print(os.environ["CUDA_VISIBLE_DEVICES"], flush=True)
        await asyncio.sleep(60)
asyncio.run(main())
"""


@pytest.fixture(autouse=True)
def two_gpus(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setenv("ZEPHYR_GPU_LOCKS", str(tmp_path / "gpus"))
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "4,7")


def other() -> "subprocess.Popen[str]":
    process = subprocess.Popen([sys.executable, "-c", HOLDER], stdout=subprocess.PIPE, text=True)
    assert process.stdout is not None
    assert process.stdout.readline().strip() == "4"
    return process


async def test_who_comes_second_gets_the_other_gpu_and_who_comes_third_waits():
    said: list[str] = []
    process = other()
    try:
        async with hold_gpus(1, "serve judge"):
            assert os.environ["CUDA_VISIBLE_DEVICES"] == "7"
        assert os.environ["CUDA_VISIBLE_DEVICES"] == "4,7"
        with pytest.raises(TimeoutError):
            async with asyncio.timeout(1.2), hold_gpus(2, "train dpo", say=said.append):
                pass
        assert "waiting for 2 of the GPUs 4, 7" in said[0] and f"another, process {process.pid}" in said[0]
        assert not held_gpus()
        process.kill()
        async with asyncio.timeout(5), hold_gpus(2, "train dpo"):
            assert os.environ["CUDA_VISIBLE_DEVICES"] == "4,7"
    finally:
        process.kill()
        process.wait()


async def test_what_one_process_serves_and_trains_together_shares_its_gpus():
    async with hold_gpus(1, "serve judge"), hold_gpus(1, "train rlhf"):
        assert os.environ["CUDA_VISIBLE_DEVICES"] == "4"
    assert not held_gpus()


async def test_more_than_there_are_is_refused_at_once():
    with pytest.raises(WrongModel, match="3 GPUs are needed, and there are 2"):
        async with hold_gpus(3, "serve large", of=8):
            pass


async def test_a_gpu_is_free_when_its_server_has_ended_and_not_when_its_run_has(tmp_path: Path):
    slow = (
        "import signal, time; signal.signal(15, lambda *_: (time.sleep(1.5), exit(0))); print('up', flush=True); "
        "time.sleep(60)"
    )
    run = f"""
import asyncio, os, subprocess, sys, time
from serving import guard
from serving.devices import held_gpus, hold_gpus
async def main():
    async with hold_gpus(2, "serve"):
        above = [sys.executable, "-I", "-S", guard.__file__, str(os.getpid()), "10"]
        subprocess.Popen([*above, sys.executable, "-c", {slow!r}], start_new_session=True, pass_fds=held_gpus())
        await asyncio.sleep(60)
asyncio.run(main())
"""
    process = subprocess.Popen([sys.executable, "-c", run], stdout=subprocess.PIPE, text=True)
    assert process.stdout is not None and process.stdout.readline() == "up\n"
    process.kill()
    process.wait()
    began = time.monotonic()
    async with asyncio.timeout(20), hold_gpus(1, "train"):
        assert time.monotonic() - began > 1.0, "the server was still ending"
