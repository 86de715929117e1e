"""A deterministic model for flows: the same question always has the same answer, and judging reads what it is shown."""

import hashlib
import json
import math
from pathlib import Path
from typing import Any

from flows.recipe import Recipe
from tests.fake_model import Answer, Body


def luck(*parts: Any) -> float:
    """0 to 1, from `parts` alone."""
    text = json.dumps(parts, sort_keys=True, default=str)
    return int.from_bytes(hashlib.blake2b(text.encode(), digest_size=8).digest(), "big") / 2**64


def is_judging(body: Body) -> bool:
    return bool(body.get("logprobs"))


def answer(body: Body) -> Answer | list[str]:
    """Generating: 2 to 10 words, drawn from everything that is asked. Judging: mass on 1 to 5, drawn from the text."""
    if is_judging(body):
        mean = 1 + 4 * luck("grade", body["messages"][-1]["content"])
        weights = [math.exp(-((label - mean) ** 2)) for label in range(1, 6)]
        shares = {
            str(label): math.log(w / sum(weights)) for label, w in zip(range(1, 6), weights, strict=True)
        }
        return Answer(str(round(mean)), logprobs=shares)
    return [sentence(body["messages"], body["temperature"], body["seed"], i) for i in range(body["n"])]


def sentence(*asked: Any) -> str:
    return " ".join(f"word{int(1000 * luck(asked, i))}" for i in range(2 + int(9 * luck(asked)))) + "."


def recipe(url: str, prompts: Path, **changes: Any) -> Recipe:
    """Two samplers and a jury of rules and rating, all at `url`."""
    fields: dict[str, Any] = {
        "name": "flowtest",
        "prompts": [{"file": str(prompts)}],
        "models": {"fake": {"kind": "endpoint", "model": "fake", "base_url": url, "dialect": "vllm"}},
        "samplers": [
            {"name": "cool", "model": "fake", "temperature": 0.2, "max_tokens": 32},
            {"name": "hot", "model": "fake", "temperature": 1.2, "max_tokens": 32},
        ],
        "judge": {"kind": "jury", "members": [{"kind": "rules"}, {"kind": "rating", "model": "fake"}]},
        "pairs": {"policy": "best_vs_worst", "min_margin": 0.01},
        "shard_size": 5,
    }
    return Recipe.model_validate(fields | changes)
