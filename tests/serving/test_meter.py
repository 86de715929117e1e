"""How busy a model was, on numbers worked by hand, and against what the simulated server saw itself."""

import asyncio
import time

import pytest

from benchmarks.simulator import simulator
from serving.chat import Request
from serving.client import PlainTransport, Transport
from serving.engine import Engine, Lane
from serving.limits import Queue
from serving.meter import POINTS, Meter, watched
from serving.metrics import queue_at
from serving.purse import Prices


async def never() -> Transport:
    raise AssertionError


def test_a_server_starves_while_more_was_still_to_be_asked():
    lane = Lane("m", never, 8)
    meter = Meter(lane)
    meter.look(0, Queue(0, 0))
    assert not meter.points, "nothing was asked yet"
    for second, (sent, running, waiting) in enumerate(
        [(4, 4, 2), (5, 4, 1), (6, 2, 0), (7, 4, 0), (7, 1, 0), (7, 1, 0)]
    ):
        lane.stats.sent = sent
        meter.look(10 + second, Queue(running, waiting))
    assert meter.starved == pytest.approx(1 / 3), (
        "one second of three; full with four, and nothing was asked after"
    )


def test_a_long_series_is_kept_short():
    lane = Lane("m", never, 8)
    lane.stats.sent, meter = 1, Meter(lane)
    for second in range(20 * POINTS):
        meter.look(second, None)
    assert POINTS / 2 <= len(meter.points) <= POINTS
    assert meter.points[-1][0] > 19 * POINTS


async def test_it_agrees_with_the_server(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr("serving.meter.LOOK", 0.1)
    monkeypatch.setattr("serving.limits.LOOK", 0.1)
    reads = 0

    async def look() -> Queue | None:
        nonlocal reads
        reads += 1
        return await queue_at(model.url)

    began = time.monotonic()
    with simulator(slots=8, speed=4) as model:

        async def connect() -> Transport:
            return PlainTransport(model.url, "m", "vllm", None, 60, 16)

        lane = Lane("m", connect, 12, look=look)
        lane.prices = Prices(1.0, 3.0)
        async with watched(Engine({"m": lane}), lambda _: None) as meters:

            async def ask(i: int) -> None:
                text = {"role": "user", "content": f"question {i}"}
                await lane.ask(Request((text,), 1.0, 1.0, 300, seed=i))

            await asyncio.gather(*map(ask, range(24)))
            for i in range(24, 28):
                await ask(i)
        await lane.close()
        seen = model.stats()["starved"]
    assert meters["m"].starved == pytest.approx(seen, abs=0.1)
    assert 0 < reads <= (time.monotonic() - began) / 0.1, "the lane's own look is the only one"
    figures = meters["m"].figures()
    assert figures["requests"] == figures["sent"] == 28
    assert figures["spend"] == pytest.approx(
        figures["prompt_tokens"] / 1e6 + 3 * figures["completion_tokens"] / 1e6
    )
