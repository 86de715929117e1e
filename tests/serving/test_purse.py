"""A run never spends more than its budget, however it ends, and uses what it may."""

import asyncio
import json
import threading
import time
from pathlib import Path

import pytest

from serving.chat import Reply, Request
from serving.client import PlainTransport, Transport
from serving.engine import Lane
from serving.errors import RequestFailed
from serving.purse import Budget, Cost, Prices, Purse
from tests.fake_model import Answer, Body, Fault, fake_model

PRICES = Prices(1.0, 10.0)


def question(i: int) -> Request:
    return Request(({"role": "user", "content": f"question {i:03d}"},), 0.5, 0.9, 50, seed=i)


def lane_to(url: str, purse: Purse, limit: int = 8) -> Lane:
    async def connect() -> Transport:
        return PlainTransport(url, "m", "openai", None, 20, limit)

    lane = Lane("m", connect, limit, pause=0.001)
    lane.prices = PRICES
    lane.spend_from(purse)
    return lane


async def ask(lane: Lane, count: int) -> tuple[int, int]:
    """(answered, refused for the budget)."""

    async def one(i: int) -> Reply | str:
        try:
            return await lane.ask(question(i))
        except RequestFailed as why:
            return why.reason

    found = await asyncio.gather(*map(one, range(count)))
    await lane.close()
    return sum(isinstance(each, Reply) for each in found), found.count("budget")


@pytest.mark.parametrize("budget", [{"calls": 20}, {"tokens": 400}, {"money": 0.004}], ids=str)
async def test_it_stops_before_the_budget_and_near_it(tmp_path: Path, budget: dict[str, float]):
    with fake_model(lambda _: Answer("ten words " * 5)) as fake:
        purse = Purse(Budget.model_validate(budget), tmp_path / "spent.json")
        answered, refused = await ask(lane_to(fake.url, purse), 100)
    used = [PRICES.of_tokens(len(body["messages"][-1]["content"].split()), 10) for body in fake.asked]
    spent = sum(used, Cost())
    ((name, most),) = budget.items()
    assert answered + refused == 100 and answered == len(fake.asked)
    assert getattr(spent, name) == pytest.approx(getattr(purse.spent, name))
    assert getattr(spent, name) <= most
    left = most - getattr(spent, name)
    assert left < getattr(PRICES.most(question(1)), name), "what is left is less than one request can cost"


async def test_what_is_under_way_counts_at_its_most(tmp_path: Path):
    """Each may cost 50 tokens of answer: with 200, four at most are at the model together."""
    running, most, lock = 0, 0, threading.Lock()

    def answer(_: Body) -> str:
        nonlocal running, most
        with lock:
            running, most = running + 1, max(most, running + 1)
        time.sleep(0.02)
        with lock:
            running -= 1
        return "x"

    limit = 4 * int(PRICES.most(question(1)).tokens)
    with fake_model(answer) as fake:
        await ask(lane_to(fake.url, Purse(Budget(tokens=limit), tmp_path / "spent.json")), 30)
    assert 2 <= most <= 4


async def test_runs_count_together_and_a_killed_one_counts_what_it_held(tmp_path: Path):
    path = tmp_path / "spent.json"
    with fake_model(lambda _: "yes") as fake:
        first = Purse(Budget(calls=10), path)
        await ask(lane_to(fake.url, first), 4)
        first.close()
        killed = Purse(Budget(calls=10), path)
        await killed.hold(PRICES.most(question(1)))  # and nothing is heard of it again
        answered, refused = await ask(lane_to(fake.url, Purse(Budget(calls=10), path)), 10)
    assert json.loads(path.read_text())["calls"] <= 10
    assert answered == 5 and refused == 5, "four and one were spent before"


async def test_what_was_lost_on_the_way_is_counted_in_full_and_a_refusal_not(tmp_path: Path):
    faults = [Fault(close=True), Fault(429, headers={"retry-after": "0"})]
    with fake_model(lambda _: faults.pop(0) if faults else "yes") as fake:
        purse = Purse(Budget(calls=100), tmp_path / "spent.json")
        await ask(lane_to(fake.url, purse), 1)
    most = PRICES.most(question(1)).tokens
    assert purse.spent.calls == 3
    assert most < purse.spent.tokens < most + 10
