"""MT-Bench: two turns in eight categories, every answer graded from 1 to 10 (arXiv 2306.05685).

The second turn is asked with the model's own first answer. Questions with a reference answer are graded by it. The
published figure is the mean over all graded turns; FastChat writes -1 where it finds no rating, which is none here.
"""

from collections.abc import Sequence
from typing import TYPE_CHECKING

from flows.recipe import RecipeError
from flows.stage import together
from flows.suites.result import Answered, Result, Sheets, ToJudge, counts_of, grouped, scored, tabled
from flows.suites.settings import MTBench
from prompts.questions import Question
from records.ids import prompt_id
from records.schema import Completion, Message, Prompt

if TYPE_CHECKING:
    from flows.suites.asking import Sitter

BY_REFERENCE = ("math", "reasoning", "coding")
"""Categories whose judge must be shown a right answer."""
WORST = 1.0


def check(name: str, questions: Sequence[Question]) -> None:
    """Raises: RecipeError, where a question that must be graded by a reference has none."""
    without = [q for q in questions if q.category in BY_REFERENCE and not q.reference]
    if without:
        raise RecipeError(
            f"benchmark.suites.{name}.references: {len(without)} questions on {', '.join(BY_REFERENCE)} have no right "
            f"answer, the first is {without[0].id}; give FastChat's reference_answer file"
        )


def prompt_of(question: Question, turn: int, said: Sequence[str], system: str | None) -> Prompt:
    """What a model is asked at this turn, after what it `said` before."""
    messages = [] if system is None else [Message(role="system", content=system)]
    for asked, answer in zip(question.turns, said, strict=False):
        messages += [Message(role="user", content=asked), Message(role="assistant", content=answer)]
    messages.append(Message(role="user", content=question.turns[turn]))
    meta = {"category": question.category, "question": question.id, "turn": turn + 1}
    if question.reference:
        pairs = list(zip(question.turns, question.reference, strict=True))[: turn + 1]
        texts = [f"To the question: {asked}\n{right}" for asked, right in pairs]
        meta["reference"] = "\n\n".join(texts) if turn else question.reference[0]
    return Prompt(id=prompt_id(messages), messages=tuple(messages), source="mt_bench", meta=meta)


async def sit(
    name: str, suite: MTBench, questions: Sequence[Question], system: str | None, who: "Sitter"
) -> list[Answered]:
    """One model's answers to both turns, in the questions' order; of one it failed to answer, no later turn."""
    said: dict[str, list[str]] = {question.id: [] for question in questions}
    found: list[Answered] = []
    for turn in range(max(len(question.turns) for question in questions)):
        asked = {
            question.id: prompt_of(question, turn, said[question.id], system)
            for question in questions
            if len(said[question.id]) == turn and turn < len(question.turns)
        }
        heats: dict[float, list[Prompt]] = {}
        for question in questions:
            if question.id in asked:
                heat = suite.temperatures.get(question.category, 0.0)
                heats.setdefault(heat, []).append(asked[question.id])
        each = await together(
            who.answers(name, prompts, heat, suite.max_tokens) for heat, prompts in heats.items()
        )
        answers: dict[str, Completion] = {key: one for own in each for key, one in own.items()}
        for question in questions:
            if turn >= len(question.turns):
                continue
            prompt = asked.get(question.id)
            answer = answers.get(prompt.id) if prompt else None
            shown = prompt or prompt_of(question, turn, [], system)
            found.append(Answered(question, turn, shown, answer))
            if answer is not None:
                said[question.id].append(answer.text)
    return found


def to_judge(suite: MTBench, answers: Sequence[Answered]) -> list[ToJudge]:
    """What the judge is shown: every answer there is, with the reference where the question has one."""
    guided = suite.judge.model_copy(update={"prompt": suite.reference_prompt})
    return [
        ToJudge(one, guided if one.question.reference else suite.judge)
        for one in answers
        if one.completion is not None
    ]


def result(questions: Sequence[Question], sheets: Sheets) -> Result:
    """Means of all turns, of each turn and of each category."""
    whole = {model: scored(answers, WORST) for model, answers in sheets.items()}
    values = {"mean": whole}
    for turn in range(max(len(question.turns) for question in questions)):
        values[f"turn {turn + 1}"] = {
            model: {key: value for key, value in own.items() if key[1] == turn}
            for model, own in whole.items()
        }
    return Result(
        kind="mt_bench",
        scale="rating",
        questions=len(questions),
        groups=grouped(whole, {question.id: question.category for question in questions}),
        counts={model: counts_of(answers) for model, answers in sheets.items()},
        **tabled(values),
    )
