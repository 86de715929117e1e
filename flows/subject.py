"""What a judge card is about: a judge and the models it asks, from a recipe or a file of its own. No Prefect here."""

import hashlib
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from pydantic import Field, ValidationError, model_validator

from flows.recipe import Recipe, RecipeError
from flows.recipe_file import explain, load_recipe, read_fields
from judges import JudgeSettings, Jury, panel
from judges.card import judge_fingerprint
from judges.jury import Member
from judges.minimum import CardError, hold_to
from records.base import Strict
from serving.settings import Adapter, Model, Name


class Subject(Strict):
    """A judge with the models it asks."""

    name: str = Field(pattern=r"^[a-z0-9][a-z0-9-]*$", max_length=60)
    """Names the card and its folder."""
    models: dict[Name, Model] = Field(default_factory=dict)
    judge: JudgeSettings

    @model_validator(mode="after")
    def _models_are_there(self) -> "Subject":
        for member in self.jury.members:
            name = model_name(member)
            if name is not None and name not in self.models:
                raise ValueError(
                    f"judge {member.name}.model: {name!r} is not in models ({', '.join(self.models)})"
                )
            member.asked()
            for aspect in member.aspects:
                member.question(aspect)
        return self

    @property
    def jury(self) -> Jury:
        return panel(self.judge)

    @property
    def identities(self) -> dict[str, dict[str, Any]]:
        """What each asked model is, by its name here."""
        names = [name for member in self.jury.members if (name := model_name(member))]
        return {name: self.models[name].identity for name in names}

    @property
    def fingerprint(self) -> str:
        return judge_fingerprint(self.jury, self.identities)

    @property
    def served(self) -> dict[str, Model]:
        """The models that must be up."""
        used = set(self.identities)
        used |= {model.served_by for name in used if isinstance(model := self.models[name], Adapter)}
        return {name: model for name, model in self.models.items() if name in used}


def model_name(member: Member) -> str | None:
    """The recipe's model that a judge asks; None for one that asks none."""
    return member.asks


def subject_of(recipe: Recipe) -> Subject:
    """Raises: RecipeError, where the recipe has no judge."""
    if recipe.judge is None:
        raise RecipeError(f"recipe {recipe.name!r} has no judge")
    return Subject(name=recipe.name, models=recipe.models, judge=recipe.judge)


def load_subject(path: Path, overrides: Sequence[str] = ()) -> Subject:
    """The judge of a recipe, or of a file that has only `name`, `models` and `judge`.

    Raises:
        RecipeError: it cannot be read, or a field has a wrong value; names each field.
    """
    fields = read_fields(path, overrides)
    if "samplers" in fields or "prompts" in fields:
        return subject_of(load_recipe(path, overrides))
    fields.setdefault("name", path.stem)
    try:
        return Subject.model_validate(fields)
    except ValidationError as error:
        raise RecipeError(f"{path}:\n{explain(error)}") from error


def check_judge(recipe: Recipe) -> None:
    """Raises: RecipeError, where the recipe has a minimum and its judge no card that reaches it."""
    minimum = recipe.judge_minimum
    if minimum is None:
        return
    digest = None
    if minimum.gold is not None:
        try:
            digest = hashlib.sha256(minimum.gold.read_bytes()).hexdigest()
        except OSError as error:
            raise RecipeError(
                f"judge_minimum.gold: {str(minimum.gold)!r} cannot be read: {error.strerror}"
            ) from error
    try:
        hold_to(minimum, subject_of(recipe).fingerprint, digest)
    except CardError as error:
        raise RecipeError(f"judge_minimum: {error}") from error
