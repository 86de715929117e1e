"""A late request gets a copy where there is room; whichever answers first counts, once."""

import asyncio
import threading
import time

from serving.chat import Request
from serving.client import PlainTransport, Transport
from serving.engine import Lane
from serving.late import KNOWN
from tests.fake_model import Body, Fake, Fault, Reply, fake_model


def asking(text: str) -> Request:
    return Request(({"role": "user", "content": text},), temperature=0.0, top_p=1.0, max_tokens=8)


def lane_to(fake: Fake, copies: bool, timeout: float = 20) -> Lane:
    async def connect() -> Transport:
        return PlainTransport(fake.url, "fake", "vllm", None, timeout, 40)

    return Lane("fake", connect, 40, pause=0.001, copies=copies)


def said(body: Body) -> str:
    return body["messages"][0]["content"]


async def test_a_request_that_hangs_is_answered_by_its_copy_and_counted_once():
    copied = threading.Event()
    calls: list[str] = []

    def answer(body: Body) -> Reply:
        if said(body) == "slow":
            calls.append("slow")
            if len(calls) == 1:
                copied.wait(20)  # for as long as it has no copy
                return "too late"
            copied.set()
        return "ok"

    with fake_model(answer) as fake:
        lane = lane_to(fake, copies=True)
        for _ in range(KNOWN):
            await lane.ask(asking("quick"))
        reply = await lane.ask(asking("slow"))
        await asyncio.sleep(0)
        await lane.close()
    assert reply.choices[0].text in ("ok", "too late")
    assert len(calls) == 2
    assert lane.stats.retries["late"] == 1
    assert lane.stats.answered == KNOWN + 1
    assert lane.stats.usage.requests == KNOWN + 1, "an answer is counted once"
    assert lane.gate.running == 0


async def test_where_the_first_fails_its_copy_still_answers():
    calls: list[str] = []
    copied = threading.Event()

    def answer(body: Body) -> Reply:
        if said(body) == "slow":
            calls.append("slow")
            if len(calls) == 1:
                copied.wait(20)
                return Fault(500)
            copied.set()
            time.sleep(0.3)  # the first has failed by then
        return "ok"

    complaints: list[dict[str, object]] = []
    asyncio.get_running_loop().set_exception_handler(lambda _, context: complaints.append(context))
    with fake_model(answer) as fake:
        lane = lane_to(fake, copies=True)
        for _ in range(KNOWN):
            await lane.ask(asking("quick"))
        assert (await lane.ask(asking("slow"))).choices[0].text == "ok"
        await asyncio.sleep(0)
        await lane.close()
    assert len(calls) == 2
    assert not complaints


async def test_no_copy_is_sent_while_others_wait_for_a_place():
    lane_full = threading.Event()

    def answer(body: Body) -> Reply:
        if said(body) != "quick":
            lane_full.wait(2)
        return "ok"

    with fake_model(answer) as fake:
        lane = lane_to(fake, copies=True)
        for _ in range(KNOWN):
            await lane.ask(asking("quick"))
        await asyncio.gather(*(lane.ask(asking(f"slow {i}")) for i in range(60)))
        await lane.close()
    first = [said(body) for body in fake.asked][KNOWN : KNOWN + 40]
    assert len(set(first)) == 40, "every place was taken by a request of its own"
