"""A suite read: its questions and all that its answers are compared with. Asks nothing. No Prefect here."""

from dataclasses import dataclass, field
from typing import Any

from flows.suites import compared, harness, ifeval, mt_bench
from flows.suites.regression import Calibration
from flows.suites.result import Answered
from flows.suites.settings import AnySuite, Harness, IFEval, MTBench
from prompts.questions import Known, Question, questions
from records.ids import chance
from records.schema import Prompt


@dataclass
class Exam:
    """One suite, read: its questions, what they are compared with, and the answers as they come."""

    name: str
    suite: AnySuite
    questions: list[Question] = field(default_factory=list)
    prompts: list[Prompt] = field(default_factory=list)
    """Of IFEval, whose prompts carry their constraints."""
    baseline: dict[str, Known] = field(default_factory=dict)
    places: dict[str, int] = field(default_factory=dict)
    """Of the questions in their file."""
    calibration: Calibration | None = None
    sheets: dict[str, list[Answered]] = field(default_factory=dict)
    """By model."""
    scores: dict[str, dict[str, Any]] = field(default_factory=dict)
    """What the harness found, by model."""


def read(name: str, suite: AnySuite, seed: int) -> Exam:
    """A suite with all it needs.

    Raises:
        PromptError, RecipeError: a file cannot be read, or lacks what the suite needs.
    """
    exam = Exam(name, suite)
    if isinstance(suite, Harness):
        harness.find(suite)
        return exam
    if isinstance(suite, IFEval):
        exam.prompts = ifeval.prompts_of(suite)
        kept = drawn([prompt.id for prompt in exam.prompts], suite.limit, seed)
        exam.prompts = [prompt for prompt in exam.prompts if prompt.id in kept]
        return exam
    every = questions(suite.questions, suite.references if isinstance(suite, MTBench) else None)
    exam.places = {question.id: i for i, question in enumerate(every)}
    kept = drawn([question.id for question in every], suite.limit, seed)
    exam.questions = [question for question in every if question.id in kept]
    if isinstance(suite, MTBench):
        mt_bench.check(name, exam.questions)
    else:
        exam.baseline = compared.baseline_of(name, suite, exam.questions)
        places = {question.id: exam.places[question.id] for question in exam.questions}
        exam.calibration = compared.calibration_of(name, suite, places)
    return exam


def drawn(ids: list[str], limit: int | None, seed: int) -> set[str]:
    """At most so many, drawn by id."""
    return set(sorted(ids, key=lambda id: chance(seed, "benchmark", id).random())[:limit])
