"""What a suite came to: metrics of every model with intervals, gains over the base, counts of what was not graded."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

from pydantic import Field

from flows.answers import Case
from judges.jury import Member
from prompts.questions import Question
from records.base import Strict
from records.schema import Completion, Judgement, Prompt
from records.stats import Estimate, mean


@dataclass(frozen=True)
class Answered:
    """One model's answer to one turn of a question, and what the judge said of it."""

    question: Question
    turn: int
    """From 0."""
    prompt: Prompt
    """What the model was asked, its own earlier answers included."""
    completion: Completion | None
    """None: the model could not be asked this."""
    judgement: Judgement | None = None

    @property
    def empty(self) -> bool:
        return self.completion is not None and not self.completion.text.strip()

    @property
    def score(self) -> float | None:
        """None: there is no answer, or no judgement that could be read."""
        return self.judgement.score if self.judgement else None


@dataclass(frozen=True)
class ToJudge:
    """An answer, and what its judge sees: the answer alone, or beside the baseline's."""

    answer: Answered
    member: Member
    beside: Completion | None = None

    @property
    def case(self) -> Case:
        assert self.answer.completion is not None
        both = [self.answer.completion, *([self.beside] if self.beside else [])]
        return Case(self.answer.prompt, tuple(sorted(both, key=lambda c: c.id)), self.member.aspects[0])


Sheets = Mapping[str, Sequence[Answered]]
"""Model -> all of its answers in one suite, in the same order for each."""


class Counts(Strict):
    """What lies behind one model's figures."""

    answers: int = 0
    unanswered: int = 0
    """The model could not be asked, as where the question does not fit its context. Left out of the figures."""
    empty: int = 0
    """Nothing was answered; counts as the worst."""
    cut_off: int = 0
    """Ran into max_tokens; judged as it is."""
    unread: dict[str, int] = Field(default={})
    """Judgements without a score, by status. Left out of the figures, never a number."""


class Result(Strict):
    """One suite's figures. `metrics` and `gains` are by metric, then model; the first metric is the suite's own."""

    kind: str
    scale: Literal["rating", "share"]
    """rating: 1 to 10. share: 0 to 1."""
    questions: int
    metrics: dict[str, dict[str, Estimate | None]]
    gains: dict[str, dict[str, Estimate | None]] = Field(default={})
    """Over the first model, question by question."""
    groups: dict[str, dict[str, float | None]] = Field(default={})
    """The first metric by category and model."""
    counts: dict[str, Counts] = Field(default={})
    notes: tuple[str, ...] = ()


def counts_of(answers: Sequence[Answered]) -> Counts:
    unread: dict[str, int] = {}
    for one in answers:
        if one.judgement is not None and one.score is None and not one.empty:
            unread[one.judgement.status] = unread.get(one.judgement.status, 0) + 1
    there = [one.completion for one in answers if one.completion is not None]
    return Counts(
        answers=len(there),
        unanswered=len(answers) - len(there),
        empty=sum(one.empty for one in answers),
        cut_off=sum(completion.finish_reason == "length" for completion in there),
        unread=unread,
    )


Values = Mapping[tuple[str, int], float]
"""(question, turn) -> a figure of it."""


def average(values: Values) -> Estimate | None:
    """The mean, its interval bootstrapped over questions."""
    return mean(list(values.values()), [question for question, _ in values])


def gain(values: Values, base: Values) -> Estimate | None:
    """The mean difference where both have a figure, so that what makes a question hard cancels out."""
    both = [key for key in values if key in base]
    return mean([values[key] - base[key] for key in both], [question for question, _ in both])


def scored(answers: Sequence[Answered], worst: float) -> dict[tuple[str, int], float]:
    """Every graded answer's score; an empty answer has the worst, one that was not graded none."""
    found: dict[tuple[str, int], float] = {}
    for one in answers:
        score = worst if one.empty else one.score
        if score is not None:
            found[one.question.id, one.turn] = score
    return found


def tabled(values: Mapping[str, Mapping[str, Values]]) -> dict[str, Any]:
    """Metrics and gains of `values`: metric -> model -> figures."""
    gains: dict[str, dict[str, Estimate | None]] = {}
    for metric, models in values.items():
        first, *others = models
        if others:
            gains[metric] = {name: gain(models[name], models[first]) for name in others}
    metrics = {
        metric: {name: average(own) for name, own in models.items()} for metric, models in values.items()
    }
    return {"metrics": metrics, "gains": gains}


def grouped(values: Mapping[str, Values], group: Mapping[str, str]) -> dict[str, dict[str, float | None]]:
    """Means by the questions' groups, and by model."""
    found: dict[str, dict[str, float | None]] = {}
    for name in dict.fromkeys(group.values()):
        if name:
            found[name] = {}
            for model, own in values.items():
                inside = [value for (question, _), value in own.items() if group[question] == name]
                found[name][model] = sum(inside) / len(inside) if inside else None
    return found
