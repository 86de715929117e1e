"""AlpacaEval and Arena-Hard: each answer beside the baseline's, in both orders; wins, and wins with style held equal.

AlpacaEval shows each pair in one order drawn by chance; here both are always asked and their probabilities averaged.
Arena-Hard has five verdicts in words; here the verdict is one token, whose probabilities say how sure it is.
"""

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

from flows.recipe import RecipeError
from flows.suites.regression import Calibration, calibration, length_controlled, style_controlled
from flows.suites.result import Answered, Result, Sheets, ToJudge, counts_of, grouped, scored, tabled
from flows.suites.settings import AlpacaEval, ArenaHard
from prompts.questions import Known, Question, answers
from records.ids import fingerprint, prompt_id
from records.schema import Completion, Message, Prompt

if TYPE_CHECKING:
    from flows.suites.asking import Sitter

WORST = 0.0
"""Share of a win: of an answer that is empty."""
BASELINE = "baseline"


def baseline_of(name: str, suite: AlpacaEval | ArenaHard, questions: Sequence[Question]) -> dict[str, Known]:
    """The baseline's answers, by question.

    Raises:
        RecipeError, PromptError: it has none to some, or its file cannot be read.
    """
    place = suite.baseline or suite.questions
    found = answers(place)
    if missing := [question.id for question in questions if question.id not in found]:
        raise RecipeError(
            f"benchmark.suites.{name}.baseline: {place} answers {len(questions) - len(missing)} of {len(questions)} "
            f"questions, not {missing[0][:60]!r}"
        )
    return {question.id: found[question.id] for question in questions}


def calibration_of(name: str, suite: AlpacaEval | ArenaHard, places: Mapping[str, int]) -> Calibration | None:
    """Raises: RecipeError, PromptError, where it cannot be read or lacks an instruction."""
    if not isinstance(suite, AlpacaEval) or suite.calibration is None:
        return None
    found = calibration(suite.calibration)
    if missing := sorted(set(places.values()) - found.difficulty.keys()):
        raise RecipeError(
            f"benchmark.suites.{name}.calibration: {suite.calibration} has no instruction {missing[0]} of "
            f"{suite.questions}; wanted the file that belongs to this evaluation set"
        )
    return found


def prompt_of(question: Question, source: str, system: str | None) -> Prompt:
    messages = [] if system is None else [Message(role="system", content=system)]
    messages.append(Message(role="user", content=question.turns[0]))
    meta = {"category": question.category, "question": question.id}
    return Prompt(id=prompt_id(messages), messages=tuple(messages), source=source, meta=meta)


async def sit(
    name: str, suite: AlpacaEval | ArenaHard, questions: Sequence[Question], system: str | None, who: "Sitter"
) -> list[Answered]:
    """One model's answers, in the questions' order."""
    prompts = [prompt_of(question, suite.kind, system) for question in questions]
    found = await who.answers(name, prompts, suite.temperature, suite.max_tokens)
    return [
        Answered(question, 0, prompt, found.get(prompt.id))
        for question, prompt in zip(questions, prompts, strict=True)
    ]


def to_judge(
    suite: AlpacaEval | ArenaHard, answered: Sequence[Answered], baseline: Mapping[str, Known]
) -> list[ToJudge]:
    return [
        ToJudge(one, suite.judge, beside(one.prompt, baseline[one.question.id]))
        for one in answered
        if one.completion is not None
    ]


def beside(prompt: Prompt, known: Known) -> Completion:
    """The baseline's published answer as a judge sees any other."""
    return Completion(
        id=fingerprint(BASELINE, prompt.id, known.turns[0]),
        prompt_id=prompt.id,
        model=BASELINE,
        text=known.turns[0],
        finish_reason="stop",
        fingerprint=BASELINE,
    )


def result(
    suite: AlpacaEval | ArenaHard,
    questions: Sequence[Question],
    sheets: Sheets,
    baseline: Mapping[str, Known],
    places: Mapping[str, int],
    known: Calibration | None,
) -> Result:
    """Win rates, plain and with length or style held equal; 0 to 1, half of them a tie."""
    wins = {model: scored(answered, WORST) for model, answered in sheets.items()}
    table = tabled({"win rate": wins})
    equal = "win rate, length controlled" if isinstance(suite, AlpacaEval) else "win rate, style controlled"
    table["metrics"][equal] = {}
    for model, answered in sheets.items():
        texts = {one.question.id: one.completion.text for one in answered if one.completion}
        ids = [id for id, _ in wins[model]]
        preferred, own, others = (
            list(wins[model].values()),
            [texts[id] for id in ids],
            [baseline[id].turns[0] for id in ids],
        )
        if isinstance(suite, AlpacaEval):
            lengths = [len(text) for text in own], [len(text) for text in others]
            value = length_controlled(preferred, *lengths, [places[id] for id in ids], known)
        else:
            value = style_controlled(preferred, own, others)
        table["metrics"][equal][model] = value
    names = sorted({answer.model for answer in baseline.values()})
    notes = [f"against {', '.join(names)}"]
    if isinstance(suite, AlpacaEval) and known is None:
        notes.append("length controlled without AlpacaEval's calibration: not the leaderboard's figure")
    return Result(
        kind=suite.kind,
        scale="share",
        questions=len(questions),
        groups=grouped(wins, {question.id: question.category for question in questions}),
        counts={model: counts_of(answered) for model, answered in sheets.items()},
        notes=tuple(notes),
        **table,
    )
