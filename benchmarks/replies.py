"""What a simulated model says: drawn by hash from what it is asked, with a planted quality that a judge can read.

An answer opens with its quality (`q731` is 0.731) and is as long as a lognormal draw says. Asked for one token with
log-probabilities, for a choice or for JSON under a schema, the model judges: it reads the qualities in its prompt and
grades them truly, so a pipeline's scores can be checked against what was planted; where its name has `noise20` in it,
with normal noise of 0.20 of its own. It also speaks the forms in which others ask for several texts to be rated at
once: UltraFeedback's blocks, and fenced JSON under a schema it is shown.
"""

import json
import math
import re
from collections.abc import Sequence
from dataclasses import dataclass
from hashlib import blake2b
from statistics import NormalDist
from typing import Any

from benchmarks.batching import tokens_of

WORDS = (
    "the answer depends on what is asked and by whom, so take care to read every word of it twice, then once more "
    "before you say anything at all about the matter in hand "
)
STOCK = WORDS * 500
NORMAL = NormalDist()
QUALITY = re.compile(r"\bq(\d{3})\b")
NOISE = re.compile(r"noise(\d+)")
SHOWN_SCHEMA = re.compile(r"<response_schema>\s*(\{.*\})\s*</response_schema>", re.DOTALL)
BLOCKS = "#### Output for Text"

Body = dict[str, Any]


def luck(*parts: object) -> float:
    """0 to 1, from `parts` alone."""
    text = "\x1f".join(map(str, parts))
    return int.from_bytes(blake2b(text.encode(), digest_size=7).digest(), "big") / 2**56


@dataclass(frozen=True)
class Lengths:
    """Tokens of an answer: lognormal, so a few are many times longer than most."""

    mean: float = 300.0
    sigma: float = 0.7
    seeded: int = 1
    """0: a request's seed changes nothing, so clients that send none do the same work."""

    def draw(self, *parts: object) -> int:
        spread = NORMAL.inv_cdf(min(max(luck("length", *parts), 1e-9), 1 - 1e-9))
        return max(4, round(math.exp(math.log(self.mean) - self.sigma**2 / 2 + self.sigma * spread)))


@dataclass(slots=True)
class Said:
    """One answer before it is written out."""

    text: str
    tokens: int
    finish_reason: str = "stop"
    logprobs: dict[str, Any] | None = None


def shown(body: Body) -> str:
    """All a model reads, as one text."""
    return "\n".join(f"{message['role']}: {_text(message.get('content'))}" for message in body["messages"])


def _text(content: str | list[Body] | None) -> str:
    """A message's text; some clients send it in parts."""
    return "".join(part["text"] for part in content) if isinstance(content, list) else content or ""


def planted(text: str) -> list[float]:
    """The qualities a text carries, in order."""
    return [int(found) / 1000 for found in QUALITY.findall(text)]


def say(body: Body, prompt: str, lengths: Lengths) -> list[Said]:
    """The n answers to one request."""
    return [_say(body, prompt, lengths, i) for i in range(body.get("n") or 1)]


def _say(body: Body, prompt: str, lengths: Lengths, i: int) -> Said:
    most = body.get("max_completion_tokens") or body.get("max_tokens") or 4096
    restricted = body.get("structured_outputs") or {}
    if choices := restricted.get("choice"):
        grades = _grades(prompt)
        return Said(_drawn(choices, grades[0], luck("choice", prompt, body.get("seed"), i)), 1)
    form = body.get("response_format") or {}
    schema = restricted.get("json") or (form.get("json_schema") or {}).get("schema")
    if schema is not None:
        text = json.dumps(conform(schema, schema, iter(_grades(prompt) * 8)))
        return Said(text, tokens_of(text))
    if body.get("logprobs") and most <= 4:
        grade = _noisy(_grades(prompt)[0], str(body.get("model")), prompt)
        return _graded(grade, body.get("top_logprobs") or 0)
    if rated := _rated(prompt):
        return Said(rated, lengths.draw("rated", *sorted(planted(prompt))))
    asked = (body.get("model"), prompt, body.get("seed") if lengths.seeded else None, i)
    tokens = most if body.get("ignore_eos") else lengths.draw(*asked)
    text = f"q{int(1000 * (0.3 * luck('model', asked[0]) + 0.7 * luck('answer', *asked))):03d} {STOCK}"
    return Said(text[: min(tokens, most) * 4], min(tokens, most), "stop" if tokens <= most else "length")


def rating(quality: float) -> int:
    """1 to 5, as it is written where several texts are rated at once."""
    return 1 + min(4, int(quality * 5))


def _rated(prompt: str) -> str | None:
    """Several texts rated at once, in the form the prompt asks for."""
    if schema := SHOWN_SCHEMA.search(prompt):
        form = json.loads(schema[1])
        return f"```json\n{json.dumps(conform(form, form, iter(planted(prompt))))}\n```"
    if BLOCKS in prompt and (grades := planted(prompt)):
        return "\n\n".join(
            f"{BLOCKS} {i}\nRating: {rating(grade)}\nRationale: {WORDS.strip()}."
            for i, grade in enumerate(grades, 1)
        )
    return None


def _grades(prompt: str) -> list[float]:
    return planted(prompt) or [luck("grade", prompt)]


def _noisy(quality: float, model: str, prompt: str) -> float:
    """A grade as a model gives it that errs: another model errs elsewhere."""
    if (found := NOISE.search(model)) is None:
        return quality
    error = NORMAL.inv_cdf(min(max(luck("noise", model, prompt), 1e-9), 1 - 1e-9))
    return min(1.0, max(0.0, quality + int(found[1]) / 100 * error))


def _shares(quality: float, labels: int = 5) -> list[float]:
    """A distribution over 1 to `labels` whose mean is 1 + (labels - 1) * quality: two neighbours share it."""
    mean = quality * (labels - 1)
    low = min(int(mean), labels - 2)
    return [max(0.0, 1 - abs(mean - label)) if label in (low, low + 1) else 0.0 for label in range(labels)]


def _graded(quality: float, alternatives: int) -> Said:
    """A one-token grade with its distribution; a hundredth of the mass is off the scale, as with real models."""
    shares = {str(label): 0.99 * share for label, share in enumerate(_shares(quality), start=1)}
    shares |= {"The": 0.006, "I": 0.003, "Grade": 0.001}
    ranked = sorted(shares, key=lambda token: -shares[token])
    top = [{"token": t, "logprob": math.log(max(shares[t], 1e-9)), "bytes": None} for t in ranked]
    first = top[0] | {"top_logprobs": top[:alternatives]}
    return Said(ranked[0], 1, "length", {"content": [first]})


def _drawn(choices: Sequence[str], quality: float, at: float) -> str:
    """One of the choices; those before the last are taken as a scale from worst to best."""
    for choice, share in zip(
        choices, _shares(quality, len(choices)) if len(choices) > 1 else [1.0], strict=True
    ):
        at -= share
        if at < 0:
            return choice
    return choices[-1]


def conform(schema: Body, root: Body, grades: Any) -> Any:
    """A value that validates; numbers within bounds are grades, in the order in which they are asked for."""
    if reference := schema.get("$ref"):
        here: Any = root
        for part in reference.removeprefix("#/").split("/"):
            here = here[part]
        return conform(here, root, grades)
    if "const" in schema:
        return schema["const"]
    if options := schema.get("enum"):
        return options[min(len(options) - 1, int(next(grades) * len(options)))]
    for union in ("anyOf", "oneOf"):
        if union in schema:
            return conform(schema[union][0], root, grades)
    kind = schema.get("type", "object")
    if kind == "object":
        return {name: conform(inner, root, grades) for name, inner in schema.get("properties", {}).items()}
    if kind == "array":
        return [conform(schema.get("items", {}), root, grades) for _ in range(schema.get("minItems", 1))]
    if kind in ("integer", "number"):
        low, high = schema.get("minimum", 0), schema.get("maximum", 10)
        value = low + (high - low) * next(grades)
        return round(value) if kind == "integer" else value
    return {"boolean": True, "null": None}.get(kind, WORDS[:40].ljust(schema.get("minLength", 0), "."))
