"""A managed server that dies or hangs under load is started again, and no request is lost by it."""

import asyncio
import json
import os
import signal
from pathlib import Path

import pytest

import serving.models
from serving import guard
from serving.chat import Request
from serving.errors import ServingError, WrongModel
from serving.models import Managed, open_models
from serving.settings import Endpoint, LlamaCpp
from serving.weights import Weights


def question(i: int) -> Request:
    return Request(
        ({"role": "user", "content": f"Count to {i}."},), temperature=0.0, top_p=1.0, max_tokens=24
    )


def processes(folder: Path) -> list[int]:
    """Of the server in `folder`, its guard left out."""
    (file,) = folder.glob("*.pid.json")
    entry = json.loads(file.read_text())
    return [pid for pid in guard.members(entry["group"]) if pid != entry["group"]]


@pytest.mark.parametrize(
    "blow",
    [
        pytest.param(signal.SIGKILL, id="dies"),
        pytest.param(signal.SIGSTOP, id="hangs", marks=pytest.mark.long),  # its patience is half a minute
    ],
)
async def test_a_server_that_fails_under_load_loses_no_request(
    tmp_path: Path, smol_gguf: Weights, blow: signal.Signals, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setattr(serving.models, "PATIENCE", 6.0)
    said: list[str] = []
    model = LlamaCpp(model=str(smol_gguf.path), slots=2, context=128)
    async with open_models({"smol": model}, tmp_path, said.append) as engine:
        await engine.lanes["smol"].ask(question(1))
        asking = [asyncio.create_task(engine.lanes["smol"].ask(question(i))) for i in range(2, 10)]
        await asyncio.sleep(0.1)
        for pid in processes(tmp_path):
            os.kill(pid, blow)
        replies = await asyncio.wait_for(asyncio.gather(*asking), 90)
    assert all(reply.choices[0].text for reply in replies)
    assert any("starting it again (1 of 3)" in line for line in said)
    assert not list(tmp_path.glob("*.pid.json"))


async def test_a_server_nobody_asks_is_never_started(tmp_path: Path):
    async with open_models({"smol": LlamaCpp(model="/nowhere.gguf")}, tmp_path):
        pass
    assert not list(tmp_path.iterdir())


async def test_missing_weights_say_what_was_tried(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    async with open_models({"smol": LlamaCpp(model="nobody/nothing-135m")}, tmp_path) as engine:
        with pytest.raises(WrongModel, match="nobody/nothing-135m"):
            await engine.lanes["smol"].ask(question(1))


async def test_a_key_that_is_not_set_is_named(tmp_path: Path):
    model = Endpoint(model="m", base_url="http://127.0.0.1:9/v1", key_env="NO_SUCH_KEY")
    with pytest.raises(
        WrongModel, match=r"models\.api\.key_env: the environment variable NO_SUCH_KEY is not set"
    ):
        async with open_models({"api": model}, tmp_path):
            pass


async def test_a_server_that_keeps_dying_stops_the_run(tmp_path: Path):
    class Dying:
        async def start(self) -> str:
            return "http://127.0.0.1:9/v1"

        async def stop(self) -> None: ...

        def alive(self) -> bool:
            return False

    managed = Managed("doomed", Dying, lambda _: None)
    for _ in range(serving.models.RESTARTS):
        await managed.url()
        await managed.recover()
    await managed.url()
    with pytest.raises(ServingError, match="doomed died, 4 times"):
        await managed.recover()
