"""Rate one completion on one aspect with one token, 1 to 5: the mean of the token's distribution.

No order to be biased by, no text to parse, one call per completion and aspect. The score is the expectation over the
labels' probabilities (G-Eval, arXiv 2303.16634, equation 1, with the model's own log-probabilities for samples), which
ties far less often than the likeliest label (arXiv 2503.03064). Where an endpoint gives no log-probabilities, the
distribution is counted from `samples` answers at temperature 1.

The question about the aspect comes last and everything before the completion is the same for all completions of a
prompt, so a server with a prefix cache reads the instruction once.
"""

import asyncio
import math
from collections.abc import Sequence
from dataclasses import replace
from typing import Any, Literal

from pydantic import Field

from judges.base import Verdict
from prompts.load import load_prompt, neutralise
from records.base import Strict
from records.schema import Completion, Prompt
from serving.chat import Chat, Choice, Reply, Request

LABELS = ("1", "2", "3", "4", "5")
LOW, HIGH = 1.0, 5.0


class Rating(Strict):
    """A model's one-token rating of each completion, 1 to 5."""

    kind: Literal["rating"] = "rating"
    name: str = "rating"
    model: str
    """The judge model: a name from the recipe's `models`."""
    aspects: tuple[str, ...] = Field(default=("quality",), min_length=1)
    """Files of prompts/aspects; one call each."""
    prompt: str = "judges/rating"
    """The judge's prompt file."""
    prefix: str = ""
    """How the judge model's answer begins, for small models that would not begin with a digit: "Grade: ".
    Needs vLLM or llama.cpp."""
    min_mass: float = Field(default=0.5, gt=0, le=1)
    """Least probability the labels must have together; below it the model was not rating: `off_scale`."""
    samples: int = Field(default=0, ge=0, le=64)
    """0 reads log-probabilities; above 0 that many answers are drawn instead, for endpoints without them."""
    top_logprobs: int = Field(default=20, ge=5, le=100)
    """Alternatives asked for. vLLM and OpenAI allow 20."""

    def asked(self) -> dict[str, Any]:
        """Everything that decides this judge's answers but the aspect, the text included: part of the fingerprint."""
        settings = self.model_dump(mode="json", exclude={"name", "model", "aspects"})
        return settings | {"text": load_prompt(self.prompt).text}

    def question(self, aspect: str) -> str:
        """The text that asks about one aspect."""
        return load_prompt(f"aspects/{aspect}").text.strip()

    def build(self, chat: Chat | None) -> "Rater":
        return Rater(self, chat)


class Rater:
    """`Rating` with its texts loaded and a model to ask; without one it can still show its prompts."""

    def __init__(self, settings: Rating, chat: Chat | None) -> None:
        self.settings, self.chat = settings, chat
        self.template = load_prompt(settings.prompt)
        self.questions = {
            aspect: load_prompt(f"aspects/{aspect}").text.strip() for aspect in settings.aspects
        }

    async def __call__(self, prompt: Prompt, completions: Sequence[Completion], aspect: str) -> list[Verdict]:
        return list(
            await asyncio.gather(*(self.rate(prompt, completion, aspect) for completion in completions))
        )

    def messages(self, prompt: Prompt, completion: Completion, aspect: str) -> tuple[dict[str, str], ...]:
        """The judge's exact prompt."""
        turns = [message for message in prompt.messages if message.role != "system"]
        instruction = (
            turns[0].content if len(turns) == 1 else "\n\n".join(f"{m.role}: {m.content}" for m in turns)
        )
        markers = self.template.markers
        text = self.template.fill(
            instruction=neutralise(instruction, markers),
            response=neutralise(completion.text.strip(), markers),
            question=self.questions[aspect],
        )
        return ({"role": "user", "content": text},)

    async def rate(self, prompt: Prompt, completion: Completion, aspect: str) -> Verdict:
        if not completion.text.strip():
            return Verdict(aspect, "not_applicable", LOW, HIGH, detail="the answer is empty")
        if self.chat is None:
            raise ValueError(f"judge {self.settings.name!r} has no model to ask")
        messages = self.messages(prompt, completion, aspect)
        drawn = self.settings.samples
        prefix, alternatives = self.settings.prefix, self.settings.top_logprobs
        request = Request(messages, 0.0, top_p=1.0, max_tokens=1, prefix=prefix, top_logprobs=alternatives)
        if drawn:
            request = replace(request, temperature=1.0, n=drawn, choices=LABELS, top_logprobs=0, max_tokens=4)
        reply = await self.chat(request)
        verdict = (
            from_samples(reply, aspect)
            if drawn
            else from_logprobs(reply.choices[0], aspect, self.settings.min_mass)
        )
        return replace(verdict, usage=reply.usage)


def from_logprobs(choice: Choice, aspect: str, min_mass: float) -> Verdict:
    """The verdict in the first token's distribution. Spellings of a label (`4`, ` 4`) are added up."""
    if choice.refusal or choice.finish_reason == "content_filter":
        return Verdict(
            aspect, "refused", LOW, HIGH, raw=choice.text, detail=choice.refusal or "content filter"
        )
    if not choice.tokens or not choice.tokens[0].alternatives:
        detail = "the endpoint returned no log-probabilities; set `samples` on this judge"
        return Verdict(aspect, "parse_error", LOW, HIGH, raw=choice.text, detail=detail)
    weights: dict[str, float] = dict.fromkeys(LABELS, 0.0)
    for token, logprob in choice.tokens[0].alternatives.items():
        if (label := token.strip()) in weights:
            weights[label] += math.exp(logprob)
    return _expected(weights, aspect, choice.text, min_mass)


def from_samples(reply: Reply, aspect: str) -> Verdict:
    """The verdict in the shares of several answers. Each must be one label and nothing else."""
    weights: dict[str, float] = dict.fromkeys(LABELS, 0.0)
    for choice in reply.choices:
        if (label := choice.text.strip().rstrip(".")) in weights:
            weights[label] += 1 / len(reply.choices)
    refused = sum(1 for choice in reply.choices if choice.refusal)
    raw = " | ".join(choice.text.strip() for choice in reply.choices)
    if refused * 2 > len(reply.choices):
        return Verdict(
            aspect, "refused", LOW, HIGH, raw=raw, detail=f"{refused} of {len(reply.choices)} refused"
        )
    return _expected(weights, aspect, raw, min_mass=0.5)


def _expected(weights: dict[str, float], aspect: str, raw: str, min_mass: float) -> Verdict:
    mass = sum(weights.values())
    off_scale = max(0.0, 1.0 - mass)
    if mass < min_mass:
        detail = f"the labels 1 to 5 have {mass:.2f} of the probability together, {min_mass} is wanted"
        return Verdict(aspect, "off_scale", LOW, HIGH, raw=raw, detail=detail, off_scale=off_scale)
    shares = {label: weight / mass for label, weight in weights.items()}
    mean = sum(int(label) * share for label, share in shares.items())
    spread = math.sqrt(max(0.0, sum(share * (int(label) - mean) ** 2 for label, share in shares.items())))
    return Verdict(
        aspect,
        "ok",
        LOW,
        HIGH,
        score=min(HIGH, max(LOW, mean)),
        distribution=shares,
        off_scale=off_scale,
        spread=spread,
        raw=raw,
    )
