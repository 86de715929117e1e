"""A request that ends a managed server is found, with few restarts, and nobody else pays for it."""

import asyncio
import sys
from pathlib import Path

import pytest

from flows.stage import together
from serving.chat import Reply, Request
from serving.client import PlainTransport, Transport
from serving.engine import Lane
from serving.errors import RequestFailed
from serving.models import Managed
from serving.process import ServerProcess

SERVER = Path(__file__).parent / "mortal_server.py"


def question(text: str) -> Request:
    return Request(({"role": "user", "content": text},), temperature=0.0, top_p=1.0, max_tokens=8)


class Run:
    """A managed server in a process of its own that ends, or hangs, when it is asked what it cannot bear."""

    def __init__(self, folder: Path, how: str, limit: int, patience: float = 3.0) -> None:
        self.said: list[str] = []

        def command(port: int) -> list[str]:
            return [sys.executable, str(SERVER), str(port), how, str(folder / "starts")]

        self.managed = Managed(
            "mortal", lambda: ServerProcess("mortal", "mortal", command, folder), self.said.append, patience
        )
        self.starts = folder / "starts"

        async def connect() -> Transport:
            return PlainTransport(await self.managed.url(), "mortal", "openai", None, 30, 256)

        self.lane = Lane("mortal", connect, limit, recover=self.managed.recover, pause=0.05)
        self.lane.suspects = self.managed.suspects
        self.managed.lanes.append(self.lane)

    async def ask(self, texts: list[str]) -> dict[str, Reply | RequestFailed]:
        async def one(text: str) -> Reply | RequestFailed:
            try:
                return await self.lane.ask(question(text))
            except RequestFailed as why:
                return why

        try:
            return dict(zip(texts, await asyncio.wait_for(together(map(one, texts)), 100), strict=True))
        finally:
            await self.lane.close()
            await self.managed.stop()


@pytest.mark.parametrize("how", ["dies", "hangs", "engine dies"])
async def test_a_request_that_ends_its_server_is_quarantined_and_the_others_are_answered(
    tmp_path: Path, how: str
):
    run = Run(tmp_path, how, limit=4)
    texts = [f"say {i}" for i in range(10)] + ["poison"] + [f"say {i}" for i in range(10, 14)]
    found = await run.ask(texts)
    guilty = found.pop("poison")
    assert isinstance(guilty, RequestFailed) and guilty.reason == "quarantined"
    assert not [why for why in found.values() if isinstance(why, RequestFailed)], run.said
    assert run.starts.read_text().count("start") <= 3, "two deaths"
    assert any("quarantined" in line and "poison" in line for line in run.said)


async def test_among_many_suspects_the_guilty_one_costs_three_restarts(tmp_path: Path):
    run = Run(tmp_path, "dies", limit=60)
    found = await run.ask(
        [f"slow {i}" for i in range(40)] + ["poison"] + [f"slow {i}" for i in range(40, 60)]
    )
    guilty = found.pop("poison")
    assert isinstance(guilty, RequestFailed) and guilty.reason == "quarantined"
    assert not [why for why in found.values() if isinstance(why, RequestFailed)], run.said
    assert run.starts.read_text().count("start") <= 4


async def test_two_guilty_requests_are_both_found(tmp_path: Path):
    run = Run(tmp_path, "dies", limit=4)
    found = await run.ask(["say 1", "poison a", "say 2", "poison b", "say 3"])
    reasons = {text: why.reason for text, why in found.items() if isinstance(why, RequestFailed)}
    assert reasons == {"poison a": "quarantined", "poison b": "quarantined"}
