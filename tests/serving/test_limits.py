"""The limit follows the endpoint: what it refuses, and how long its own queue is."""

import asyncio

import pytest

import serving.limits
from benchmarks.simulator import simulator
from serving.chat import Request
from serving.client import PlainTransport, Transport
from serving.engine import Gate, Lane
from serving.limits import Queue, Refusals, steer
from serving.models import queue_at


def test_a_refusal_now_and_then_is_that_requests_own_matter():
    gate = Gate(100)
    limit = Refusals(gate)
    for _ in range(20):
        for _ in range(50):
            limit.answered()
        limit.refused(60)
    assert gate.limit == 100
    assert limit.pause <= 0


def test_refusals_that_come_together_lower_the_limit_once_and_close_the_endpoint():
    gate = Gate(100)
    limit = Refusals(gate)
    for _ in range(40):
        limit.refused(60)
    assert gate.limit == pytest.approx(70)
    assert 59 < limit.pause <= 60


@pytest.mark.parametrize(
    ("queue", "least", "most"),
    [
        (Queue(100, 0), 115, 1000),
        (Queue(100, 10), 100, 100),
        (Queue(100, 50), 1, 95),
        (None, 100, 100),
    ],
    ids=["empty", "as it should be", "long", "not told"],
)
async def test_the_servers_own_queue_steers_the_limit(
    queue: Queue | None, least: float, most: float, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setattr(serving.limits, "LOOK", 0.001)
    gate, looks = Gate(100), 0

    async def look() -> Queue | None:
        nonlocal looks
        looks += 1
        return queue

    for _ in range(100):
        await gate.enter(0)
    held_back = asyncio.create_task(gate.enter(0))
    steering = asyncio.create_task(steer(gate, 1000, look))
    while looks < 6:
        await asyncio.sleep(0.001)
    steering.cancel()
    held_back.cancel()
    assert least <= gate.limit <= most


async def test_a_server_with_more_slots_than_usual_is_filled(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(serving.limits, "LOOK", 0.05)
    monkeypatch.setattr("serving.engine.START", 16)
    with simulator(slots=64, speed=4, mean=200) as model:

        async def connect() -> Transport:
            return PlainTransport(model.url, "m", "vllm", None, 30, 256)

        lane = Lane("m", connect, 256, look=lambda: queue_at(model.url))
        asking = [
            asyncio.create_task(
                lane.ask(Request(({"role": "user", "content": f"question {i}"},), 1.0, 1.0, 400, seed=i))
            )
            for i in range(400)
        ]
        await asyncio.gather(*asking)
        await lane.close()
        peak = model.stats()["mean_running"]
    assert 60 < lane.gate.limit < 110, "64 slots and a short queue"
    assert peak > 30


async def test_a_server_that_is_not_vllm_does_not_say():
    with simulator() as model:
        assert await queue_at(model.url + "/nowhere/v1") is None
