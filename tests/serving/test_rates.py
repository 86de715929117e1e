"""Requests and tokens a minute: never more within any window, on a clock that is moved by hand and over real HTTP."""

import asyncio
import random
import time

import pytest

from serving import rates
from serving.chat import Request
from serving.client import PlainTransport, Transport
from serving.engine import Lane
from serving.rates import PerMinute
from tests.fake_model import fake_model


class Clock:
    """Time passes when somebody sleeps."""

    now = 1000.0

    def __call__(self) -> float:
        return self.now

    async def sleep(self, seconds: float) -> None:
        self.now += max(seconds, 1e-6)


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> Clock:
    made = Clock()
    monkeypatch.setattr(rates.asyncio, "sleep", made.sleep)
    return made


def most_in_a_minute(sent: list[tuple[float, float]]) -> float:
    return max(sum(amount for at, amount in sent if begin <= at < begin + 60) for begin, _ in sent)


@pytest.mark.parametrize("rate", [6, 60, 600, 3000])
async def test_no_minute_holds_more_than_the_rate(rate: int, clock: Clock):
    bucket, dice, sent = PerMinute(rate, clock), random.Random(rate), []
    while clock.now < 1200:
        if dice.random() < 0.01:
            clock.now += dice.random() * 30  # nobody asks for a while
        await bucket.take(1)
        sent.append((clock.now, 1.0))
    assert most_in_a_minute(sent) <= rate


async def test_the_whole_rate_is_used(clock: Clock):
    bucket, count = PerMinute(600, clock), 0
    while clock.now < 1600:
        await bucket.take(1)
        count += 1
    assert 0.98 * 6000 < count <= 6000 + 600


async def test_tokens_count_as_what_was_used_and_none_is_spent_twice(clock: Clock):
    """Booked at 100, used 20: five times as many requests fit, and no minute holds more than the rate."""
    bucket, sent = PerMinute(6000, clock), []
    while clock.now < 1600:
        booking = await bucket.take(100)
        sent.append((clock.now, 20.0))
        bucket.correct(booking, 20)
    assert most_in_a_minute(sent) <= 6000
    assert sum(used for _, used in sent) > 0.95 * 60_000


async def test_a_minute_that_costs_more_than_thought_is_paid_for(clock: Clock):
    bucket = PerMinute(600, clock)
    bucket.correct(await bucket.take(10), 600)
    began = clock.now
    await bucket.take(1)
    assert clock.now - began > 59


async def test_a_request_larger_than_a_minute_is_sent_alone(clock: Clock):
    bucket = PerMinute(600, clock)
    await bucket.take(10_000)
    began = clock.now
    await bucket.take(1)
    assert clock.now - began > 59


async def test_a_lane_keeps_its_requests_per_minute():
    with fake_model(lambda _: "ok") as fake:

        async def connect() -> Transport:
            return PlainTransport(fake.url, "fake", "openai", None, 20, 64)

        lane = Lane("fake", connect, 64, requests_per_minute=1200)
        ask = Request(({"role": "user", "content": "hello"},), 0.5, 0.9, 8)
        began = time.monotonic()
        await asyncio.gather(*(lane.ask(ask) for _ in range(25)))
        await lane.close()
    assert time.monotonic() - began > 0.9, "5 at once, then 20 a second"


async def test_a_lane_books_the_tokens_its_endpoint_counted():
    """Booked are 1000 tokens of answer, used are 2: thirty requests fit in a rate that would hold six."""
    with fake_model(lambda _: "two words") as fake:

        async def connect() -> Transport:
            return PlainTransport(fake.url, "fake", "openai", None, 20, 64)

        lane = Lane("fake", connect, 1, tokens_per_minute=6000)
        ask = Request(({"role": "user", "content": "hello"},), 0.5, 0.9, 1000)
        began = time.monotonic()
        for _ in range(30):
            await lane.ask(ask)
        await lane.close()
    assert time.monotonic() - began < 30
