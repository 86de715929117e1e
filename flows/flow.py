"""What all flows have in common: how they are given a recipe, and how they are stopped."""

from collections.abc import Callable, Coroutine
from pathlib import Path
from typing import Annotated, Any, ParamSpec, TypeVar

import prefect
from pydantic import GetCoreSchemaHandler, GetJsonSchemaHandler
from pydantic.json_schema import JsonSchemaValue
from pydantic_core import CoreSchema, core_schema

from flows import telemetry
from flows.closed import close_schemas
from flows.recipe import Recipe
from flows.recipe_file import load_recipe
from flows.stopping import stoppable

P = ParamSpec("P")
R = TypeVar("R")


def flow(
    *, name: str, flow_run_name: str
) -> Callable[[Callable[P, Coroutine[Any, Any, R]]], prefect.Flow[P, Coroutine[Any, Any, R]]]:
    """A Prefect flow that a signal stops at once, wherever it comes."""

    def made(body: Callable[P, Coroutine[Any, Any, R]]) -> prefect.Flow[P, Coroutine[Any, Any, R]]:
        return prefect.flow(name=name, flow_run_name=flow_run_name)(stoppable(body))

    return made


class FromFile:
    """A recipe may also be given as the path of its file, on the machine that runs it."""

    def __get_pydantic_core_schema__(self, source: Any, handler: GetCoreSchemaHandler) -> CoreSchema:
        def read(given: Any) -> Any:
            return load_recipe(Path(given)) if isinstance(given, str) else given

        return core_schema.no_info_before_validator_function(read, handler(source))

    def __get_pydantic_json_schema__(
        self, schema: CoreSchema, handler: GetJsonSchemaHandler
    ) -> JsonSchemaValue:
        file = {
            "type": "string",
            "title": "Recipe file",
            "description": "Path of a recipe, on the machine that runs it: recipes/quickstart.yaml",
            "pattern": r"\.ya?ml$",
        }
        return {"anyOf": [file, handler(schema)]}


Given = Annotated[Recipe, FromFile()]
"""A flow's recipe."""


close_schemas()
telemetry.start()  # before Prefect begins a run, whose spans are its own
