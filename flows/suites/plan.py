"""What a recipe's suites will ask, for the plan. Reads the question files, and asks nothing. No Prefect here."""

from flows.recipe import Recipe
from flows.suites.read import read


def suite_lines(recipe: Recipe) -> list[str]:
    """A line for each suite.

    Raises:
        RecipeError, PromptError: a file of a suite cannot be read, or lacks what the suite needs.
    """
    asked = recipe.benchmark
    if asked is None:
        return []
    trained = sum(bool(getattr(recipe.training, stage, None)) for stage in ("sft", "dpo", "rlhf"))
    models = (1 + trained if asked.base else 0) + len(asked.models)
    who = "1 model" if models == 1 else f"{models} models"
    lines = []
    for name, suite in asked.suites.items():
        exam = read(name, suite, recipe.seed)
        answers = sum(len(question.turns) for question in exam.questions) or len(exam.prompts)
        if not answers:
            lines.append(f"{name}: tasks of lm-evaluation-harness, by {who}")
            continue
        judge = asked.judges.get(name)
        each = 2 if judge and judge.scope == "prompt" else 1
        judging = (
            f", {answers * models * each:,} requests to {judge.model}" if judge else ", nothing to a judge"
        )
        lines.append(f"{name}: {answers:,} answers by {who}{judging}")
    return lines
