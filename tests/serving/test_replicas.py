"""Several servers of one model, over real HTTP: siblings stay together, and one that fails loses nobody's work."""

import asyncio
import socket
from collections import Counter
from contextlib import ExitStack
from pathlib import Path

import pytest

import serving.replicas
from benchmarks.simulator import Simulated, simulator
from serving.chat import Request
from serving.client import PlainTransport, Transport
from serving.engine import TRIES, Lane
from serving.errors import RequestFailed
from serving.gate import LINGER, Gate
from serving.models import open_models
from serving.replicas import Reach
from serving.settings import Endpoint, Model
from tests.fake_model import Fake, Fault, fake_model


def question(i: int, about: str = "") -> Request:
    return Request(({"role": "user", "content": f"question {i}"},), 1.0, 1.0, 400, seed=i, about=about)


def free_port() -> int:
    with socket.socket() as found:
        found.bind(("127.0.0.1", 0))
        return found.getsockname()[1]


def lane_to(*fakes: Fake, limit: int = 64) -> Lane:
    def reach(fake: Fake) -> Reach:
        async def connect() -> Transport:
            return PlainTransport(fake.url, "m", "openai", None, 30, limit)

        return Reach(fake.url, connect)

    return Lane("m", [reach(fake) for fake in fakes], limit, pause=0.001)


@pytest.fixture
def quickly(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(serving.replicas, "BACK", 0.1)


async def test_what_is_asked_about_one_prompt_goes_to_one_server():
    with ExitStack() as open_:
        fakes = [open_.enter_context(fake_model(lambda _: "ok")) for _ in range(3)]
        lane = lane_to(*fakes)
        for some in range(0, 30, 5):  # never more than one has room for
            asked = [(i, k) for i in range(some, some + 5) for k in range(4)]
            await asyncio.gather(*(lane.ask(question(100 * i + k, f"p{i}")) for i, k in asked))
        await lane.close()
    where: dict[int, Counter[int]] = {}
    for number, fake in enumerate(fakes):
        for body in fake.asked:
            where.setdefault(body["seed"] // 100, Counter())[number] += 1
    assert all(list(found.values()) == [4] for found in where.values())
    assert all(3 <= len(fake.asked) / 4 <= 20 for fake in fakes), "each has a share of the 30 prompts"
    assert not any("about" in body for fake in fakes for body in fake.asked)


async def test_where_one_is_full_another_with_room_takes_the_next():
    with (
        simulator(slots=100, b=0.0, mean=50, speed=4) as one,
        simulator(slots=100, b=0.0, mean=50, speed=4) as two,
    ):
        models: dict[str, Model] = {
            "m": Endpoint(model="m", base_url=(one.url, two.url), dialect="openai", max_in_flight=4)
        }
        async with open_models(models, Path("/nowhere")) as engine:
            asking = [
                asyncio.create_task(engine.lanes["m"].ask(question(i, "one prompt"))) for i in range(40)
            ]
            most = 0
            while not all(task.done() for task in asking):
                await asyncio.sleep(0.005)
                most = max(most, engine.lanes["m"].gate.running)
        assert most == 8, "four at each"
        assert min(one.stats()["requests"], two.stats()["requests"]) >= 10


async def test_a_server_killed_in_the_middle_loses_no_request_and_is_taken_back(quickly: None):
    port = free_port()
    with simulator(slots=8, b=0.0, mean=60, speed=3) as stays, ExitStack() as first:
        killed: Simulated = first.enter_context(simulator(slots=8, b=0.0, mean=60, speed=3, port=port))
        models: dict[str, Model] = {
            "m": Endpoint(model="m", base_url=(stays.url, killed.url), dialect="vllm", max_in_flight=16)
        }
        async with open_models(models, Path("/nowhere")) as engine:
            lane = engine.lanes["m"]
            asking = [asyncio.create_task(lane.ask(question(i, f"p{i // 4}"))) for i in range(240)]
            while lane.stats.answered < 60:
                await asyncio.sleep(0.01)
            there, before = lane.replicas.all[1].gate.running, killed.stats()["requests"]
            killed.process.kill()
            first.close()
            replies = await asyncio.gather(*asking)
            assert len(replies) == lane.stats.answered == 240
            assert lane.stats.retries["connection"] <= there, (
                "what was in flight is asked again, nothing else"
            )
            assert stays.stats()["requests"] <= 240 - before + there
            assert lane.replicas.all[1].gate.closed
            with simulator(slots=8, b=0.0, mean=60, speed=3, port=port) as returned:
                while lane.replicas.all[1].gate.closed:
                    await asyncio.sleep(0.02)
                await asyncio.gather(*(lane.ask(question(i, f"p{i // 4}")) for i in range(300, 400)))
                assert returned.stats()["requests"] > 20
        assert lane.stats.failed == 0


async def test_a_server_that_only_fails_is_left_out(quickly: None):
    with fake_model(lambda _: Fault(500)) as broken, fake_model(lambda _: "ok") as whole:
        lane = lane_to(broken, whole)
        await asyncio.gather(*(lane.ask(question(i, f"p{i}")) for i in range(60)))
        before = len(broken.asked)
        await asyncio.gather(*(lane.ask(question(i, f"p{i}")) for i in range(60, 120)))
        await lane.close()
    assert lane.stats.answered == 120
    assert len(broken.asked) <= before + 3, "one at a time is tried after it was taken back"


async def test_a_request_that_one_server_never_answers_is_asked_elsewhere():
    with fake_model(lambda _: Fault(500)) as broken, fake_model(lambda _: "ok") as whole:
        lane = lane_to(broken, whole)
        for i in range(10):
            assert (await lane.ask(question(i, f"p{i}"))).choices[0].text == "ok"
        await lane.close()
    assert len(broken.asked) <= serving.replicas.STREAK


async def test_when_none_is_left_the_last_is_asked_as_often_as_ever():
    with fake_model(lambda _: Fault(close=True)) as one, fake_model(lambda _: Fault(close=True)) as two:
        lane = lane_to(one, two)
        with pytest.raises(RequestFailed, match=f"{TRIES} tries"):
            await lane.ask(question(1, "p"))
        await lane.close()
    assert TRIES <= len(one.asked) + len(two.asked) <= 2 * TRIES


async def test_a_cancelled_waiter_leaves_its_place_wherever_it_was_let_in():
    home, other = Gate(1), Gate(1)
    home.beside, other.beside = [other], [home]
    await home.enter(0)
    await other.enter(0)
    waiting = asyncio.create_task(home.enter(0))
    await asyncio.sleep(0)
    other.leave()
    waiting.cancel()
    await asyncio.gather(waiting, return_exceptions=True)
    await asyncio.sleep(2 * LINGER)
    assert (home.running, other.running) == (1, 0)


@pytest.mark.parametrize(
    ("addresses", "said"),
    [
        (("http://a/v1", "http://a/v1"), "each once; got .*http://a/v1"),
        ((), "one address or more"),
        (("http://a/v1", "b"), "got 'b'"),
    ],
)
def test_a_list_that_is_none_of_addresses_is_refused(addresses: tuple[str, ...], said: str):
    with pytest.raises(ValueError, match=said):
        Endpoint(model="m", base_url=addresses)


def test_the_address_is_in_no_fingerprint():
    one = Endpoint(model="m", base_url="http://a/v1")
    assert Endpoint(model="m", base_url=("http://b/v1", "http://c/v1")).identity == one.identity
