"""How one model is asked for a verdict, and what the numbers that come back mean.

A judge asks for a label and its probabilities. Where an endpoint gives none, several answers are drawn and counted;
where it cannot be told what an answer may be, it is not told, and whoever reads the answer must bear with any text.
"""

import asyncio
from collections.abc import Mapping
from dataclasses import replace
from typing import Any, Literal

from records.base import Strict
from records.schema import Usage
from serving.chat import Chat, Reply, Request
from serving.restrict import Dialect
from serving.settings import Endpoint, LlamaCpp, Model

DRAWN = 8
"""Answers drawn for one verdict where there are no log-probabilities."""


class Way(Strict):
    """How one model is asked for verdicts."""

    dialect: Dialect
    restricts: bool
    """It lets nothing but a choice or a schema through, where asked to."""
    logprobs: Literal["labels", "likeliest", "none"]
    """labels: of exactly the tokens that are asked about. likeliest: of the likeliest ones."""
    several: bool = True
    """It gives several answers to one request."""
    found: Literal["kind", "recipe", "probe"]
    """Who says so: the model's kind, the recipe's `dialect`, or the endpoint when it was tried."""


def declared(model: Model) -> Way | None:
    """The way of a model whose kind or recipe says it; None where it must be tried."""
    if isinstance(model, LlamaCpp):
        return Way(dialect="llamacpp", restricts=True, logprobs="likeliest", several=False, found="kind")
    if not isinstance(model, Endpoint):
        return Way(dialect="vllm", restricts=True, logprobs="labels", found="kind")
    if model.dialect == "auto":
        return None
    dialect = "openai" if model.client == "openai" else model.dialect
    return Way(
        dialect=dialect,
        restricts=dialect != "plain",
        logprobs="labels" if dialect == "vllm" else "likeliest",
        several=dialect != "llamacpp",
        found="recipe",
    )


def needs(request: Request) -> bool:
    """Whether a request wants something that not every endpoint has."""
    return bool(request.top_logprobs or request.choices or request.schema or request.n > 1)


def as_it_can(request: Request, way: Way) -> Request:
    """The request without what the endpoint lacks; several answers for a label's missing probabilities."""
    if request.top_logprobs and way.logprobs == "none":
        request = replace(request, top_logprobs=0)
        if request.labels:
            labels = request.labels
            request = replace(request, choices=labels, temperature=1.0, top_p=1.0, max_tokens=4, n=DRAWN)
    if way.logprobs != "labels":
        request = replace(request, labels=())
    return request if way.restricts else replace(request, choices=(), schema=None)


def reading(request: Request, way: Way) -> str:
    """What the numbers of a verdict are. Two of them do not belong into one dataset."""
    asked = as_it_can(request, way)
    restricted = bool(asked.choices or asked.schema)
    if asked.top_logprobs:
        # vLLM and OpenAI give probabilities among what is allowed; llama.cpp those before anything is forbidden
        hidden = asked.schema is not None and way.dialect == "openai"
        hidden |= restricted and way.dialect == "vllm"
        return "probabilities among what is allowed" if hidden else "probabilities"
    drawn = f"shares of {asked.n} answers" if asked.n > 1 else "the answer's text"
    return drawn + (", restricted" if restricted else "")


def through(chat: Chat, way: Way) -> Chat:
    """`chat`, asked as the endpoint can be asked. Of several answers, those that did not come are asked for singly."""

    async def ask(request: Request) -> Reply:
        request = as_it_can(request, way)
        if request.n == 1:
            return await chat(request)
        replies = [await chat(request)] if way.several else []
        came = sum(len(reply.choices) for reply in replies)
        seeds = [None if request.seed is None else request.seed + i for i in range(came, request.n)]
        replies += await asyncio.gather(*(chat(replace(request, n=1, seed=seed)) for seed in seeds))
        usage = sum((reply.usage for reply in replies), Usage())
        return Reply(tuple(c for reply in replies for c in reply.choices), usage, replies[0].server)

    return ask


def in_words(way: Mapping[str, Any]) -> str:
    """How a model was asked, from the fields of its `Way`."""
    logprobs = {
        "labels": "probabilities of the labels' tokens",
        "likeliest": "probabilities of the likeliest tokens",
    }
    says = {"kind": "its kind says so", "recipe": "the recipe says so", "probe": "it was tried"}
    read = logprobs.get(way["logprobs"], "no probabilities: answers are drawn and counted")
    held = "answers are restricted" if way["restricts"] else "answers cannot be restricted"
    return f"{way['dialect']}; {read}; {held} where asked for ({says[way['found']]})"
