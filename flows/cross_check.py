"""Whether the winners of best-of-n are better in the eyes of a judge that did not pick them.

A judge that picks raises its own mean, whatever it is worth. Here another judge scores every candidate, and the winners
are put against the mean of the same candidates, which is what choosing at random gives on average, and against one
that is really chosen at random.
"""

from collections.abc import Sequence
from typing import Any

from flows.answers import Answers
from flows.collect import answer_and_judge
from flows.dataset import Judged, judged_prompts
from flows.gpus import hold
from flows.inputs import Prompts, models_of
from flows.load import metered
from flows.progress import display
from flows.recipe import Recipe, RecipeError
from flows.run import Run
from flows.subject import Subject
from judges.jury import Member
from judges.rules import Rules
from pairs.best_of_n import SftRow, best_of_n
from pairs.candidates import draw
from records.stats import Estimate, mean
from serving.models import open_models


def with_judge(recipe: Recipe, other: Subject) -> Recipe:
    """The recipe with the other's judge in its own's place.

    Raises:
        RecipeError: one judge is in both, or one name stands for two models.
    """
    for name in recipe.models.keys() & other.models.keys():
        if recipe.models[name].identity != other.models[name].identity:
            raise RecipeError(f"models.{name} of {other.name} is not {name} of {recipe.name}; rename one")
    changed = recipe.model_dump() | {
        "models": {**other.models, **recipe.models},
        "judge": other.judge,
        "judge_minimum": None,
    }
    checking = Recipe.model_validate(changed)
    both = [
        one.name
        for one in checking.jury.members
        for own in recipe.jury.members
        if _asked(checking, one) == _asked(recipe, own) or _share_rules(one, own)
    ]
    if both:
        raise RecipeError(
            f"the checking judge {', '.join(both)} is one of those that picked, so its mean would rise by itself; "
            "give --check-with another wording, model or rule"
        )
    return checking


def _share_rules(one: Member, other: Member) -> bool:
    """Whether both look at the same kind of constraint."""
    if not isinstance(one, Rules) or not isinstance(other, Rules):
        return False
    return one.only is None or other.only is None or bool(set(one.only) & set(other.only))


def _asked(recipe: Recipe, member: Member) -> tuple[Any, ...]:
    questions = [member.question(aspect) for aspect in member.aspects]
    asked = {field: value for field, value in member.asked().items() if field != "name"}
    return asked, questions, recipe.models[member.asks].identity if member.asks else None


async def cross_check(run: Run, other: Subject, prompts: Prompts, answers: list[Answers]) -> dict[str, Any]:
    """The other judge's view of every winner, in its own points. Asks it only for what it has not judged yet."""
    checking = Run(with_judge(run.recipe, other), run.folder, run.store)
    async with (
        open_models(models_of(checking.recipe), run.servers, display().say, hold=hold) as engine,
        metered(engine, run.folder, "check"),
    ):
        seen = await answer_and_judge(
            checking, run.recipe.samplers, prompts, engine, rounds=answers[0].rounds
        )
    picked = judged_prompts(run, prompts, answers)
    return compare(run.recipe, picked, judged_prompts(checking, prompts, seen)) | {"by": other.name}


def compare(recipe: Recipe, picked: Sequence[Judged], checked: Sequence[Judged]) -> dict[str, Any]:
    """Winners against random choice, as the second judge scores them; intervals bootstrapped over prompts.

    A prompt counts where it has a winner that the second judge could judge, and another candidate too.
    """
    views: dict[str, list[float]] = {"winner": [], "random": [], "mean": [], "best": []}
    ids, sizes = [], []
    for one, other in zip(picked, checked, strict=True):
        row = best_of_n(one.prompt, one.candidates, recipe.best_of_n, recipe.pairs)
        if not isinstance(row, SftRow):
            continue
        scores = {c.completion.id: c.score for c in other.candidates if c.score is not None}
        pool = [c for c in one.candidates if c.completion.id in {s.completion_id for s in row.scores}]
        known = [scores[c.completion.id] for c in pool if c.completion.id in scores]
        if row.completion.id not in scores or len(known) < 2:
            continue
        by_chance = draw(
            one.prompt, [c for c in pool if c.completion.id in scores], recipe.seed, "random choice"
        )
        views["winner"].append(scores[row.completion.id])
        views["random"].append(scores[by_chance.completion.id])
        views["mean"].append(sum(known) / len(known))
        views["best"].append(max(known))
        ids.append(one.prompt.id)
        sizes.append(len(known))

    def figure(values: list[float]) -> dict[str, Any] | None:
        found: Estimate | None = mean(values, ids) if ids else None
        return found.model_dump() if found else None

    def against(name: str) -> list[float]:
        return [a - b for a, b in zip(views[name], views["mean"], strict=True)]

    return {
        "prompts": len(ids),
        "candidates": sum(sizes) / len(sizes) if sizes else None,
        **{name: figure(values) for name, values in views.items()},
        "gain": figure(against("winner")),
        "random_gain": figure(against("random")),
    }
