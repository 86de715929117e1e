"""Write feedback on one completion, then an overall score from 1 to 10.

UltraFeedback's critique (OpenBMB/UltraFeedback, src/data_annotation/annotate_critique.py), in our own wording: the
completion is judged against the principle it was asked under. Its parser read a plain `1` as 10 and dropped decimals;
here the number after the last marker is what it says, and off the scale it is no score.

With other prompts it is MT-Bench's single-answer grading (arXiv 2306.05685), whose rating stands in double brackets.
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
from prompts.load import BREAK, load_prompt, neutralise
from records.schema import Completion, Prompt
from serving.chat import Chat, Choice, Reply, Request

ASPECT = "overall"
LOW, HIGH = 1.0, 10.0
MARKER = "Overall score:"
SHOWS, MAY_SHOW = ("instruction", "response"), ("note", "reference")
Mark = Literal["line", "brackets"]


class Critique(Settings):
    """A model's feedback on each completion and its overall score, 1 to 10."""

    kind: Literal["critique"] = "critique"
    name: str = "critique"
    model: str
    """The judge model: a name from the recipe's `models`."""
    prompt: str = "judges/critique"
    """The judge's prompt file. `judges/graded` is MT-Bench's grading, to be read with mark brackets;
    `judges/graded_reference` also shows the prompt's `reference`, and a prompt without one is then not judged."""
    mark: Mark = "line"
    """How the score is written. line: `Overall score: 7`. brackets: `[[7]]`, as MT-Bench has it."""
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
        # of a field's default nothing is said, so that what was asked before there was the field holds
        exclude = {"name", "model"} | ({"mark"} if self.mark == "line" else set())
        settings = self.model_dump(mode="json", exclude=exclude)
        return settings | {"text": judge_prompt(self.prompt, SHOWS, MAY_SHOW).text}

    def context(self, prompt: Prompt, aspect: str) -> object:
        return prompt.meta.get("reference") if "reference" in load_prompt(self.prompt).slots else None

    def build(self, chat: Chat | None) -> "Critic":
        return Critic(self, chat)


class Critic(Asking):
    """`Critique` with its text loaded and a model to ask."""

    def __init__(self, settings: Critique, chat: Chat | None) -> None:
        super().__init__(chat)
        self.settings, self.template = settings, judge_prompt(settings.prompt, SHOWS, MAY_SHOW)

    def message(self, prompt: Prompt, completion: Completion) -> str:
        values = {
            "instruction": self._safe(conversation(prompt)),
            "note": note(completion),
            "response": self._safe(completion.text.strip()),
            "reference": self._safe(str(prompt.meta.get("reference"))),
        }
        return self.template.fill(**{slot: values[slot] for slot in self.template.slots})

    def _safe(self, text: str) -> str:
        """A text that cannot fake the judge's prompt, nor a score that the judge would quote."""
        if self.settings.mark == "brackets":
            return RATED.sub("[" + BREAK + "[", neutralise(text, self.template.markers))
        return neutralise(text, [*self.template.markers, MARKER.rstrip(":")])

    def _why_not(self, prompt: Prompt, completion: Completion) -> str:
        """Why a completion is not judged; empty where it is."""
        if "reference" in self.template.slots and prompt.meta.get("reference") is None:
            return "the prompt has no reference"
        return "" if completion.text.strip() else "the answer is empty"

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
            if not self._why_not(prompt, completion)
        ]

    def read(
        self, prompt: Prompt, completions: Sequence[Completion], aspect: str, replies: Sequence[Reply]
    ) -> list[Verdict]:
        came = iter(replies)
        return [
            Verdict(ASPECT, "not_applicable", LOW, HIGH, detail=why)
            if (why := self._why_not(prompt, completion))
            else verdict(next(came).choices[0], self.settings.mark)
            for completion in completions
        ]


def note(completion: Completion) -> str:
    """The completion's own principle, without the examples of how to say how sure one is."""
    text = completion.principle_text or ""
    if completion.principle == "verbalized_calibration":
        text = text.split("For instance, ")[0]
    return f"Note: {text.strip()}" if text.strip() else ""


def verdict(choice: Choice, mark: Mark = "line") -> Verdict:
    try:
        score = rating(choice) if mark == "brackets" else parse(choice).score
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


RATED = re.compile(r"\[\[(?=\s*[0-9]+(?:\.[0-9]+)?\s*\]\])")
"""Opens a rating in a text that is judged."""
_BRACKETS = re.compile(r"\[\[([^\[\]]*)\]\]|\brating\W*?\[([^\[\]]*)\]", re.IGNORECASE)
"""One pair of brackets is enough after the word."""


def rating(choice: Choice) -> float:
    """The last rating in brackets; what stands there must be a score: no earlier one replaces it.

    Raises:
        Unread: refused, cut off, no brackets, or no single number from 1 to 10 in the last ones.
    """
    if choice.refusal or choice.finish_reason == "content_filter":
        raise unread(choice, "")
    marks = list(_BRACKETS.finditer(answer_of(choice.text)))
    if not marks:
        raise unread(choice, "no [[rating]] in the answer")
    return read_score(marks[-1][1] or marks[-1][2] or "", LOW, HIGH)
