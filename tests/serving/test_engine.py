"""The lane's promises, against a model over real HTTP: what is asked again, what is given up, in which order."""

import asyncio
import threading
import time

import pytest

from serving.chat import Request
from serving.client import OpenAITransport, PlainTransport, Transport, body_of
from serving.engine import TRIES, Lane
from serving.errors import RequestFailed, ServingError
from serving.gate import Gate
from tests.fake_model import Answer, Fake, Fault, fake_model

ASK = Request(({"role": "user", "content": "hello"},), temperature=0.5, top_p=0.9, max_tokens=8, seed=3)


def lane_to(fake: Fake, limit: int = 8, client: str = "plain", timeout: float = 20, **options) -> Lane:
    async def connect() -> Transport:
        if client == "openai":
            return OpenAITransport(fake.url, "fake", "key", timeout)
        return PlainTransport(fake.url, "fake", "openai", "key", timeout, limit)

    return Lane("fake", connect, limit, pause=0.001, **options)


@pytest.mark.parametrize("client", ["plain", "openai"])
async def test_every_sampling_field_is_sent_and_the_answer_comes_back(client: str):
    with fake_model(lambda body: Answer("hi there", logprobs={"hi": -0.1, "ho": -2.0})) as fake:
        lane = lane_to(fake, client=client)
        reply = await lane.ask(ASK)
        await lane.close()
    assert reply.choices[0].text == "hi there"
    assert reply.choices[0].tokens[0].alternatives == {"hi": -0.1, "ho": -2.0}
    assert reply.usage.completion_tokens == 2
    sent = {"temperature": 0.5, "top_p": 0.9, "n": 1, "seed": 3, "max_completion_tokens": 8}
    assert {name: fake.asked[0][name] for name in sent} == sent


@pytest.mark.parametrize("client", ["plain", "openai"])
@pytest.mark.parametrize(
    "fault",
    [
        Fault(500),
        Fault(503),
        Fault(429, headers={"retry-after": "0"}),
        Fault(close=True),
        Fault(200, '{"choi'),
    ],
)
async def test_a_passing_fault_is_asked_again(client: str, fault: Fault):
    calls = []
    with fake_model(lambda body: fault if calls.append(1) or len(calls) < 3 else "at last") as fake:
        lane = lane_to(fake, client=client)
        assert (await lane.ask(ASK)).choices[0].text == "at last"
        await lane.close()
    assert sum(lane.stats.retries.values()) == 2


async def test_an_aborted_answer_is_not_an_answer():
    calls = []
    with fake_model(
        lambda b: Answer("cut", "abort") if calls.append(1) or len(calls) < 2 else "whole"
    ) as fake:
        lane = lane_to(fake)
        assert (await lane.ask(ASK)).choices[0].text == "whole"
        await lane.close()


async def test_after_the_last_try_the_row_is_dropped_as_a_transport_error():
    with fake_model(lambda body: Fault(500)) as fake:
        lane = lane_to(fake)
        with pytest.raises(RequestFailed, match=f"{TRIES} tries") as why:
            await lane.ask(ASK)
        await lane.close()
    assert why.value.reason == "transport_error"
    assert len(fake.asked) == TRIES


@pytest.mark.parametrize("client", ["plain", "openai"])
@pytest.mark.parametrize(
    ("body", "reason"),
    [
        ('{"error":{"message":"maximum context length is 4096 tokens"}}', "too_long"),
        (
            '{"error":{"type":"exceed_context_size_error","message":"request exceeds the available context size"}}',
            "too_long",
        ),
        ('{"error":{"message":"unsupported role"}}', "rejected_request"),
    ],
)
async def test_a_request_the_server_will_never_take_is_asked_once(client: str, body: str, reason: str):
    with fake_model(lambda _: Fault(400, body)) as fake:
        lane = lane_to(fake, client=client)
        with pytest.raises(RequestFailed) as why:
            await lane.ask(ASK)
        await lane.close()
    assert why.value.reason == reason
    assert len(fake.asked) == 1


@pytest.mark.parametrize("status", [401, 403, 404])
async def test_a_wrong_key_or_model_stops_the_run(status: int):
    with fake_model(lambda _: Fault(status)) as fake:
        lane = lane_to(fake)
        with pytest.raises(ServingError, match=str(status)):
            await lane.ask(ASK)
        await lane.close()


async def test_a_slow_server_is_never_asked_more_than_the_limit_at_once():
    running, most, lock = 0, 0, threading.Lock()

    def answer(body: dict) -> str:
        nonlocal running, most
        with lock:
            running += 1
            most = max(most, running)
        time.sleep(0.02)
        with lock:
            running -= 1
        return "ok"

    with fake_model(answer) as fake:
        lane = lane_to(fake, limit=4)
        await asyncio.gather(*(lane.ask(ASK) for _ in range(20)))
        await lane.close()
    assert most == 4
    assert lane.stats.usage.requests == 20


async def test_judging_overtakes_generating_that_came_before():
    gate, order = Gate(1), []

    async def use(name: str, priority: int) -> None:
        await gate.enter(priority)
        order.append(name)
        await asyncio.sleep(0)
        gate.leave()

    await gate.enter(0)
    tasks = [asyncio.create_task(use(*job)) for job in (("generate 1", 1), ("generate 2", 1), ("judge", 0))]
    await asyncio.sleep(0.01)
    gate.leave()
    await asyncio.gather(*tasks)
    assert order == ["judge", "generate 1", "generate 2"]


async def test_a_repeat_goes_before_what_was_never_tried():
    failed: list[str] = []

    def answer(body: dict) -> str | Fault:
        if body["messages"][0]["content"] == "first" and not failed:
            failed.append("first")
            return Fault(200, "{")
        time.sleep(0.02)
        return "ok"

    with fake_model(answer) as fake:
        lane = lane_to(fake, limit=1)
        names = ["first", *(f"other {i}" for i in range(6))]
        asks = [Request(({"role": "user", "content": name},), 0.0, top_p=1.0, max_tokens=8) for name in names]
        await asyncio.gather(*map(lane.ask, asks))
        await lane.close()
    order = [body["messages"][0]["content"] for body in fake.asked]
    assert order[2] == "first", "it lets at most the one pass that took its place"


async def test_a_cancelled_waiter_leaves_its_place_to_the_next():
    gate = Gate(1)
    await gate.enter(0)
    waiting = asyncio.create_task(gate.enter(0))
    other = asyncio.create_task(gate.enter(0))
    await asyncio.sleep(0)
    waiting.cancel()
    gate.leave()
    await asyncio.wait_for(other, 1)
    assert gate.running == 1


async def test_a_model_that_cannot_be_reached_is_handed_to_recovery():
    recovered = []

    async def recover() -> None:
        recovered.append(1)
        raise ServingError("the server died twice")

    async def connect() -> Transport:
        return PlainTransport("http://127.0.0.1:9/v1", "fake", "openai", None, 5, 1)

    lane = Lane("gone", connect, 1, recover=recover, pause=0.001)
    with pytest.raises(ServingError, match="died twice"):
        await lane.ask(ASK)
    await lane.close()
    assert recovered == [1]


def test_each_dialect_restricts_the_answer_in_its_own_words():
    restricted = Request(ASK.messages, 0.0, 1.0, 1, choices=("1", "2"), prefix="Grade: ")
    vllm, llamacpp = body_of(restricted, "m", "vllm"), body_of(restricted, "m", "llamacpp")
    assert vllm["structured_outputs"] == {"choice": ["1", "2"]}
    assert vllm["continue_final_message"] and not vllm["add_generation_prompt"]
    assert llamacpp["grammar"] == 'root ::= "1" | "2"'
    assert llamacpp["messages"][-1] == {"role": "assistant", "content": "Grade: "}
    with pytest.raises(RequestFailed, match="cannot go on"):
        body_of(restricted, "m", "openai")


async def test_a_run_that_is_stopped_part_by_part_sends_nothing_new():
    held = threading.Event()
    with fake_model(lambda body: "done" if held.wait(20) else "never") as fake:
        lane = lane_to(fake, limit=4)
        parts = [[asyncio.ensure_future(lane.ask(ASK)) for _ in range(8)] for _ in range(2)]
        while len(fake.asked) < 4:
            await asyncio.sleep(0.01)
        for part in parts:  # an error in one shard ends its rows at once, the other shards' when it got there
            for task in part:
                task.cancel()
            await asyncio.sleep(0.1)
        held.set()
        assert len(fake.asked) == 4
        assert (await lane.ask(ASK)).choices[0].text == "done", "the places are there again"
        await lane.close()


async def test_what_is_asked_about_one_prompt_waits_together():
    gate, order = Gate(1), []

    async def one(name: str, priority: int = 0) -> None:
        await gate.enter(priority, name[0])
        order.append(name)
        gate.leave()

    await gate.enter(0, "z")
    waiting = [asyncio.ensure_future(one(name)) for name in ("a1", "b1", "c1", "a2", "c2", "b2")]
    waiting.append(asyncio.ensure_future(one("d1", priority=-1)))
    waiting.append(asyncio.ensure_future(one("z2")))
    await asyncio.sleep(0)
    gate.leave()
    await asyncio.gather(*waiting)
    assert order == ["d1", "z2", "a1", "a2", "b1", "b2", "c1", "c2"], "z's first is in, and read"


async def test_without_a_key_the_first_to_come_is_the_first_in():
    gate, order = Gate(1), []

    async def one(number: int) -> None:
        await gate.enter(0)
        order.append(number)
        gate.leave()

    await gate.enter(0)
    waiting = [asyncio.ensure_future(one(number)) for number in range(9)]
    await asyncio.sleep(0)
    gate.leave()
    await asyncio.gather(*waiting)
    assert order == list(range(9))
