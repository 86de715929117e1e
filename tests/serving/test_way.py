"""Every endpoint is asked for verdicts as it can be asked; what it cannot give is not read as if it did."""

import json
import math
from typing import Any

import pytest

from judges import Pairwise, Rating
from serving.chat import Chat
from serving.client import PlainTransport
from serving.errors import WrongModel
from serving.probe import dialect_of, probe
from serving.restrict import Labels
from serving.settings import Endpoint
from serving.way import Way, declared, reading, through
from tests.fake_model import Answer, Body, Fake, Fault, Reply, fake_model
from tests.judges.examples import completion, prompt

SHARES = {"4": 0.5, "2": 0.25, "The": 0.25}
LOGS = {token: math.log(share) for token, share in SHARES.items()}


def text_of(body: Body) -> str:
    return body["messages"][-1]["content"]


def choices_of(body: Body) -> list[str]:
    """What the request allows, in whatever words; also as the schema that wraps it."""
    if found := (body.get("structured_outputs") or {}).get("choice"):
        return found
    form = (body.get("response_format") or {}).get("json_schema") or {}
    return form.get("schema", {}).get("properties", {}).get("answer", {}).get("enum", [])


def hosted(body: Body) -> Reply:
    """OpenAI: schemas and the likeliest tokens."""
    if "structured_outputs" in body or "max_tokens" in body:
        return Fault(400, "unknown field")
    if allowed := choices_of(body):
        return json.dumps({"answer": allowed[0]})
    return Answer("4", logprobs=LOGS) if body.get("logprobs") else "Blue"


def vllm(body: Body) -> Reply:
    if allowed := (body.get("structured_outputs") or {}).get("choice"):
        return allowed[0]
    if ids := body.get("logprob_token_ids"):
        return Answer("The", logprobs={chr(i): LOGS.get(chr(i), -20.0) for i in ids})
    return Answer("The", logprobs=LOGS) if body.get("logprobs") else "Blue"


def tokenize(body: Body) -> list[int]:
    """A token a letter, and a blank before a letter is part of it, as in most vocabularies."""
    turns = [message["content"] for message in body["messages"]]
    answer = turns[1] if len(turns) > 1 else ""
    return [1, 2, 3, *(ord(letter) for letter in answer.strip())]


def silent(body: Body) -> Reply:
    """Takes every field, and heeds none; no log-probabilities."""
    return ["4", "4", "2", "four"][: body["n"]] * (1 if body["n"] < 4 else body["n"] // 4)


def strict(body: Body) -> Reply:
    """Refuses what it does not know."""
    return Fault(400, "unknown field") if {"response_format", "logprobs"} & body.keys() else "4"


def endpoint(fake: Fake, **more: Any) -> Endpoint:
    return Endpoint(model="fake", base_url=fake.url, **more)


def chat_to(fake: Fake, dialect: Any) -> Chat:
    transport = PlainTransport(fake.url, "fake", dialect, None, 20, 4)
    return transport.ask


@pytest.mark.parametrize(
    ("answer", "owner", "found"),
    [
        (hosted, "openai", ("openai", True, "likeliest", True)),
        (vllm, "vllm", ("vllm", True, "labels", True)),
        (silent, "someone", ("openai", False, "none", True)),
        (strict, "someone", ("openai", False, "none", False)),
        (lambda _: Answer("Blue", logprobs=LOGS), "llamacpp", ("llamacpp", False, "likeliest", False)),
    ],
)
async def test_two_requests_tell_what_an_endpoint_can(answer: Any, owner: str, found: tuple[Any, ...]):
    with fake_model(answer, owner, tokenize if owner == "vllm" else None) as fake:
        way = await probe(endpoint(fake), None)
        assert len(fake.asked) == 2
    assert (way.dialect, way.restricts, way.logprobs, way.several) == found
    assert way.found == "probe"


async def test_a_vllm_without_the_field_or_the_route_is_read_by_its_likeliest_tokens():
    def old(body: Body) -> Reply:
        return vllm({key: value for key, value in body.items() if key != "logprob_token_ids"})

    for tokens in (tokenize, None):
        with fake_model(old, "vllm", tokens) as fake:
            assert (await probe(endpoint(fake), None)).logprobs == "likeliest"


async def test_a_refused_key_stops_and_is_not_a_way():
    with (
        fake_model(lambda _: Fault(401, "no")) as fake,
        pytest.raises(WrongModel, match="refused the key"),
    ):
        await probe(endpoint(fake), None)


async def test_a_recipe_that_names_the_dialect_is_taken_at_its_word():
    with fake_model(lambda _: "x", "vllm") as fake:
        assert await dialect_of(endpoint(fake, dialect="plain"), None) == "plain"
        assert await dialect_of(endpoint(fake), None) == "vllm"
    assert declared(endpoint(fake)) is None
    plain = declared(endpoint(fake, dialect="plain"))
    assert plain and (plain.restricts, plain.found) == (False, "recipe")


def way(**fields: Any) -> Way:
    known: dict[str, Any] = {"dialect": "openai", "restricts": True, "logprobs": "none", "found": "probe"}
    return Way.model_validate(known | fields)


async def judged(settings: Rating | Pairwise, fake: Fake, how: Way) -> Any:
    two = [completion("a"), completion("b")]
    return await settings.build(through(chat_to(fake, how.dialect), how))(prompt(), two, "quality")


async def test_labels_ids_are_asked_for_and_what_lies_off_the_scale_is_seen():
    with fake_model(vllm, "vllm", tokenize) as fake:
        verdict, _ = await judged(
            Rating(model="m"), fake, way(dialect="vllm", logprobs="labels", restricts=True)
        )
    assert fake.asked[0]["logprob_token_ids"] == [ord(label) for label in "12345"]
    assert verdict.score == pytest.approx((4 * 0.5 + 2 * 0.25) / 0.75, abs=1e-4)
    assert verdict.off_scale == pytest.approx(0.25, abs=1e-4)


async def test_labels_that_share_a_token_or_are_several_have_no_ids():
    for tokens in (
        lambda body: [1, 2, 9] if len(body["messages"]) > 1 else [1, 2],
        lambda body: [1, 2, 9, ord(body["messages"][1]["content"][-1])] if len(body["messages"]) > 1 else [1],
    ):
        with fake_model(vllm, "vllm", tokens) as fake:
            await judged(Rating(model="m"), fake, way(dialect="vllm", logprobs="labels"))
            assert "logprob_token_ids" not in fake.asked[0]


async def test_without_log_probabilities_answers_are_drawn_and_counted():
    with fake_model(silent) as fake:
        verdict, _ = await judged(Rating(model="m"), fake, way(restricts=False))
        assert (fake.asked[0]["n"], fake.asked[0]["temperature"]) == (8, 1.0)
        assert not {"logprobs", "response_format"} & fake.asked[0].keys()
    assert verdict.score == pytest.approx((4 + 4 + 2) / 3), "`four` is no label"
    assert verdict.off_scale == pytest.approx(0.25)
    with fake_model(silent) as fake:
        verdict, _ = await judged(Pairwise(model="m"), fake, way(restricts=False))
    assert (verdict.status, verdict.score) == ("off_scale", None), "no A and no B was said"


async def test_an_endpoint_that_gives_one_answer_at_a_time_is_asked_several_times():
    with fake_model(strict) as fake:
        verdict, _ = await judged(Rating(model="m"), fake, way(restricts=False, several=False))
        assert [body["n"] for body in fake.asked] == [1] * 16
    assert verdict.score == 4 and verdict.usage.requests == 8


async def test_a_choice_by_schema_comes_out_of_its_json():
    with fake_model(hosted) as fake:
        verdict, _ = await judged(Rating(model="m", samples=4), fake, way())
        assert choices_of(fake.asked[0]) == list("12345")
        assert fake.asked[0]["max_completion_tokens"] >= 16
    assert verdict.score == 1


def test_a_reading_says_what_the_numbers_are():
    (rating,) = Rating(model="m").build(None).requests(prompt(), [completion("a")], "quality")
    pair, _ = (
        Pairwise(model="m").build(None).requests(prompt(), [completion("a"), completion("b")], "quality")
    )
    assert reading(rating, way(dialect="vllm", logprobs="labels")) == "probabilities"
    assert reading(rating, way(dialect="llamacpp", logprobs="likeliest")) == "probabilities"
    assert reading(pair, way(dialect="vllm", logprobs="labels")) == "probabilities among what is allowed"
    assert reading(pair, way(dialect="llamacpp", logprobs="likeliest")) == "probabilities"
    assert reading(rating, way()) == "shares of 8 answers, restricted"
    assert reading(rating, way(restricts=False)) == "shares of 8 answers"


async def test_a_tokenizer_that_cannot_be_reached_is_tried_again():
    import aiohttp

    from serving.chat import Request

    labels = Labels("http://127.0.0.1:9/v1", "m")
    asked = Request(({"role": "user", "content": "?"},), 0, 1, 1, labels=("1", "2"))
    async with aiohttp.ClientSession() as session:
        assert await labels.wanted(session, asked) == {}
        with fake_model(vllm, "vllm", tokenize) as fake:
            labels._url = fake.url.removesuffix("/v1") + "/tokenize"
            assert await labels.wanted(session, asked) == {"logprob_token_ids": [ord("1"), ord("2")]}
