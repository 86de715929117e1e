"""The only HTTP to a model: a `Request` as each kind of server wants it, and what came back as a `Reply`.

A conversation goes to /chat/completions, or, to be scored, to vLLM's /classify.

Two transports behind one interface: aiohttp for servers that are simply OpenAI-compatible (0.3 ms of CPU per request),
and the OpenAI client for hosted providers (headers, proxies, organisations). Neither retries; `serving.engine` does.
"""

import asyncio
import math
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from email.utils import parsedate_to_datetime
from typing import Any, Protocol

import aiohttp
import orjson

from records.schema import Usage
from serving.chat import Choice, Reply, Request, Token
from serving.errors import RequestFailed, ServingError, WrongModel
from serving.restrict import Dialect, Labels, restriction, unwrapped

LONGEST_WAIT = 3600.0
"""Seconds; an endpoint that asks for more is asked again after these."""


class Retry(Exception):
    """The request may be asked again as it is."""

    def __init__(self, cause: str, after: float | None = None) -> None:
        super().__init__(cause)
        self.cause = cause
        self.after = after
        """Seconds the server asked us to wait."""
        self.shut = False
        """The lane sends nothing to this endpoint for now, so there is nothing to wait for besides."""

    @property
    def overload(self) -> bool:
        """The server said it has too much to do."""
        return self.cause in ("429", "503")


class Transport(Protocol):
    async def ask(self, request: Request) -> Reply: ...

    async def close(self) -> None: ...


def body_of(request: Request, model: str, dialect: Dialect) -> dict[str, Any]:
    """The JSON of a chat completion, every sampling field written out."""
    body: dict[str, Any] = {
        "model": model,
        "messages": [*request.messages, *_begun(request, dialect)],
        "temperature": request.temperature,
        "top_p": request.top_p,
        "n": request.n,
        ("max_completion_tokens" if dialect == "openai" else "max_tokens"): request.max_tokens,
        "stream": False,
    }
    if request.seed is not None:
        body["seed"] = request.seed
    if request.stop:
        body["stop"] = list(request.stop)
    if request.top_logprobs:
        body |= {"logprobs": True, "top_logprobs": request.top_logprobs}
    body |= restriction(request, dialect)
    if dialect == "vllm":
        body |= {"top_k": 0, "min_p": 0.0, "repetition_penalty": 1.0}
        if request.prefix:
            body |= {"continue_final_message": True, "add_generation_prompt": False}
    elif dialect == "llamacpp":
        body |= {"top_k": 0, "min_p": 0.0, "repeat_penalty": 1.0, "cache_prompt": True}
    return body


def scoring_of(request: Request, model: str, dialect: Dialect) -> dict[str, Any]:
    """The JSON that asks vLLM's /classify for raw scores of a conversation.

    Messages, not text: the server applies the template, and its tokenizer adds no second BOS. Without `use_activation`
    off, one output comes back squashed by a sigmoid.

    Raises:
        RequestFailed: this server has no classifier.
    """
    if dialect != "vllm":
        raise RequestFailed("rejected_request", f"a server of dialect {dialect!r} scores nothing; vllm does")
    return {
        "model": model,
        "messages": list(request.messages),
        "add_generation_prompt": False,
        "add_special_tokens": False,
        "use_activation": False,
    }


def read_scores(data: dict[str, Any]) -> Reply:
    """What /classify answered.

    Raises:
        Retry: not a whole answer.
    """
    try:
        (row,) = data["data"]
        # what is no number is none to the judge too; asking again would bring the same
        scores = tuple(float(x) if isinstance(x, int | float) else math.nan for x in row["probs"])
        tokens = (data.get("usage") or {}).get("prompt_tokens") or 0
    except (KeyError, TypeError, ValueError) as error:
        raise Retry("malformed") from error
    return Reply((), Usage(prompt_tokens=tokens, requests=1), scores=scores)


def _begun(request: Request, dialect: Dialect) -> list[dict[str, str]]:
    """The answer's given beginning, as an assistant turn that is left open.

    Raises:
        RequestFailed: this server cannot go on from a given beginning.
    """
    if not request.prefix:
        return []
    if dialect in ("openai", "plain"):
        raise RequestFailed(
            "rejected_request", f"a server of the plain protocol cannot go on from {request.prefix!r}"
        )
    return [{"role": "assistant", "content": request.prefix}]


def read_reply(data: dict[str, Any], wanted: int, prefix: str = "") -> Reply:
    """What the server answered: `wanted` choices, or fewer where it does not honour `n`; the caller asks for the rest.

    `prefix`: the given beginning; some servers repeat it, and it is taken off.

    Raises:
        Retry: not a whole answer: fields missing, no choice or too many, or a request the server aborted.
    """
    try:
        usage = data.get("usage") or {}
        choices = tuple(_choice(choice, prefix) for choice in data["choices"])
        reply = Reply(
            choices=choices,
            usage=Usage(
                prompt_tokens=usage.get("prompt_tokens") or 0,
                cached_tokens=(usage.get("prompt_tokens_details") or {}).get("cached_tokens") or 0,
                completion_tokens=usage.get("completion_tokens") or 0,
                requests=1,
            ),
            server=data.get("system_fingerprint") or "",
        )
    except (KeyError, TypeError, AttributeError) as error:
        raise Retry("malformed") from error
    if not 1 <= len(choices) <= wanted:
        raise Retry("malformed")
    if any(choice.finish_reason in ("abort", "error") for choice in choices):
        raise Retry("abort")
    return reply


def _choice(choice: dict[str, Any], prefix: str) -> Choice:
    message = choice["message"]
    tokens = (choice.get("logprobs") or {}).get("content") or ()
    return Choice(
        text=(message.get("content") or "").removeprefix(prefix),
        finish_reason=choice.get("finish_reason") or "stop",
        refusal=message.get("refusal"),
        tokens=tuple(Token(t["token"], _alternatives(t.get("top_logprobs") or ())) for t in tokens),
    )


def _alternatives(rows: Sequence[dict[str, Any]]) -> dict[str, float]:
    """Text -> log-probability. Tokens that read alike, as with and without a mark for a space, are added up; the same
    one listed twice counts once, and one without a number not at all."""
    found: dict[str, set[float]] = {}
    for row in rows:
        if isinstance(row["logprob"], int | float):
            found.setdefault(row["token"], set()).add(row["logprob"])
    return {token: _added(logprobs) for token, logprobs in found.items()}


def _added(logprobs: Collection[float]) -> float:
    most = max(logprobs)
    return most + math.log(sum(math.exp(one - most) for one in logprobs)) if len(logprobs) > 1 else most


def wait_of(retry_after: str | None, date: str | None = None) -> float | None:
    """Seconds that a Retry-After header asks for: a number, or a date; None where it says neither.

    `date`: the server's Date header, by whose clock a date is read.
    """
    if not retry_after:
        return None
    try:
        seconds = float(retry_after)
    except ValueError:
        try:
            until = parsedate_to_datetime(retry_after)
            now = parsedate_to_datetime(date) if date else datetime.now(UTC)
            seconds = (until - now).total_seconds()
        except (ValueError, TypeError):  # neither; TypeError: one of the two has no time zone
            return None
    return min(max(seconds, 0.0), LONGEST_WAIT) if math.isfinite(seconds) else None


def refusal_of(
    status: int, body: str, headers: Mapping[str, str], address: str, key: str | None = None
) -> Exception:
    """The error a status stands for; see `Retry`, `RequestFailed`, `ServingError`.

    `key`: is left out where the server repeats it; what it said is kept with the record.
    """
    said = " ".join((body.replace(key, "(the key)") if key else body).split())[:300]
    if status == 429 and "insufficient_quota" in body:
        return ServingError(f"{address}: the account's quota is used up (429): {said}")
    if status in (408, 409, 425, 429) or status >= 500:
        return Retry(str(status), wait_of(headers.get("retry-after"), headers.get("date")))
    if status in (401, 403):
        return WrongModel(f"{address} refused the key ({status}): {said}")
    if status == 404:
        return WrongModel(f"{address} has no such route or model (404): {said}")
    too_long = any(
        sign in said.lower()
        for sign in ("context length", "context size", "exceed_context", "context window")
    )
    return RequestFailed("too_long" if too_long else "rejected_request", f"{status}: {said}")


@dataclass
class PlainTransport:
    """aiohttp and orjson, for vLLM, llama.cpp and every server that speaks the plain protocol."""

    base_url: str
    model: str
    dialect: Dialect
    key: str | None
    timeout: float
    connections: int
    _session: aiohttp.ClientSession | None = None

    def __post_init__(self) -> None:
        self._labels = Labels(self.base_url, self.model)

    async def ask(self, request: Request) -> Reply:
        if self._session is None:
            # Servers drop idle connections after their own keep-alive (vLLM: 5 s by default); ours must be shorter.
            self._session = aiohttp.ClientSession(
                connector=aiohttp.TCPConnector(limit=self.connections, keepalive_timeout=4),
                timeout=aiohttp.ClientTimeout(total=self.timeout, sock_connect=30),
                headers={"authorization": f"Bearer {self.key}"} if self.key else None,
            )
        body = (scoring_of if request.score else body_of)(request, self.model, self.dialect)
        if request.labels and self.dialect == "vllm":
            body |= await self._labels.wanted(self._session, request)
        data = orjson.dumps(body)
        # vLLM has /classify beside /v1, not under it
        route = "/chat/completions" if not request.score else "/classify"
        root = self.base_url.removesuffix("/v1") if request.score else self.base_url
        try:
            async with self._session.post(
                root + route, data=data, headers={"content-type": "application/json"}
            ) as response:
                text = await response.read()
                if response.status != 200:
                    raise refusal_of(
                        response.status,
                        text.decode(errors="replace"),
                        response.headers,
                        self.base_url,
                        self.key,
                    )
        except TimeoutError as error:
            raise Retry("timeout") from error
        except aiohttp.ClientConnectorError as error:
            raise Retry("connect") from error
        except (aiohttp.ClientError, ConnectionError) as error:
            raise Retry("connection") from error
        except RuntimeError as error:
            if self._session is not None and not self._session.closed:
                raise
            raise Retry("connection") from error  # closed under us: the server behind it is being replaced
        try:
            found = orjson.loads(text)
            if request.score:
                return read_scores(found)
            return unwrapped(read_reply(found, request.n, request.prefix), request, self.dialect)
        except orjson.JSONDecodeError as error:
            raise Retry("malformed") from error

    async def close(self) -> None:
        if self._session is not None:
            await self._session.close()
            self._session = None
            await asyncio.sleep(0)


def _lost(error: BaseException | None) -> Retry:
    """Why there was no answer, from what lies under the OpenAI client: it calls a refused connection a timeout too."""
    while error is not None:
        if isinstance(error, TimeoutError):
            return Retry("timeout")
        if isinstance(error, aiohttp.ClientConnectorError):
            return Retry("connect")
        if isinstance(error, aiohttp.ClientError | ConnectionError):
            return Retry("connection")
        error = error.__cause__
    return Retry("connection")


class OpenAITransport:
    """The OpenAI client with its own retries off, for hosted providers."""

    def __init__(self, base_url: str, model: str, key: str | None, timeout: float) -> None:
        import openai

        self._openai, self.model, self.base_url = openai, model, base_url
        self._client = openai.AsyncOpenAI(
            base_url=base_url,
            api_key=key or "none",
            timeout=timeout,
            max_retries=0,
            http_client=openai.DefaultAioHttpClient(
                timeout=timeout
            ),  # its own grows slower with every connection
        )

    async def ask(self, request: Request) -> Reply:
        if request.score:
            scoring_of(request, self.model, "openai")
        try:
            # The untyped route: the typed one spends a millisecond on every request checking what is built here.
            data = await self._client.post(
                "/chat/completions", cast_to=dict[str, Any], body=body_of(request, self.model, "openai")
            )
        except self._openai.APIStatusError as error:
            answer = error.response
            # not `from error`: its text may have the key
            raise refusal_of(
                answer.status_code, answer.text, answer.headers, self.base_url, self._client.api_key
            ) from None
        except self._openai.APIConnectionError as error:
            raise _lost(error) from error
        except (ValueError, self._openai.APIError) as error:
            raise Retry("malformed") from error
        return unwrapped(read_reply(data, request.n), request, "openai")

    async def close(self) -> None:
        await self._client.close()
