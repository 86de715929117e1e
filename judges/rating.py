"""Rate one completion on one aspect, 1 to 5: the mean of the distribution at the score's token.

`grade` says what is written around it. `token`: nothing, one token is asked for. `short`: the score, then a reason that
cannot sway it any more. `full`: reasons first, which decide the score and so narrow its distribution.

No order to be biased by, one call per completion and aspect. The score is the expectation over the
labels' probabilities (G-Eval, arXiv 2303.16634, equation 1, with the model's own log-probabilities for samples), which
ties far less often than the likeliest label (arXiv 2503.03064). Where an endpoint gives no log-probabilities, the
distribution is counted from `samples` answers at temperature 1.

The question about the aspect comes last and everything before the completion is the same for all completions of a
prompt, so a server with a prefix cache reads the instruction once.
"""

import math
from collections.abc import Sequence
from dataclasses import replace
from typing import Any, Literal

from pydantic import Field, model_validator

from judges import written
from judges.base import Asking, Settings, Unread, Verdict, conversation, judge_prompt
from judges.labels import Shares, ask_label, normal, read_label, sample_shares, spoken, token_shares
from prompts.load import load_prompt, neutralise
from records.schema import Completion, Prompt
from serving.chat import Chat, Choice, Reply, Request

LABELS = ("1", "2", "3", "4", "5")
LOW, HIGH = 1.0, 5.0
SHOWS = ("instruction", "response", "question")
Grade = Literal["token", "short", "full"]
LONGEST: dict[Grade, int] = {"token": 1, "short": 96, "full": 512}
"""Tokens of an answer, where the recipe does not say."""
TEXT: dict[Grade, str] = {"short": "reason", "full": "reasons"}
"""What the text beside the score is called."""


class Rating(Settings):
    """A model's rating of each completion, 1 to 5."""

    kind: Literal["rating"] = "rating"
    name: str = "rating"
    model: str
    """The judge model: a name from the recipe's `models`."""
    aspects: tuple[str, ...] = Field(default=("quality",), min_length=1)
    """Files of prompts/aspects; one call each."""
    grade: Grade = "token"
    """token: one token and nothing else, cheapest. short: the score, then a reason in one sentence. full: reasons
    before the score. Both are asked for as JSON."""
    max_tokens: int | None = Field(default=None, ge=1)
    """Longest answer of a grade with a text; None: 96 for short, 512 for full."""
    prompt: str | None = None
    """The judge's prompt file; None: `judges/rating`, `judges/rating_short` or `judges/rating_full`."""
    prefix: str = ""
    """How the judge model's answer begins, for small models that would not begin with a digit: "Grade: ".
    Needs vLLM or llama.cpp; with grade token alone."""
    min_mass: float = Field(default=0.5, gt=0, le=1)
    """Least probability the labels must have together; below it the model was not rating: `off_scale`."""
    samples: int = Field(default=0, ge=0, le=64)
    """0 reads log-probabilities, or, of an endpoint that was found to give none, 8 answers; above 0 that many answers
    are drawn in any case."""
    top_logprobs: int = Field(default=20, ge=5, le=100)
    """Alternatives asked for. vLLM and OpenAI allow 20."""

    def asked(self) -> dict[str, Any]:
        """Everything that decides this judge's answers but the aspect, the text included: part of the fingerprint."""
        # of a field's default nothing is said, so that what was asked before there was the field holds
        exclude = {"name", "model", "aspects"} | ({"grade", "max_tokens"} if self.grade == "token" else set())
        settings = self.model_dump(mode="json", exclude=exclude) | {"prompt": self.prompt_name}
        return settings | {"text": judge_prompt(self.prompt_name, SHOWS).text}

    def question(self, aspect: str) -> str:
        """The text that asks about one aspect."""
        return load_prompt(f"aspects/{aspect}").text.strip()

    @property
    def prompt_name(self) -> str:
        return self.prompt or ("judges/rating" if self.grade == "token" else f"judges/rating_{self.grade}")

    @property
    def alike(self) -> bool:
        """Long answers one after the other would keep a row waiting for what a prefix cache saves."""
        return self.grade == "token"

    @property
    def longest(self) -> int:
        return (self.max_tokens or LONGEST[self.grade]) * max(1, self.samples)

    @model_validator(mode="after")
    def _fields_fit_the_grade(self) -> "Rating":
        if self.grade == "token" and self.max_tokens is not None:
            raise ValueError(
                f"max_tokens={self.max_tokens}: grade token is one token; it is for short and full"
            )
        if self.grade != "token" and self.prefix:
            raise ValueError(f"prefix={self.prefix!r}: grade {self.grade} begins with its JSON; leave it out")
        return self

    def build(self, chat: Chat | None) -> "Rater":
        return Rater(self, chat)


class Rater(Asking):
    """`Rating` with its texts loaded and a model to ask."""

    def __init__(self, settings: Rating, chat: Chat | None) -> None:
        super().__init__(chat)
        self.settings = settings
        self.template = judge_prompt(settings.prompt_name, SHOWS)
        self.questions = {aspect: settings.question(aspect) for aspect in settings.aspects}

    def messages(self, prompt: Prompt, completion: Completion, aspect: str) -> tuple[dict[str, str], ...]:
        """The judge's exact prompt."""
        markers = [*self.template.markers]
        if self.settings.grade != "token":
            markers.append(written.MARKER)
        text = self.template.fill(
            instruction=neutralise(conversation(prompt), markers),
            response=neutralise(completion.text.strip(), markers),
            question=self.questions[aspect],
        )
        return ({"role": "user", "content": text},)

    def requests(self, prompt: Prompt, completions: Sequence[Completion], aspect: str) -> list[Request]:
        return [
            self._request(self.messages(prompt, completion, aspect))
            for completion in completions
            if completion.text.strip()
        ]

    def _request(self, messages: tuple[dict[str, str], ...]) -> Request:
        own = self.settings
        if own.grade == "token":
            return ask_label(
                messages, LABELS, samples=own.samples, prefix=own.prefix, top_logprobs=own.top_logprobs
            )
        return Request(
            messages,
            temperature=1.0 if own.samples else 0.0,
            top_p=1.0,
            max_tokens=own.max_tokens or LONGEST[own.grade],
            n=max(1, own.samples),
            schema=written.schema(LABELS, own.grade == "short", TEXT[own.grade]),
            top_logprobs=0 if own.samples else own.top_logprobs,
        )

    def read(
        self, prompt: Prompt, completions: Sequence[Completion], aspect: str, replies: Sequence[Reply]
    ) -> list[Verdict]:
        came = iter(replies)
        return [
            self._verdict(next(came), aspect)
            if completion.text.strip()
            else Verdict(aspect, "not_applicable", LOW, HIGH, detail="the answer is empty")
            for completion in completions
        ]

    def _verdict(self, reply: Reply, aspect: str) -> Verdict:
        own = self.settings
        try:
            if own.grade == "token":
                found, said = read_label(reply, LABELS, samples=own.samples, min_mass=own.min_mass), ""
            else:
                found, said = read_written(reply, TEXT[own.grade], own.min_mass)
        except Unread as why:
            return _no_score(why, aspect, spoken(reply))
        return replace(_expected(found, aspect, spoken(reply)), detail=said)

    def kept(self, reply: Reply) -> Reply:
        return reply if self.settings.grade == "token" else written.lean(reply, LABELS)


def read_written(reply: Reply, text: str, min_mass: float) -> tuple[Shares, str]:
    """Shares of the labels in answers with a text, and the first one's text.

    Of one answer, the distribution at its score, or the written score alone where there are no log-probabilities; of
    several, how often each score was written.
    """
    if len(reply.choices) > 1:
        weights: dict[str, float] = dict.fromkeys(LABELS, 0.0)
        said, last = [], None
        for choice in reply.choices:
            try:
                found = written.find(choice, LABELS, text)
            except Unread as why:
                last = why
                continue
            weights[found.label] += 1 / len(reply.choices)
            said.append(found.text)
        if last is not None and not said:
            raise last
        return normal(weights, min_mass=0.5), said[0]
    choice = next(iter(reply.choices))
    found = written.find(choice, LABELS, text)
    at_score = written.shares(choice, found, LABELS, min_mass)
    end = " [cut off]" if found.cut_off else ""
    return at_score or Shares({found.label: 1.0}, None), found.text + end


def from_logprobs(choice: Choice, aspect: str, min_mass: float) -> Verdict:
    """The verdict in the first token's distribution."""
    try:
        return _expected(token_shares(choice, LABELS, min_mass), aspect, choice.text)
    except Unread as why:
        return _no_score(why, aspect, choice.text)


def from_samples(reply: Reply, aspect: str) -> Verdict:
    """The verdict in the shares of several answers."""
    try:
        return _expected(sample_shares(reply, LABELS), aspect, spoken(reply))
    except Unread as why:
        return _no_score(why, aspect, spoken(reply))


def _no_score(why: Unread, aspect: str, raw: str) -> Verdict:
    return Verdict(aspect, why.status, LOW, HIGH, raw=raw, detail=why.detail, off_scale=why.off_scale)


def _expected(found: Shares, aspect: str, raw: str) -> Verdict:
    mean = sum(int(label) * share for label, share in found.shares.items())
    variance = sum(share * (int(label) - mean) ** 2 for label, share in found.shares.items())
    return Verdict(
        aspect,
        "ok",
        LOW,
        HIGH,
        score=min(HIGH, max(LOW, mean)),
        distribution=None if found.off_scale is None else found.shares,
        off_scale=found.off_scale,
        spread=None if found.off_scale is None else math.sqrt(max(0.0, variance)),
        raw=raw,
    )
