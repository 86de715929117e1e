import asyncio
import json
import os
import signal
import subprocess
import sys
import textwrap
import time
from pathlib import Path

import pytest

from serving import guard
from serving.errors import ServingError
from serving.process import Progress, ServerProcess, reap_orphans

SERVER = """
import json, signal, subprocess, sys, time
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

port, model, *traits = sys.argv[1:]
if "dies" in traits:
    print("torch.OutOfMemoryError: CUDA out of memory", flush=True)
    sys.exit(3)
if "silent" in traits:
    time.sleep(600)
if "stubborn" in traits:
    signal.signal(signal.SIGTERM, signal.SIG_IGN)
if "parent" in traits:
    subprocess.Popen([sys.executable, "-c", "import time, signal; signal.signal(15, 1); time.sleep(600)"])

class Handler(BaseHTTPRequestHandler):
    def log_message(self, *_): pass
    def reply(self, body, status=200):
        self.send_response(status)
        self.send_header("Content-Type", "application/json")
        self.end_headers()
        self.wfile.write(json.dumps(body).encode())
    def do_GET(self):
        self.reply({"data": [{"id": model}]})
    def do_POST(self):
        if "mute" in traits:
            self.reply({"error": "the tokenizer has no chat template"}, 400)
        else:
            self.reply({"choices": [{"message": {"content": "a"}}]})

ThreadingHTTPServer(("127.0.0.1", int(port)), Handler).serve_forever()
"""


@pytest.fixture
def script(tmp_path: Path) -> Path:
    path = tmp_path / "server.py"
    path.write_text(SERVER)
    return path


def server(script: Path, *traits: str, serves: str = "tiny", start_timeout: float = 20) -> ServerProcess:
    def command(port: int) -> list[str]:
        return [sys.executable, str(script), str(port), serves, *traits]

    return ServerProcess("judge", "tiny", command, script.parent / "run", start_timeout=start_timeout)


async def gone(group: int, within: float = 10) -> bool:
    deadline = time.monotonic() + within
    while guard.members(group) and time.monotonic() < deadline:
        await asyncio.sleep(0.05)
    return not guard.members(group)


async def test_a_started_server_answers_and_a_stopped_one_leaves_nothing(script: Path):
    process = server(script)
    url = await process.start()
    group, pid_file = process.pid, process.pid_file
    assert group and url == f"http://127.0.0.1:{process.port}/v1"
    assert process.alive() and len(guard.members(group)) == 2
    entry = json.loads(pid_file.read_text())
    assert entry["processes"][str(group)] == guard.started(group)
    assert (entry["parent"], entry["port"]) == (os.getpid(), process.port)
    await process.stop()
    await process.stop()
    assert not process.alive() and not guard.members(group) and not pid_file.exists()


async def test_a_server_that_dies_early_says_why(script: Path):
    with pytest.raises(ServingError) as error:
        await server(script, "dies").start()
    assert "judge (tiny) exited with code 3" in str(error.value)
    assert "CUDA out of memory" in str(error.value)
    assert "hint: lower gpu-memory-utilization" in str(error.value)


async def test_a_command_that_does_not_exist_is_named(tmp_path: Path):
    process = ServerProcess("judge", "tiny", lambda _: ["no-such-program"], tmp_path)
    with pytest.raises(ServingError, match=r"(?s)code 127.*hint: a file.*cannot start 'no-such-program'"):
        await process.start()


async def test_a_server_that_never_answers_is_ended_at_the_timeout(script: Path):
    process = server(script, "silent", start_timeout=0.5)
    with pytest.raises(ServingError, match=r"was not ready after 0\.5 s"):
        await process.start()
    assert not list((script.parent / "run").glob("*.json"))


async def test_a_server_with_another_model_is_refused(script: Path):
    with pytest.raises(ServingError, match=r"serves \['other'\], wanted 'tiny'"):
        await server(script, serves="other").start()


async def test_a_server_that_cannot_chat_is_refused_with_its_own_words(script: Path):
    with pytest.raises(ServingError, match=r"(?s)400: .*no chat template.*hint: give one"):
        await server(script, "mute").start()


async def test_a_server_that_ignores_sigterm_and_its_children_are_killed(script: Path, monkeypatch):
    monkeypatch.setattr("serving.process.GRACE", 0.5)
    process = server(script, "stubborn", "parent")
    await process.start()
    group = process.pid
    assert group and len(guard.members(group)) == 3
    await process.stop()
    assert not guard.members(group)


async def test_the_children_of_a_server_that_crashed_are_ended_too(script: Path, monkeypatch):
    monkeypatch.setattr("serving.process.GRACE", 0.5)
    process = server(script, "parent")
    await process.start()
    assert process.pid
    entry = json.loads(process.pid_file.read_text())
    crashed = next(int(pid) for pid in entry["processes"] if script.name in command_of(pid, process.pid))
    os.kill(crashed, signal.SIGKILL)
    assert await gone(process.pid)
    assert not process.alive()
    await process.stop()


def command_of(pid: str, leader: int) -> str:
    return "" if pid == str(leader) else Path(f"/proc/{pid}/cmdline").read_text()


async def test_a_restart_keeps_the_address(script: Path):
    process = server(script)
    before = await process.start()
    group = process.pid
    assert group
    os.kill(group, signal.SIGKILL)
    assert await process.restart() == before
    assert process.alive() and process.pid != group and not guard.members(group)
    await process.stop()


async def test_a_cancelled_start_leaves_nothing(script: Path):
    process = server(script, "silent")
    task = asyncio.create_task(process.start())
    while not process.pid:
        await asyncio.sleep(0.05)
    group = process.pid
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    assert await gone(group)


async def test_a_port_that_another_process_took_is_changed(script: Path):
    taken = server(script)
    await taken.start()
    ports = [taken.port]

    def command(port: int) -> list[str]:
        ports.append(port)
        return [sys.executable, str(script), str(ports[0] if len(ports) == 2 else port), "tiny"]

    second = ServerProcess("second", "tiny", command, script.parent / "run")
    await second.start()
    assert second.port not in ports[:2]
    await second.stop()
    await taken.stop()


PARENT = """
    import asyncio, sys, time
    sys.path.insert(0, {root!r})
    from pathlib import Path
    from serving.process import ServerProcess

    command = lambda port: [sys.executable, {script!r}, str(port), "tiny", *{traits!r}]
    process = ServerProcess("judge", "tiny", command, Path({folder!r}))
    asyncio.run(process.start())
    print(process.pid, flush=True)
    time.sleep(600)
"""


def killed_run(script: Path, *traits: str, also_guard: bool = False) -> int:
    """The group of a server whose parent got a SIGKILL."""
    root = str(Path(guard.__file__).parents[1])
    values = {"root": root, "script": str(script), "traits": traits, "folder": str(script.parent / "run")}
    code = textwrap.dedent(PARENT).format(**values)
    with subprocess.Popen([sys.executable, "-c", code], stdout=subprocess.PIPE, text=True) as parent:
        assert parent.stdout
        group = int(parent.stdout.readline())
        if also_guard:
            os.kill(group, signal.SIGSTOP)  # so that it cannot act before it is killed too
        parent.kill()
    if also_guard:
        os.kill(group, signal.SIGKILL)
        while guard.started(group):
            time.sleep(0.02)
    return group


async def test_a_killed_run_leaves_no_server_within_seconds(script: Path):
    assert await gone(killed_run(script), within=5)


async def test_a_server_whose_guard_was_killed_as_well_gets_the_parent_death_signal(script: Path):
    if sys.platform != "linux":
        pytest.skip("only Linux has a parent-death signal")
    assert await gone(killed_run(script, also_guard=True), within=5)


async def test_an_orphan_of_a_killed_run_is_reaped_by_its_pid_file(script: Path):
    group = killed_run(script, "stubborn", "parent", also_guard=True)
    assert len(guard.members(group)) == 2
    assert reap_orphans(script.parent, grace=0.2) == [f"judge ({group})"]
    assert not guard.members(group)
    assert not list(script.parent.rglob("*.pid.json"))


async def test_a_server_whose_run_lives_is_not_reaped(script: Path):
    process = server(script)
    await process.start()
    assert reap_orphans(script.parent) == []
    assert process.alive()
    await process.stop()


async def test_a_stranger_that_was_given_the_number_of_a_dead_server_lives(script: Path):
    process = server(script)
    await process.start()
    entry, pid_file = json.loads(process.pid_file.read_text()), process.pid_file
    await process.stop()
    with subprocess.Popen(["sleep", "60"], start_new_session=True) as stranger:
        entry |= {"group": stranger.pid, "parent": 2**22 + 1}
        entry["processes"] = {str(stranger.pid): entry["processes"].popitem()[1]}
        pid_file.write_text(json.dumps(entry))
        assert reap_orphans(script.parent) == []
        assert stranger.poll() is None and not pid_file.exists()
        stranger.kill()


def test_tokens_that_do_not_move_while_work_is_in_flight_mean_stuck():
    progress = Progress(patience=60)
    assert not progress.stuck(100, 4, now=0)
    assert not progress.stuck(100, 4, now=59)
    assert progress.stuck(100, 4, now=60)


def test_tokens_that_move_or_a_server_without_work_are_not_stuck():
    progress = Progress(patience=60)
    assert not progress.stuck(100, 4, now=0)
    assert not progress.stuck(101, 4, now=50)
    assert not progress.stuck(101, 4, now=100)
    assert not progress.stuck(101, 0, now=200)
    assert not progress.stuck(101, 4, now=210)
    assert progress.stuck(101, 4, now=260)
