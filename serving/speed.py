"""How fast a server is that is up, from a few requests: one long prompt, one answer alone, and some at a time.

    a step gives each of n running answers a token and takes a + b * n seconds; a prompt token takes 1 / P

P is from the long prompt, a and b from the answer alone and those at a time, and D, tokens per second of a server kept
busy with N answers, is N / (a + b * N): beyond what was asked at a time it is what the law says.
"""

import asyncio
import secrets
import time
from dataclasses import dataclass

from records.schema import Usage
from serving.chat import Request
from serving.engine import Lane
from serving.errors import RequestFailed
from serving.settings import Throughput

AT_A_TIME, FEW = 64, 4
"""Answers at a time, and at an endpoint with a limit per minute."""
TOKENS = 48
"""Of each answer."""
LONG = 6_000
"""Letters of the long prompt."""
WORDS = "river stone paper winter garden letter window market engine silver "
COUNT = "Count from one to one thousand in words, separated by commas. Write nothing else."


@dataclass(frozen=True)
class Measured:
    """What was measured at one model, and what that took."""

    throughput: Throughput
    at_a_time: int
    """Answers at a time that D is of."""
    usage: Usage
    spend: float
    """In the currency of the endpoint's prices."""
    seconds: float

    def text(self) -> str:
        cost = f", {self.spend:.4g} spent" if self.spend else ""
        return (
            f"{self.throughput.prefill:,.0f} prompt tokens/s, {self.throughput.decode:,.0f} answer tokens/s with "
            f"{self.at_a_time} at a time; {self.usage.requests} requests, "
            f"{self.usage.prompt_tokens + self.usage.completion_tokens:,} tokens, {self.seconds:.0f} s{cost}"
        )


async def measure(lane: Lane, kept_busy: int, at_a_time: int = AT_A_TIME, servers: int = 1) -> Measured:
    """`kept_busy`: N, answers at a time that D is wanted for. `at_a_time`: asked at most. `servers`: behind the lane,
    taken to be alike.

    Raises:
        RequestFailed: a request got no answer, or one too short to be timed.
        ServingError: the model cannot be asked.
    """
    began = time.perf_counter()

    async def ask(text: str, tokens: int) -> tuple[float, Usage]:
        # no server has seen it before, so none of it is in a cache
        message = {"role": "user", "content": f"{secrets.token_hex(8)}. {text}"}
        sent = time.perf_counter()
        reply = await lane.ask(Request((message,), 1.0, 1.0, tokens))
        return time.perf_counter() - sent, reply.usage

    await ask(COUNT, 1)  # connects
    shortest, short = min([await ask(COUNT, 1), await ask(COUNT, 1)], key=lambda found: found[0])
    longest, long = await ask(WORDS * (LONG // len(WORDS)), 1)
    more = (long.prompt_tokens - long.cached_tokens) - (short.prompt_tokens - short.cached_tokens)
    prefill = servers * more / max(1e-4, longest - shortest)
    if more <= 0:
        raise RequestFailed("transport_error", f"{lane.name} does not count prompt tokens")

    async def steps(count: int) -> tuple[float, float]:
        """Answers running on the mean, and seconds of a step."""
        found = await asyncio.gather(*(ask(COUNT, TOKENS) for _ in range(count)))
        tokens = [usage.completion_tokens for _, usage in found]
        if max(tokens) < TOKENS / 4:
            raise RequestFailed("transport_error", f"{lane.name}: answers of {max(tokens)} tokens at most")
        read = sum(usage.prompt_tokens - usage.cached_tokens for _, usage in found[1:]) / prefill
        seconds = max(seconds for seconds, _ in found) - shortest - read
        return sum(tokens) / max(tokens), max(1e-5, seconds) / (max(tokens) - 1)

    _, alone = await steps(1)
    together, full = await steps(max(2, min(at_a_time, kept_busy)))
    slope = max(0.0, (full - alone) / max(1.0, together - 1))
    decode = kept_busy / (alone + slope * (kept_busy - 1))
    usage = lane.stats.usage
    return Measured(
        Throughput(prefill=prefill, decode=decode),
        kept_busy,
        usage,
        lane.prices.of(usage).money,
        time.perf_counter() - began,
    )
