"""The rooms and their doors: who may import whom, what stays out of start-up, what explains itself."""

import ast
import importlib.metadata
import subprocess
import sys
import tomllib
import typing
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from flows.recipe import Recipe
from records.base import Strict

ROOT = Path(__file__).parent.parent
LAYERS = (
    ("flows",),
    ("reports", "trainers", "pairs", "judges", "oracle"),
    ("serving", "prompts"),
    ("records",),
)
"""Imports go from left to right, and never to a neighbour of the same layer."""
FOLDERS = [folder for layer in LAYERS for folder in layer]
MODULES = sorted(path for folder in FOLDERS for path in (ROOT / folder).rglob("*.py"))

HEAVY = ("torch", "transformers", "trl", "peft", "datasets", "vllm", "pandas", "xllamacpp", "prefect")
"""What `zephyr --help` must not wait for."""

SELF_EXPLANATORY = {
    "kind",
    "name",
    "description",
    "seed",
    "stop",
    "dtype",
    "requests_per_minute",
    "start_timeout",
}
SECTIONS = {"models", "judge", "pairs", "training", "evaluation", "sft", "dpo", "members"}
"""Fields whose types are settings of their own, explained there."""


def name_of(path: Path) -> str:
    return path.relative_to(ROOT).as_posix()


def imports(path: Path) -> Iterator[tuple[int, str]]:
    """Line and full name of everything a file imports, inside functions too."""
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            yield from ((node.lineno, alias.name) for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            package = path.relative_to(ROOT).parts[: -node.level] if node.level else ()
            yield node.lineno, ".".join((*package, *filter(None, [node.module])))


def allowed(folder: str) -> set[str]:
    (depth,) = (i for i, layer in enumerate(LAYERS) if folder in layer)
    return {folder, *(below for layer in LAYERS[depth + 1 :] for below in layer)}


def test_every_folder_of_the_application_has_its_place_among_the_layers():
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())
    assert sorted(FOLDERS) == sorted(project["tool"]["hatch"]["build"]["targets"]["wheel"]["packages"])


@pytest.mark.parametrize("folder", FOLDERS)
def test_imports_point_one_way(folder: str):
    outside = [*FOLDERS, "tests", "benchmarks"]
    wrong = [
        f"{name_of(path)}:{line} imports {name}"
        for path in sorted((ROOT / folder).rglob("*.py"))
        for line, name in imports(path)
        if (top := name.split(".")[0]) in outside and top not in allowed(folder)
    ]
    assert not wrong, f"{folder} may import {', '.join(sorted(allowed(folder)))}"


def test_only_flows_imports_prefect():
    wrong = [
        f"{name_of(path)}:{line}"
        for path in MODULES
        if path.relative_to(ROOT).parts[0] != "flows"
        for line, name in imports(path)
        if name.split(".")[0] == "prefect"
    ]
    assert not wrong


def test_the_command_starts_without_the_heavy_libraries():
    look = f"import sys, flows, flows.cli, flows.recipe; print(*sorted(set({HEAVY!r}) & set(sys.modules)))"
    found = subprocess.run([sys.executable, "-c", look], cwd=ROOT, capture_output=True, text=True, check=True)
    assert found.stdout.split() == []


def test_the_flows_load_no_training_or_serving_library():
    heavy = set(HEAVY) - {"prefect", "pandas"}
    look = f"import sys, flows.zephyr; print(*sorted({heavy!r} & set(sys.modules)))"
    found = subprocess.run([sys.executable, "-c", look], cwd=ROOT, capture_output=True, text=True, check=True)
    assert found.stdout.split() == []


def test_no_folder_hides_a_library():
    installed = {
        name: owners
        for name, owners in importlib.metadata.packages_distributions().items()
        if "zephyr-flows" not in owners
    }
    taken = {*installed, *sys.stdlib_module_names, "vllm", "evaluate"}
    ours = {path.parent.name for path in ROOT.glob("*/*.py")} | {path.stem for path in ROOT.glob("*.py")}
    assert not (ours - {"tests", "docs", "benchmarks"}) & taken


@pytest.mark.parametrize("path", MODULES, ids=name_of)
def test_every_module_says_what_it_is(path: Path):
    assert ast.get_docstring(ast.parse(path.read_text(encoding="utf-8"))), (
        f"{name_of(path)} opens without a docstring"
    )


def settings(kind: Any, found: dict[str, type[Strict]] | None = None) -> dict[str, type[Strict]]:
    """Every settings class that a recipe can hold, by name."""
    found = {} if found is None else found
    if isinstance(kind, type) and issubclass(kind, Strict) and kind.__name__ not in found:
        found[kind.__name__] = kind
        for field in kind.model_fields.values():
            settings(field.annotation, found)
    for inner in typing.get_args(kind):
        settings(inner, found)
    return found


def explained(kind: type[Strict], field: str) -> bool:
    """Here, or in the class the field is inherited from."""
    parents = [parent for parent in kind.__mro__ if issubclass(parent, Strict)]
    return any(field in parent.model_fields and parent.model_fields[field].description for parent in parents)


@pytest.mark.parametrize("kind", settings(Recipe).values(), ids=lambda kind: kind.__name__)
def test_every_field_of_a_recipe_is_explained(kind: type[Strict]):
    silent = {name for name in kind.model_fields if not explained(kind, name)}
    assert not silent - SELF_EXPLANATORY - SECTIONS, f"{kind.__name__} has fields without a docstring"
