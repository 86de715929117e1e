"""What may be said of a recipe to others: terms of what it uses, and its text without what names this machine."""

import re
from pathlib import PurePath
from typing import Any

import yaml

from flows.recipe import Recipe

PRIVATE = {"env", "key_env", "python"}
"""Fields that say something of the machine alone."""


def licences(recipe: Recipe) -> dict[str, str | None]:
    """Each source of prompts and each model that answered or judged -> its licence as stated; None: nobody said."""
    judging = [member.asks for member in recipe.judges if member.asks]
    models = dict.fromkeys([sampler.model for sampler in recipe.samplers] + judging)
    return {f"prompts of {shown(source.label)}": source.license for source in recipe.prompts} | {
        f"answers and verdicts of {shown(recipe.models[name].model)}": recipe.models[name].license
        for name in models
    }


def shareable(recipe: Recipe) -> str:
    """The recipe's YAML: addresses and what names this machine are left out, paths keep their last part."""
    return yaml.safe_dump(
        plain(recipe.model_dump(mode="json", exclude_none=True)), sort_keys=False, width=110
    )


def shown(text: str) -> str:
    """A name as it is; of a path its last part, of an address nothing."""
    if re.match(r"[a-z0-9+]+://", text):
        return "…"
    return PurePath(text).name if re.match(r"(/|~|[A-Za-z]:\\)", text) else text


def plain(value: Any) -> Any:
    """The same without what names this machine."""
    if isinstance(value, dict):
        return {
            key: plain(inner) for key, inner in value.items() if key not in PRIVATE and inner not in ({}, [])
        }
    if isinstance(value, list):
        return [plain(inner) for inner in value]
    return shown(value) if isinstance(value, str) else value
