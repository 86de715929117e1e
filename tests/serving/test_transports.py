"""Both transports say the same of the same failure, over real HTTP."""

import math
import time
from datetime import UTC, datetime, timedelta
from email.utils import format_datetime

import pytest

from serving.chat import Request
from serving.client import OpenAITransport, PlainTransport, Retry, Transport
from serving.errors import RequestFailed, ServingError, WrongModel
from tests.fake_model import Answer, Fault, fake_model

ASK = Request(({"role": "user", "content": "hello"},), temperature=0.5, top_p=0.9, max_tokens=8, seed=3)

both = pytest.mark.parametrize("client", ["plain", "openai"])


def transport(client: str, url: str, timeout: float = 20) -> Transport:
    if client == "openai":
        return OpenAITransport(url, "m", "key", timeout)
    return PlainTransport(url, "m", "openai", "key", timeout, 8)


async def failure(client: str, fault: Fault) -> Exception:
    with fake_model(lambda _: fault) as fake:
        way = transport(client, fake.url)
        with pytest.raises((Retry, RequestFailed, ServingError)) as why:
            await way.ask(ASK)
        await way.close()
    assert len(fake.asked) == 1, "neither asks again by itself"
    return why.value


@both
@pytest.mark.parametrize(
    ("fault", "cause", "after"),
    [
        (Fault(429, headers={"retry-after": "7"}), "429", 7.0),
        (Fault(429), "429", None),
        (Fault(503, headers={"retry-after": "0.5"}), "503", 0.5),
        (Fault(500), "500", None),
        (Fault(502, "<html>bad gateway</html>"), "502", None),
        (Fault(408), "408", None),
        (Fault(close=True), "connection", None),
        (Fault(200, '{"choi'), "malformed", None),
        (Fault(200, ""), "malformed", None),
        (Fault(200, "[]"), "malformed", None),
        (Fault(200, '{"choices": []}'), "malformed", None),
    ],
    ids=str,
)
async def test_what_passes_is_a_retry(client: str, fault: Fault, cause: str, after: float | None):
    why = await failure(client, fault)
    assert isinstance(why, Retry)
    assert (why.cause, why.after) == (cause, after)


@both
async def test_a_date_to_come_back_at_is_read_by_the_servers_clock(client: str):
    later = format_datetime(datetime.now(UTC) + timedelta(seconds=40), usegmt=True)
    why = await failure(client, Fault(429, headers={"retry-after": later}))
    assert isinstance(why, Retry) and why.after is not None
    assert math.isclose(why.after, 40, abs_tol=3)


@both
@pytest.mark.parametrize(
    ("body", "reason"),
    [
        ('{"error": {"message": "unsupported role"}}', "rejected_request"),
        ('{"error": {"message": "filtered", "code": "content_filter"}}', "rejected_request"),
        (
            '{"error": {"code": "context_length_exceeded", "message": "the maximum context length is 9"}}',
            "too_long",
        ),
    ],
)
async def test_what_will_never_be_answered_says_why(client: str, body: str, reason: str):
    why = await failure(client, Fault(400, body))
    assert isinstance(why, RequestFailed)
    assert why.reason == reason


@both
@pytest.mark.parametrize(
    ("fault", "kind"),
    [
        (Fault(401), WrongModel),
        (Fault(403), WrongModel),
        (Fault(404), WrongModel),
        (Fault(429, '{"error": {"code": "insufficient_quota"}}'), ServingError),
    ],
    ids=str,
)
async def test_what_concerns_every_request_stops_the_run(client: str, fault: Fault, kind: type[Exception]):
    assert isinstance(await failure(client, fault), kind)


@both
async def test_an_answer_that_is_too_late_is_a_timeout(client: str):
    def late(_: object) -> str:
        time.sleep(1.0)
        return "too late"

    with fake_model(late) as fake:
        way = transport(client, fake.url, timeout=0.2)
        with pytest.raises(Retry, match="timeout"):
            await way.ask(ASK)
        await way.close()


@both
async def test_a_server_that_is_not_there_is_told_from_one_that_hangs_up(client: str):
    way = transport(client, "http://127.0.0.1:9/v1")
    with pytest.raises(Retry) as why:
        await way.ask(ASK)
    await way.close()
    assert why.value.cause == "connect"


@both
async def test_an_answer_a_filter_withheld_is_an_answer(client: str):
    with fake_model(lambda _: Answer("", "content_filter", refusal="no")) as fake:
        way = transport(client, fake.url)
        (choice,) = (await way.ask(ASK)).choices
        await way.close()
    assert (choice.text, choice.finish_reason, choice.refusal) == ("", "content_filter", "no")
