"""Addresses that already exist: whether they answer, and the lane to them."""

import asyncio
import os
from collections.abc import Awaitable, Callable, Mapping

import aiohttp

from serving.client import OpenAITransport, PlainTransport, Transport
from serving.engine import Lane
from serving.errors import WrongModel
from serving.limits import Queue
from serving.metrics import LONGEST, queue_at
from serving.probe import dialect_of, unreachable
from serving.replicas import Reach
from serving.settings import Endpoint, Model


async def check_endpoints(models: Mapping[str, Model]) -> None:
    """Before the first request to any model: each can be reached, so that no other is paid for nothing."""
    async with aiohttp.ClientSession(timeout=aiohttp.ClientTimeout(total=20)) as session:
        for name, model in models.items():
            if not isinstance(model, Endpoint):
                continue
            for pause in (1, 3, None):
                missing = [await unreachable(session, address) for address in model.addresses]
                if None in missing:  # of several one will do; the others are missed when they are asked
                    break
                if pause is None:
                    raise WrongModel(
                        f"models.{name}.base_url: cannot reach {' nor '.join(model.addresses)}: {missing[0]}"
                    ) from missing[0]
                await asyncio.sleep(pause)


def key_of(name: str, endpoint: Endpoint) -> str | None:
    """The endpoint's key.

    Raises:
        WrongModel: its environment variable is not set.
    """
    if endpoint.key_env is None:
        return None
    if not (key := os.environ.get(endpoint.key_env)):
        raise WrongModel(f"models.{name}.key_env: the environment variable {endpoint.key_env} is not set")
    return key


def endpoint_lane(name: str, endpoint: Endpoint, checked: Callable[[], Awaitable[None]]) -> Lane:
    """The way to an endpoint. `checked` is waited for before the first request.

    Raises:
        WrongModel: the key's environment variable is not set.
    """
    key = key_of(name, endpoint)
    steered = endpoint.client == "plain" and endpoint.dialect in ("vllm", "auto")

    def reach(address: str) -> Reach:
        async def connect() -> Transport:
            nonlocal steered
            await checked()
            if endpoint.client == "openai":
                return OpenAITransport(address, endpoint.model, key, endpoint.timeout)
            dialect, limit = await dialect_of(endpoint, key), endpoint.max_in_flight
            if steered and dialect != "vllm":  # it has no queue to steer by
                steered = False
                lane.feel_its_way()
            return PlainTransport(address, endpoint.model, dialect, key, endpoint.timeout, limit)

        async def look() -> Queue | None:
            return await queue_at(address) if steered else None

        async def answers() -> bool:
            async with aiohttp.ClientSession(timeout=aiohttp.ClientTimeout(total=LONGEST)) as session:
                return await unreachable(session, address) is None

        return Reach(address, connect, look if steered else None, answers)

    lane = Lane(
        name,
        [reach(address) for address in endpoint.addresses],
        endpoint.max_in_flight,
        requests_per_minute=endpoint.requests_per_minute,
        tokens_per_minute=endpoint.tokens_per_minute,
        copies=endpoint.dialect == "vllm" and not (endpoint.price_in or endpoint.price_out),
    )
    return lane
