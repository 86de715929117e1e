"""The limit follows the endpoint: what it refuses, and how long its own queue is."""

import asyncio
import time
from typing import Any

import pytest

import serving.limits
from benchmarks.simulator import simulator
from flows.stage import together
from serving.chat import Request
from serving.client import LONGEST_WAIT, PlainTransport, Transport, wait_of
from serving.engine import Lane
from serving.errors import ServingError
from serving.gate import Gate
from serving.limits import Queue, Refusals, steer
from serving.metrics import queue_at
from tests.fake_model import Fault, fake_model


def question(i: int) -> Request:
    return Request(({"role": "user", "content": f"question {i}"},), 1.0, 1.0, 400, seed=i)


def busy(gate: Gate, count: int) -> Refusals:
    """A server that tells its queue and has answered `count` requests at a time."""
    limit = Refusals(gate, told=True)
    for _ in range(10):
        for each in [limit.sent() for _ in range(count)]:
            limit.answered(each)
    return limit


async def test_a_refusal_now_and_then_is_that_requests_own_matter():
    gate = Gate(100)
    limit = busy(gate, 100)
    for _ in range(20):
        one, *others = [limit.sent() for _ in range(51)]
        assert not limit.refused(one, 60)
        for each in others:
            limit.answered(each)
    assert gate.limit == 100
    assert gate.shut_for <= 0


async def test_refusals_that_come_together_lower_the_limit_once_and_shut_the_endpoint():
    gate = Gate(100)
    limit = busy(gate, 100)
    refused = [limit.refused(each, 60) for each in [limit.sent() for _ in range(100)][:40]]
    assert refused == [False] + 39 * [True]
    assert gate.limit == pytest.approx(90)
    assert 59 < gate.shut_for <= 60


async def test_what_an_endpoint_keeps_of_a_first_burst_is_the_limit():
    gate = Gate(64)
    limit = Refusals(gate)
    burst = [limit.sent() for _ in range(64)]
    assert all(limit.refused(each, 1) for each in burst[16:])
    assert gate.limit == 16


async def test_what_was_kept_of_a_burst_that_came_in_another_order_is_the_limit_too():
    """Answers to a burst of which others were refused do not say that all of it was there at a time."""
    gate = Gate(64)
    limit = Refusals(gate, most=256)
    burst = [limit.sent() for _ in range(64)]
    assert all(limit.refused(each, 0) for each in burst[::2])
    for each in burst[1::2]:
        limit.answered(each)
    *kept, last = [limit.sent() for _ in range(33)]
    assert limit.refused(last, 0)
    assert gate.limit == len(kept) == 32


async def test_a_quiet_endpoint_is_left_alone_for_as_long_as_it_asked():
    calls: list[float] = []

    def answer(_: object) -> str | Fault:
        calls.append(time.monotonic())
        return Fault(429, headers={"retry-after": "1"}) if len(calls) == 3 else "ok"

    with fake_model(answer) as fake:

        async def connect() -> Transport:
            return PlainTransport(fake.url, "m", "openai", None, 30, 4)

        lane = Lane("m", connect, 4)
        for i in range(3):
            await lane.ask(question(i))
        await lane.close()
    assert calls[3] - calls[2] >= 1.0


@pytest.mark.parametrize(
    ("said", "date", "seconds"),
    [
        ("7", None, 7.0),
        ("0.5", None, 0.5),
        ("-3", None, 0.0),
        ("1e9", None, LONGEST_WAIT),
        ("nan", None, None),
        ("soon", None, None),
        (None, None, None),
        ("Wed, 21 Oct 2015 07:28:30 GMT", "Wed, 21 Oct 2015 07:28:00 GMT", 30.0),
        ("Wed, 21 Oct 2015 07:28:30 GMT", None, 0.0),
    ],
)
def test_retry_after_is_seconds_or_a_date_by_the_servers_own_clock(
    said: str | None, date: str | None, seconds: float | None
):
    assert wait_of(said, date) == seconds


@pytest.mark.parametrize(
    "allowed",
    [
        {"refusal": 503, "at_once": 8},
        {"refusal": 429, "requests": 40, "window": 1.0},
        {"refusal": 503, "requests": 40, "window": 1.0, "shape": "bucket"},
    ],
    ids=str,
)
async def test_an_endpoint_that_only_refuses_is_used_and_not_provoked(allowed: dict[str, Any]):
    options = {f"allow_{name}": value for name, value in allowed.items()}
    with simulator(slots=100, b=0.0, mean=20, sigma=0.3, **options) as model:

        async def connect() -> Transport:
            return PlainTransport(model.url, "m", "openai", None, 30, 64)

        lane = Lane("m", connect, 64)
        replies = await asyncio.gather(*(lane.ask(question(i)) for i in range(120)))
        await lane.close()
        seen = model.stats()["allowance"]
    assert len(replies) == seen["taken"] == 120
    assert not seen["banned"]
    assert seen["refused"] < 120


async def test_an_endpoint_that_refuses_everything_stops_the_run():
    with fake_model(lambda _: Fault(429)) as fake:

        async def connect() -> Transport:
            return PlainTransport(fake.url, "m", "openai", None, 30, 4)

        lane = Lane("m", connect, 4, pause=0.001)
        with pytest.raises(ServingError, match="nobody else got an answer"):
            await together(lane.ask(question(i)) for i in range(20))
        await lane.close()


async def test_a_spent_quota_stops_the_run_at_once():
    with fake_model(lambda _: Fault(429, '{"error": {"code": "insufficient_quota"}}')) as fake:

        async def connect() -> Transport:
            return PlainTransport(fake.url, "m", "openai", None, 30, 4)

        lane = Lane("m", connect, 4)
        with pytest.raises(ServingError, match="quota is used up"):
            await lane.ask(question(1))
        await lane.close()
    assert len(fake.asked) == 1


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
    monkeypatch.setattr("serving.replicas.START", 16)
    with simulator(slots=64, speed=4, mean=200) as model:

        async def connect() -> Transport:
            return PlainTransport(model.url, "m", "vllm", None, 30, 256)

        lane = Lane("m", connect, 256, look=lambda: queue_at(model.url))
        asking = [asyncio.create_task(lane.ask(question(i))) for i in range(400)]
        await asyncio.gather(*asking)
        await lane.close()
        peak = model.stats()["mean_running"]
    assert 60 < lane.gate.limit < 110, "64 slots and a short queue"
    assert peak > 30


async def test_a_server_that_is_not_vllm_does_not_say():
    with simulator() as model:
        assert await queue_at(model.url + "/nowhere/v1") is None
