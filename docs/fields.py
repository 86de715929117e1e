"""Write the field tables of docs/recipes.md from the settings' own types and docstrings.

python docs/fields.py
"""

import sys
import types
import typing
from pathlib import Path
from typing import Any

from annotated_types import Ge, Gt, Le, Lt, MaxLen, MinLen
from pydantic import BaseModel
from pydantic.fields import FieldInfo
from pydantic_core import PydanticUndefined

ROOT = Path(__file__).parent.parent
PAGE = ROOT / "docs/recipes.md"
BEGIN, END = "<!-- fields: written by docs/fields.py -->\n", "<!-- end of fields -->\n"

if __name__ == "__main__":  # run from a checkout, as the tests are
    sys.path.insert(0, str(ROOT))


def settings(kind: Any) -> list[type[BaseModel]]:
    """Every settings class inside `kind`, in reading order."""
    found: list[type[BaseModel]] = []

    def visit(inner: Any) -> None:
        if isinstance(inner, type) and issubclass(inner, BaseModel) and inner not in found:
            found.append(inner)
            for field in inner.model_fields.values():
                visit(field.annotation)
        for part in typing.get_args(inner):
            visit(part)

    visit(kind)
    return found


def title(kind: type[BaseModel]) -> str:
    """`kind: rating` for a class chosen by its kind, else its name."""
    chosen = kind.model_fields.get("kind")
    return f"kind: {chosen.default}" if chosen and chosen.default is not PydanticUndefined else kind.__name__


def anchor(kind: type[BaseModel]) -> str:
    """How Markdown names the section."""
    return title(kind).lower().replace(":", "").replace(" ", "-")


def words(kind: Any) -> str:
    """A type as people say it."""
    origin, parts = typing.get_origin(kind), typing.get_args(kind)
    if origin is typing.Literal:
        return ", ".join(f"`{part}`" for part in parts)
    if origin is typing.Annotated:
        return words(parts[0])
    if origin in (typing.Union, types.UnionType):
        return " or ".join(words(part) for part in parts if part is not type(None))
    if origin is tuple:
        return f"list of {words(parts[0])}"
    if origin is dict:
        return f"{words(parts[0])} -> {words(parts[1])}"
    if isinstance(kind, type) and issubclass(kind, BaseModel):
        return f"[{title(kind)}](#{anchor(kind)})"
    return {str: "text", int: "whole number", float: "number", bool: "true or false"}.get(kind, str(kind))


def bounds(field: FieldInfo) -> str:
    said = []
    for rule in field.metadata:
        match rule:
            case Ge():
                said.append(f"{rule.ge:g} or more")
            case Gt():
                said.append(f"above {rule.gt:g}")
            case Le():
                said.append(f"at most {rule.le:g}")
            case Lt():
                said.append(f"below {rule.lt:g}")
            case MinLen():
                said.append(f"at least {rule.min_length}")
            case MaxLen():
                said.append(f"at most {rule.max_length} long")
            case _ if getattr(rule, "pattern", None):
                said.append(f"`{rule.pattern}`")
    return "".join(f", {one}" for one in said)


def default(field: FieldInfo) -> str:
    if field.is_required():
        return "**required**"
    if field.default_factory is not None:
        made = field.default_factory()  # type: ignore[call-arg]
        return "`{}`" if made == {} else "usable cores" if isinstance(made, int) else f"`{made}`"
    value = field.default
    if value is None or value == "" or value == ():
        return "–"
    if isinstance(value, BaseModel):
        return "its defaults"
    if isinstance(value, bool):
        return f"`{str(value).lower()}`"
    if isinstance(value, tuple):
        return f"`[{', '.join(map(str, value))}]`"
    return f"`{value:g}`" if isinstance(value, float) else f"`{value}`"


def meaning(kind: type[BaseModel], name: str) -> str:
    """The field's docstring, or that of the class it is inherited from."""
    for parent in kind.__mro__:
        if issubclass(parent, BaseModel) and name in parent.model_fields:
            said = parent.model_fields[name].description
            if said:
                return " ".join(said.split())
    return ""


def table(kind: type[BaseModel]) -> list[str]:
    lines = [f"### {title(kind)}", ""]
    if kind.__doc__:
        lines += [" ".join(kind.__doc__.split()), ""]
    lines += ["| field | value | default | meaning |", "| --- | --- | --- | --- |"]
    for name, field in kind.model_fields.items():
        cells = (f"`{name}`", words(field.annotation) + bounds(field), default(field), meaning(kind, name))
        lines.append("| " + " | ".join(cell.replace("|", "\\|") for cell in cells) + " |")
    return [*lines, ""]


def reference() -> str:
    """The section of docs/recipes.md between the two marks."""
    from flows.recipe import Recipe

    lines = [line for kind in settings(Recipe) for line in table(kind)]
    return BEGIN + "\n" + "\n".join(lines) + END


def page(text: str) -> str:
    """The page with its field tables as the code has them now."""
    before, rest = text.split(BEGIN)
    return before + reference() + rest.split(END)[1]


if __name__ == "__main__":
    PAGE.write_text(page(PAGE.read_text(encoding="utf-8")), encoding="utf-8")
