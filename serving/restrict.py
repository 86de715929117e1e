"""How a server is told what an answer may be, in the words of each dialect, and which tokens are an answer's labels.

vLLM: `structured_outputs` and `logprob_token_ids`. llama.cpp: `grammar` and `json_schema`. OpenAI: `response_format`,
whose schema must be an object, so a choice comes back as `{"answer": …}` and is taken out again. `plain` servers are
told nothing; whoever reads the answer must bear with any text.
"""

import asyncio
from dataclasses import replace
from typing import Any, Literal

import aiohttp
import orjson

from serving.chat import Choice, Reply, Request

Dialect = Literal["llamacpp", "vllm", "openai", "plain"]
WRAPPED = 24
"""Tokens that `{"answer": …}` with a short label takes, at most."""


def restriction(request: Request, dialect: Dialect) -> dict[str, Any]:
    """The fields of a chat completion that let nothing but the request's choices or schema through."""
    if request.schema is not None:
        if dialect == "vllm":
            return {"structured_outputs": {"json": request.schema}}
        if dialect == "llamacpp":
            return {"json_schema": request.schema}
        return _form(request.schema) if dialect == "openai" else {}
    if not request.choices:
        return {}
    if dialect == "vllm":
        return {"structured_outputs": {"choice": list(request.choices)}}
    if dialect == "llamacpp":
        return {"grammar": "root ::= " + " | ".join(orjson.dumps(c).decode() for c in request.choices)}
    if not _wraps(request, dialect):
        return {}
    answer = {"type": "string", "enum": list(request.choices)}
    schema = {
        "type": "object",
        "properties": {"answer": answer},
        "required": ["answer"],
        "additionalProperties": False,
    }
    return _form(schema) | {"max_completion_tokens": max(request.max_tokens, WRAPPED)}


def _form(schema: dict[str, Any]) -> dict[str, Any]:
    form = {"name": "answer", "strict": True, "schema": schema}
    return {"response_format": {"type": "json_schema", "json_schema": form}}


def _wraps(request: Request, dialect: Dialect) -> bool:
    """Whether a choice comes as JSON. With log-probabilities it does not: they are wanted of the first token."""
    return dialect == "openai" and bool(request.choices) and not request.top_logprobs


def unwrapped(reply: Reply, request: Request, dialect: Dialect) -> Reply:
    """The choices out of their JSON. A text that is no such JSON stays as it is, for whoever reads it."""
    if not _wraps(request, dialect):
        return reply
    return replace(reply, choices=tuple(_unwrap(choice) for choice in reply.choices))


def _unwrap(choice: Choice) -> Choice:
    try:
        return replace(choice, text=str(orjson.loads(choice.text)["answer"]))
    except (orjson.JSONDecodeError, KeyError, TypeError):
        return choice


class Labels:
    """Token ids of a request's labels on one vLLM server, found once for each set of labels.

    A label's token depends on what stands before it, so it is looked up after the chat template, and after the answer's
    given beginning where there is one: the id that the conversation has more with the label than without. A label that
    is several tokens there, or shares one with another, has no id; the likeliest tokens are read instead, as
    from servers without /tokenize.
    """

    def __init__(self, base_url: str, model: str) -> None:
        self._url, self._model = base_url.removesuffix("/v1") + "/tokenize", model
        self._found: dict[tuple[tuple[str, ...], str], asyncio.Task[list[int]]] = {}

    async def wanted(self, session: aiohttp.ClientSession, request: Request) -> dict[str, Any]:
        """`logprob_token_ids`, or nothing."""
        key = request.labels, request.prefix
        if key not in self._found:
            self._found[key] = asyncio.ensure_future(self._ids(session, *key))
        try:
            ids = await asyncio.shield(self._found[key])
        except (aiohttp.ClientError, OSError, TimeoutError):
            self._found.pop(key, None)  # a server that is just being replaced; the request itself will tell
            return {}
        return {"logprob_token_ids": ids} if ids else {}

    async def _ids(self, session: aiohttp.ClientSession, labels: tuple[str, ...], prefix: str) -> list[int]:
        owner: dict[int, str] = {}
        known = {begun: await self._tokens(session, begun) for begun in {prefix, ""}}
        for label in labels:
            own: set[int] = set()
            for begun, before in known.items():
                for spelling in (label, " " + label):
                    found = await self._tokens(session, begun + spelling)
                    if before is not None and found is not None and found[:-1] == before:
                        own.add(found[-1])
            if not own or own & owner.keys():
                return []
            owner |= dict.fromkeys(own, label)
        return list(owner)

    async def _tokens(self, session: aiohttp.ClientSession, answer: str) -> list[int] | None:
        """Of a conversation whose answer begins so; None where the server does not say."""
        asked = [{"role": "user", "content": "?"}]
        body: dict[str, Any] = {"model": self._model, "messages": asked, "add_generation_prompt": not answer}
        if answer:
            asked.append({"role": "assistant", "content": answer})
            body["continue_final_message"] = True
        async with session.post(self._url, json=body) as response:
            if response.status != 200:
                return None
            found = await response.json()
        tokens = found.get("tokens") if isinstance(found, dict) else None
        return tokens if isinstance(tokens, list) else None
