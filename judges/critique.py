"""Write feedback on one completion, then an overall score from 1 to 10.

UltraFeedback's critique (OpenBMB/UltraFeedback, src/data_annotation/annotate_critique.py), in our own wording: the
completion is judged against the principle it was asked under. Its parser read a plain `1` as 10 and dropped decimals;
here the number after the last marker is what it says, and off the scale it is no score.
"""

import re
from collections.abc import Sequence
from typing import Any, Literal, NamedTuple

from pydantic import Field

from judges.base import (
    Asking,
    Settings,
    Unread,
    Verdict,
    answer_of,
    conversation,
    judge_prompt,
    read_score,
    unread,
)
from prompts.load import neutralise
from records.schema import Completion, Prompt
from serving.chat import Chat, Choice, Reply, Request

ASPECT = "overall"
LOW, HIGH = 1.0, 10.0
MARKER = "Overall score:"
SHOWS, MAY_SHOW = ("instruction", "response"), ("note",)


class Critique(Settings):
    """A model's feedback on each completion and its overall score, 1 to 10."""

    kind: Literal["critique"] = "critique"
    name: str = "critique"
    model: str
    """The judge model: a name from the recipe's `models`."""
    prompt: str = "judges/critique"
    """The judge's prompt file."""
    temperature: float = Field(default=0.0, ge=0, le=5)
    """UltraFeedback: 0."""
    top_p: float = Field(default=0.6, gt=0, le=1)
    """UltraFeedback: 0.6."""
    max_tokens: int = Field(default=1024, ge=1)
    """Longest feedback with its score, in tokens. UltraFeedback: 1024."""

    @property
    def aspects(self) -> tuple[str, ...]:
        return (ASPECT,)

    def asked(self) -> dict[str, Any]:
        settings = self.model_dump(mode="json", exclude={"name", "model"})
        return settings | {"text": judge_prompt(self.prompt, SHOWS, MAY_SHOW).text}

    def build(self, chat: Chat | None) -> "Critic":
        return Critic(self, chat)


class Critic(Asking):
    """`Critique` with its text loaded and a model to ask."""

    def __init__(self, settings: Critique, chat: Chat | None) -> None:
        super().__init__(chat)
        self.settings, self.template = settings, judge_prompt(settings.prompt, SHOWS, MAY_SHOW)

    def message(self, prompt: Prompt, completion: Completion) -> str:
        markers = [*self.template.markers, MARKER.rstrip(":")]
        values = {
            "instruction": neutralise(conversation(prompt), markers),
            "note": note(completion),
            "response": neutralise(completion.text.strip(), markers),
        }
        return self.template.fill(**{slot: values[slot] for slot in self.template.slots})

    def requests(self, prompt: Prompt, completions: Sequence[Completion], aspect: str) -> list[Request]:
        own = self.settings
        return [
            Request(
                ({"role": "user", "content": self.message(prompt, completion)},),
                own.temperature,
                own.top_p,
                own.max_tokens,
            )
            for completion in completions
            if completion.text.strip()
        ]

    def read(
        self, prompt: Prompt, completions: Sequence[Completion], aspect: str, replies: Sequence[Reply]
    ) -> list[Verdict]:
        came = iter(replies)
        return [
            verdict(next(came).choices[0])
            if completion.text.strip()
            else Verdict(ASPECT, "not_applicable", LOW, HIGH, detail="the answer is empty")
            for completion in completions
        ]


def note(completion: Completion) -> str:
    """The completion's own principle, without the examples of how to say how sure one is."""
    text = completion.principle_text or ""
    if completion.principle == "verbalized_calibration":
        text = text.split("For instance, ")[0]
    return f"Note: {text.strip()}" if text.strip() else ""


def verdict(choice: Choice) -> Verdict:
    try:
        score = parse(choice).score
    except Unread as why:
        return Verdict(ASPECT, why.status, LOW, HIGH, raw=choice.text, detail=why.detail)
    return Verdict(ASPECT, "ok", LOW, HIGH, score=score, raw=choice.text)


class Parsed(NamedTuple):
    feedback: str
    score: float


_MARKER = re.compile(r"""overall[ \t_-]+score[ \t*_"'`]*[:：=]""", re.IGNORECASE)
"""Also as the key of a JSON object."""


def parse(choice: Choice) -> Parsed:
    """Feedback and score. The last marker counts, and what stands there must be a score: no earlier one replaces it.

    Raises:
        Unread: refused, cut off, no marker, or no single number from 1 to 10 after the last one.
    """
    if choice.refusal or choice.finish_reason == "content_filter":
        raise unread(choice, "")
    text = answer_of(choice.text)
    marks = list(_MARKER.finditer(text))
    if not marks:
        raise unread(choice, f"no {MARKER!r} in the answer")
    after = text[marks[-1].end() :].strip().lstrip("*_\u200b \n")
    line = after.split("\n")[0]
    if choice.finish_reason == "length" and line == after:  # `1` may be the beginning of `10`
        raise unread(choice, f"the score {line[:20]!r} may not be finished")
    return Parsed(text[: marks[-1].start()].strip(), read_score(line, LOW, HIGH))
