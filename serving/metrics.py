"""What a server says of itself on /metrics: tokens so far, and vLLM its queue."""

import re

import aiohttp

from serving.limits import Queue

LONGEST = 10.0
"""Seconds that it may take to say so."""
COUNTERS = r"^(?:vllm:(?:prompt|generation)_tokens_total|llamacpp:(?:prompt_tokens|tokens_predicted)_total)\S* (\S+)$"
QUEUE = r"^vllm:num_requests_(running|waiting)(?:\{\S*\})? (\S+)$"


async def token_count(base_url: str) -> float | None:
    """Tokens a server has read and written so far, from its /metrics; None where it does not answer."""
    text = await _metrics(base_url)
    return None if text is None else sum(float(value) for value in re.findall(COUNTERS, text, re.MULTILINE))


async def queue_at(base_url: str) -> Queue | None:
    """How many requests a vLLM server runs and lets wait, from its /metrics; None where it does not say."""
    found = {"running": 0.0, "waiting": 0.0}
    values = re.findall(QUEUE, await _metrics(base_url) or "", re.MULTILINE)
    for name, value in values:
        found[name] += float(value)
    return Queue(**found) if values else None


async def _metrics(base_url: str) -> str | None:
    try:
        async with (
            aiohttp.ClientSession(timeout=aiohttp.ClientTimeout(total=LONGEST)) as session,
            session.get(base_url.removesuffix("/v1") + "/metrics") as response,
        ):
            return await response.text()
    except (aiohttp.ClientError, OSError, TimeoutError, UnicodeDecodeError):
        return None
