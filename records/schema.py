"""Every record on the data's path: Prompt -> Completion -> Judgement -> Pair, or Dropped with a reason.

A row as it grows (shortened):

    Prompt(id="9b3f…", messages=[user: "Explain tea in 25 words."], source="quickstart", meta={"constraints": […]})
    Completion(id="51c0…", prompt_id="9b3f…", model="warm", sample=0, text="Tea is …", finish_reason="stop", …)
    Judgement(id="e07a…", completion_id="51c0…", judge="rating", aspect="quality", status="ok", score=3.42, …)
    Pair(prompt=…, chosen=…, rejected=…, score_chosen=4.1, score_rejected=2.0, margin=2.1, policy="best_vs_worst")
"""

import math
from typing import Any, Literal, Self

from pydantic import Field, model_validator

from records.base import Strict

Role = Literal["system", "user", "assistant"]


class Message(Strict):
    role: Role
    content: str


class Prompt(Strict):
    """What a model is asked: a conversation that ends with a user turn."""

    id: str
    """SHA-256 hex, see `records.ids.prompt_id`."""
    messages: tuple[Message, ...] = Field(min_length=1)
    source: str
    """Where it came from: a dataset's name or a file's stem."""
    meta: dict[str, Any] = Field(default_factory=dict)
    """What the source knows besides: `constraints`, `reference`, `split`, `kind`."""

    @model_validator(mode="after")
    def _ends_with_the_user(self) -> Self:
        if self.messages[-1].role != "user" or not self.messages[-1].content.strip():
            raise ValueError(f"prompt {self.id[:12]} must end with a user turn that is not empty")
        return self

    @property
    def text(self) -> str:
        """The last user turn."""
        return self.messages[-1].content


class Usage(Strict):
    """Tokens of one or several requests."""

    prompt_tokens: int = 0
    cached_tokens: int = 0
    """Those of the prompt tokens that the server took from its prefix cache; 0 where it does not say."""
    completion_tokens: int = 0
    requests: int = 0

    def __add__(self, other: "Usage") -> "Usage":
        return Usage(
            prompt_tokens=self.prompt_tokens + other.prompt_tokens,
            cached_tokens=self.cached_tokens + other.cached_tokens,
            completion_tokens=self.completion_tokens + other.completion_tokens,
            requests=self.requests + other.requests,
        )

    def split(self, n: int) -> "list[Usage]":
        """Shared out over n records, so that sums over rows stay true."""
        fields = self.model_dump()
        return [Usage(**{k: v // n + (i < v % n) for k, v in fields.items()}) for i in range(n)]


class Completion(Strict):
    """What one model answered to one prompt, once."""

    id: str
    """Hash of what was asked: messages, model, every sampling field, sample index."""
    prompt_id: str
    model: str
    """The sampler's name in the recipe."""
    sample: int = 0
    """0 to n - 1."""
    text: str
    finish_reason: str
    """`stop` or `length`, as the server said."""
    usage: Usage = Usage()
    principle: str | None = None
    """Name of the system principle it was asked under."""
    principle_text: str | None = None
    """Its wording, as the model read it."""
    seed: int | None = None
    fingerprint: str
    """Of the sampler and the model behind it."""


Status = Literal[
    "ok",
    "tie",
    "parse_error",
    "off_scale",
    "refused",
    "truncated",
    "transport_error",
    "not_applicable",
    "no_answer",
    "rule_error",
    "no_quorum",
    "missing",
]
"""How a judgement ended. Only `ok` has a score; there is no default. `no_answer`: the judged text has no final answer
to compare with the right one, which is not the same as a wrong one. `missing`: a published dataset has no
rating there that can be trusted."""


class Judgement(Strict):
    """What one judge said of one completion on one aspect."""

    id: str
    prompt_id: str
    completion_id: str
    judge: str
    aspect: str
    status: Status
    score: float | None = None
    """In points of the judge's own scale. None unless the status is `ok`."""
    low: float | None
    """The scale's worst score; None where the judge has no scale, as a reward model."""
    high: float | None
    """The scale's best score."""
    distribution: dict[str, float] | None = None
    """Label -> probability, summing to 1, where the judge's answer is a distribution."""
    off_scale: float | None = None
    """Probability the judge model gave to anything but a label, before normalising."""
    spread: float | None = None
    """Standard deviation of the distribution, in points."""
    raw: str = ""
    """The judge model's text, as it came."""
    replies: str = ""
    """The judge model's replies as JSON, log-probabilities included: what `read` was given. At the first judgement
    of a row; empty at its others and for judges that ask no model."""
    detail: str = ""
    """Free text for people: which rules held, why it could not be read."""
    position: int | None = None
    """Where the completion stood in the prompt the judge saw, from 0; None when it stood alone."""
    usage: Usage = Usage()
    fingerprint: str

    @model_validator(mode="after")
    def _a_failure_is_not_a_number(self) -> Self:
        if (self.score is not None) != (self.status == "ok"):
            raise ValueError(f"status {self.status!r} with score {self.score!r}: only 'ok' has a score")
        if self.score is not None and not math.isfinite(self.score):
            raise ValueError(f"score {self.score}: a score is finite or None")
        if (self.low is None) != (self.high is None):
            raise ValueError(f"a scale has two ends or none, not {self.low} to {self.high}")
        if (
            self.score is not None
            and self.low is not None
            and self.high is not None
            and not self.low <= self.score <= self.high
        ):
            raise ValueError(f"score {self.score} is off the scale {self.low} to {self.high}")
        return self

    @property
    def unit(self) -> float | None:
        """The score moved to 0 (worst) to 1 (best); None without a score or a scale."""
        if self.score is None or self.low is None or self.high is None:
            return None
        return (self.score - self.low) / (self.high - self.low)


Reason = Literal[
    "duplicate",
    "empty_prompt",
    "too_long",
    "contaminated",
    "near_duplicate",
    "transport_error",
    "rejected_request",
    "not_imported",
    "quarantined",
    "budget",
    "empty_answer",
    "cut_off",
    "unjudged",
    "too_few_completions",
    "identical",
    "tie",
    "margin",
    "length",
    "judge_failed",
]
"""Why a record went no further. A closed list, because it is counted."""

RETRYABLE: frozenset[str] = frozenset({"transport_error", "budget"})
"""Reasons that say nothing about the record itself: the next run asks again."""


class Dropped(Strict):
    """A record that went no further, and why."""

    id: str
    """The prompt's or the completion's id."""
    stage: str
    reason: Reason
    detail: str = ""


class Pair(Strict):
    """Two completions of one prompt, the better one named."""

    prompt: Prompt
    chosen: Completion
    rejected: Completion
    score_chosen: float
    score_rejected: float
    margin: float
    """score_chosen - score_rejected; 0 only for a tie that the settings keep."""
    policy: str
