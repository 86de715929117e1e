"""From a recipe's file to a `Recipe`: replacements, files beside it, and errors that name each field."""

import re
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import yaml
from pydantic import ValidationError

from flows.recipe import Recipe, RecipeError
from pairs.training_data import DATA

FILES = (
    "prompts.*.file",
    "cleaning.benchmarks.*.file",
    "judge_minimum.card",
    "judge_minimum.gold",
    *(f"training.{data}.file" for data in sorted(set(DATA.values()))),
    "training.pretrain.files.*",
    "training.pretrain.held_out.*",
    *(f"benchmark.suites.*.{field}" for field in ("questions", "references", "baseline", "calibration")),
)
"""Fields that are paths and are looked for beside the recipe first; * is every item."""


class _Loader(yaml.SafeLoader):
    """YAML in which a key written twice is an error, not the last one."""

    def construct_mapping(self, node: Any, deep: bool = False) -> dict[Any, Any]:
        seen = set()
        for key, _ in node.value:
            if key.value in seen:
                raise yaml.constructor.ConstructorError(
                    None, None, f"key {key.value!r} stands twice", key.start_mark
                )
            seen.add(key.value)
        return super().construct_mapping(node, deep)


def load_recipe(path: Path, overrides: Sequence[str] = ()) -> Recipe:
    """A recipe file, with `a.b=c` replacements; values are YAML, list items are named by their place.

    Raises:
        RecipeError: the file or an override cannot be read, or a field has a wrong value; names each field.
    """
    data = read_fields(path, overrides)
    for holder, key in _files(data):
        if isinstance(holder[key], str) and not Path(holder[key]).is_absolute():
            beside = path.parent / holder[key]
            holder[key] = str(beside) if beside.is_file() else holder[key]
    try:
        return Recipe.model_validate(data)
    except ValidationError as error:
        raise RecipeError(f"{path}:\n{explain(error)}") from error


def read_fields(path: Path, overrides: Sequence[str] = ()) -> dict[str, Any]:
    """A YAML file's fields, with `a.b=c` replacements.

    Raises:
        RecipeError: the file or an override cannot be read.
    """
    try:
        data = yaml.load(path.read_text(), _Loader)
    except FileNotFoundError as error:
        near = sorted(str(p) for p in Path("recipes").glob("*.yaml"))
        raise RecipeError(f"no recipe {str(path)!r}; recipes/ holds {', '.join(near) or 'none'}") from error
    except (OSError, UnicodeDecodeError, yaml.YAMLError) as error:
        raise RecipeError(f"{path} is not readable YAML: {_one_line(error)}") from error
    if not isinstance(data, dict):
        raise RecipeError(f"{path} must hold fields (name: …), not {type(data).__name__}")
    for override in overrides:
        _replace(data, override)
    return data


def explain(error: ValidationError) -> str:
    """One line per wrong field: where, what was wanted, what came."""
    wanted: dict[str, dict[str, str]] = {}
    for problem in error.errors():
        # a union adds its branches to the place: `literal['sigmoid',…]`, `dict[…]`, `str`
        parts = [
            str(part) for part in problem["loc"] if not re.search(r"[\[(]|^(str|dict|int|float)$", str(part))
        ]
        message = problem["msg"].removeprefix("Value error, ")
        if problem["type"] == "extra_forbidden":
            message = "unknown key; it is not a field here"
        came, silent = problem["input"], problem["type"] in ("missing", "value_error")
        got = "" if silent or isinstance(came, dict | list) else f" (got {came!r})"
        wanted.setdefault(".".join(parts) or "recipe", {})[message] = got
    return "\n".join(
        f"  {where}: {'; or: '.join(messages)}{next(iter(messages.values()))}"
        for where, messages in wanted.items()
    )


def _one_line(error: Exception) -> str:
    return " ".join(str(error).split())


def _replace(data: dict[str, Any], override: str) -> None:
    match = re.fullmatch(r"([\w.-]+)=(.*)", override, re.DOTALL)
    if match is None:
        raise RecipeError(f"--set {override!r} must be path=value, as in --set pairs.min_margin=0.2")
    *parents, last = match[1].split(".")
    try:
        value = yaml.safe_load(match[2])
        here: Any = data
        for part in parents:
            here = here[int(part)] if isinstance(here, list) else here.setdefault(part, {})
        if isinstance(here, list):
            here[int(last)] = value
        else:
            here[last] = value
    except (IndexError, ValueError, TypeError, AttributeError, yaml.YAMLError) as error:
        raise RecipeError(f"--set {override!r}: no such place in the recipe ({_one_line(error)})") from error


def _files(data: dict[str, Any]) -> Iterator[tuple[Any, Any]]:
    """Each path that is there: what holds it, and under which key."""
    for place in FILES:
        yield from _at(data, place.split("."))
    for kind in sorted(set(DATA.values())):
        for holder, _ in _at(data, ["training", kind, "file"]):
            if holder["file"]:  # a split of the Hub has a name, not a path
                yield from _at(holder, ["test"])


def _at(holder: Any, parts: Sequence[str]) -> Iterator[tuple[Any, Any]]:
    """Every place that a path through dicts and lists comes to; where it leads nowhere, none."""
    first, *others = parts
    keys: list[Any] = [first] if isinstance(holder, dict) and first in holder else []
    if first == "*":
        keys = (
            [*holder]
            if isinstance(holder, dict)
            else [*range(len(holder) if isinstance(holder, list) else 0)]
        )
    for key in keys:
        if others:
            yield from _at(holder[key], others)
        else:
            yield holder, key
