"""Rate one completion on one aspect with one token, 1 to 5: the mean of the token's distribution.

No order to be biased by, no text to parse, one call per completion and aspect. The score is the expectation over the
labels' probabilities (G-Eval, arXiv 2303.16634, equation 1, with the model's own log-probabilities for samples), which
ties far less often than the likeliest label (arXiv 2503.03064). Where an endpoint gives no log-probabilities, the
distribution is counted from `samples` answers at temperature 1.

The question about the aspect comes last and everything before the completion is the same for all completions of a
prompt, so a server with a prefix cache reads the instruction once.
"""

import math
from collections.abc import Sequence
from typing import Any, Literal

from pydantic import Field

from judges.base import Asking, Settings, Unread, Verdict, conversation, judge_prompt
from judges.labels import Shares, ask_label, read_label, sample_shares, spoken, token_shares
from prompts.load import load_prompt, neutralise
from records.schema import Completion, Prompt
from serving.chat import Chat, Choice, Reply, Request

LABELS = ("1", "2", "3", "4", "5")
LOW, HIGH = 1.0, 5.0
SHOWS = ("instruction", "response", "question")


class Rating(Settings):
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
    """0 reads log-probabilities, or, of an endpoint that was found to give none, 8 answers; above 0 that many answers
    are drawn in any case."""
    top_logprobs: int = Field(default=20, ge=5, le=100)
    """Alternatives asked for. vLLM and OpenAI allow 20."""

    def asked(self) -> dict[str, Any]:
        """Everything that decides this judge's answers but the aspect, the text included: part of the fingerprint."""
        settings = self.model_dump(mode="json", exclude={"name", "model", "aspects"})
        return settings | {"text": judge_prompt(self.prompt, SHOWS).text}

    def question(self, aspect: str) -> str:
        """The text that asks about one aspect."""
        return load_prompt(f"aspects/{aspect}").text.strip()

    @property
    def longest(self) -> int:
        return max(1, self.samples)

    def build(self, chat: Chat | None) -> "Rater":
        return Rater(self, chat)


class Rater(Asking):
    """`Rating` with its texts loaded and a model to ask."""

    def __init__(self, settings: Rating, chat: Chat | None) -> None:
        super().__init__(chat)
        self.settings = settings
        self.template = judge_prompt(settings.prompt, SHOWS)
        self.questions = {aspect: settings.question(aspect) for aspect in settings.aspects}

    def messages(self, prompt: Prompt, completion: Completion, aspect: str) -> tuple[dict[str, str], ...]:
        """The judge's exact prompt."""
        markers = self.template.markers
        text = self.template.fill(
            instruction=neutralise(conversation(prompt), markers),
            response=neutralise(completion.text.strip(), markers),
            question=self.questions[aspect],
        )
        return ({"role": "user", "content": text},)

    def requests(self, prompt: Prompt, completions: Sequence[Completion], aspect: str) -> list[Request]:
        own = self.settings
        return [
            ask_label(
                self.messages(prompt, completion, aspect),
                LABELS,
                samples=own.samples,
                prefix=own.prefix,
                top_logprobs=own.top_logprobs,
            )
            for completion in completions
            if completion.text.strip()
        ]

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
        try:
            found = read_label(reply, LABELS, samples=self.settings.samples, min_mass=self.settings.min_mass)
        except Unread as why:
            return _no_score(why, aspect, spoken(reply))
        return _expected(found, aspect, spoken(reply))


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
        distribution=found.shares,
        off_scale=found.off_scale,
        spread=math.sqrt(max(0.0, variance)),
        raw=raw,
    )
