"""How an endpoint can be asked for a verdict, found out by asking: the server's kind, and two tiny requests.

The first asks for a choice in the words of the server's dialect, the second for log-probabilities. What is refused, or
taken and ignored, is not used: a judge then reads plain text, or draws several answers and counts.
"""

import asyncio
from typing import Any

import aiohttp
import orjson

from serving.chat import Choice, Request
from serving.client import Retry, body_of, read_reply, refusal_of
from serving.errors import RequestFailed, WrongModel
from serving.restrict import Dialect, Labels, unwrapped
from serving.settings import Endpoint
from serving.way import Way

NUMBERS = ("1", "2", "3", "4", "5")
SKY = ({"role": "user", "content": "Which colour is the sky on a clear day? Reply with one word."},)
DIGIT = ({"role": "user", "content": "Reply with one digit from 1 to 5."},)
TRIES = 4


async def dialect_of(endpoint: Endpoint, key: str | None) -> Dialect:
    """The dialect a server is asked in: the recipe's, or what its list of models says of itself; else OpenAI's."""
    if endpoint.client == "openai":
        return "openai"
    if endpoint.dialect != "auto":
        return endpoint.dialect
    for address in endpoint.addresses:
        try:
            async with _session(key) as session, session.get(f"{address}/models") as response:
                rows = (await response.json(content_type=None)).get("data") or []
                owners = {row.get("owned_by") for row in rows}
        except (aiohttp.ClientError, OSError, TimeoutError, ValueError, AttributeError):
            continue
        return "vllm" if "vllm" in owners else "llamacpp" if "llamacpp" in owners else "openai"
    return "openai"


async def probe(endpoint: Endpoint, key: str | None) -> Way:
    """Ask the endpoint what it can, in two requests; where it has several addresses, the first that answers.

    Raises:
        WrongModel: the key or the model is refused, or there is no answer at all.
    """
    dialect = await dialect_of(endpoint, key)
    async with _session(key) as session:
        address = await _alive(session, endpoint)
        choice = Request(SKY, 1.0, 1.0, 8, n=2, choices=("7", "9"))
        sky = await _ask(session, endpoint, address, choice, dialect)
        restricts = bool(sky) and all(one.text.strip() in choice.choices for one in sky)
        # llama.cpp gives as many at once as it has slots, which is not known here
        several = dialect != "llamacpp" and sky is not None and len(sky) == choice.n
        digit = Request(DIGIT, 0.0, 1.0, 1, labels=NUMBERS, top_logprobs=20)
        fields = {}
        if dialect == "vllm":
            fields = await Labels(address, endpoint.model).wanted(session, digit)
        said = await _ask(session, endpoint, address, digit, dialect, fields)
    given = said[0].tokens[0].alternatives if said and said[0].tokens else {}
    logprobs = "none" if not given else "likeliest"
    ids = fields.get("logprob_token_ids", ())
    if {token.strip() for token in given} >= set(NUMBERS) and len(given) <= len(ids) + 1:
        logprobs = "labels"  # these, and perhaps the one that was said; not the twenty likeliest
    return Way(dialect=dialect, restricts=restricts, logprobs=logprobs, several=several, found="probe")


def _session(key: str | None) -> aiohttp.ClientSession:
    headers = {"authorization": f"Bearer {key}"} if key else None
    return aiohttp.ClientSession(timeout=aiohttp.ClientTimeout(total=120), headers=headers)


async def _alive(session: aiohttp.ClientSession, endpoint: Endpoint) -> str:
    for address in endpoint.addresses[:-1]:
        if await unreachable(session, address) is None:
            return address
    return endpoint.addresses[-1]


async def unreachable(session: aiohttp.ClientSession, address: str) -> Exception | None:
    """What keeps a server from answering; None: it answers."""
    try:
        async with session.get(f"{address}/models"):
            return None
    except (aiohttp.ClientError, OSError, TimeoutError) as error:
        return error


async def _ask(
    session: aiohttp.ClientSession,
    endpoint: Endpoint,
    address: str,
    request: Request,
    dialect: Dialect,
    more: dict[str, Any] | None = None,
) -> tuple[Choice, ...] | None:
    """The answers, however many came; None where the server will not have such a request."""
    body = orjson.dumps(body_of(request, endpoint.model, dialect) | (more or {}))
    url, headers = f"{address}/chat/completions", {"content-type": "application/json"}
    for attempt in range(TRIES):
        try:
            async with session.post(url, data=body, headers=headers) as response:
                text = await response.read()
            if response.status != 200:
                said = text.decode(errors="replace")
                key = session.headers.get("authorization", "").removeprefix("Bearer ") or None
                raise refusal_of(response.status, said, response.headers, address, key)
            data = orjson.loads(text)
            return unwrapped(read_reply(data, len(data["choices"])), request, dialect).choices
        except RequestFailed:
            return None
        except (Retry, aiohttp.ClientError, OSError, TimeoutError, ValueError, KeyError, TypeError) as error:
            if attempt == TRIES - 1:
                if isinstance(error, Retry) and error.cause == "500":
                    return None  # some servers answer so to a field they do not know
                raise WrongModel(f"{address} does not answer: {error}") from error
            await asyncio.sleep(2.0**attempt / 2)
    return None
