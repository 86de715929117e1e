"""How each model is asked for verdicts, found at its first use as a judge and kept in the run's folder.

    <folder>/dialects.json                      model -> where it is, what it can, who says so
    judgements/<fingerprint>/read.json          what the numbers of these judgements are

Where a model is may change between two halves of one run, what its numbers mean may not: judgements that were read
from probabilities are not continued with shares of answers.
"""

import asyncio
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from flows.recipe import RecipeError
from records.store import Stage
from serving.chat import Chat, Reply, Request
from serving.endpoints import key_of
from serving.probe import probe
from serving.settings import Endpoint, Model
from serving.way import Way, declared, needs, reading, through

FILE = "dialects.json"


class Readings:
    """The ways of a run's judge models."""

    def __init__(self, folder: Path, models: Mapping[str, Model]) -> None:
        self._path, self._models = folder / FILE, models
        self._ways: dict[str, asyncio.Task[Way]] = {}
        self._held: dict[str, str] = {}

    @property
    def known(self) -> dict[str, Any]:
        """What the folder says of its judge models."""
        return json.loads(self._path.read_text()) if self._path.exists() else {}

    def chat(self, judge: str, model: str, stage: Stage, chat: Chat) -> Chat:
        """The way to `model` for one judge whose verdicts go to `stage`.

        Raises, at a request:
            RecipeError: the folder's judgements were read in another way.
        """

        async def ask(request: Request) -> Reply:
            if not needs(request):
                return await chat(request)
            if model not in self._ways:
                self._ways[model] = asyncio.ensure_future(self._find(model))
            way = await asyncio.shield(self._ways[model])
            self._hold(judge, model, stage, request, way)
            return await through(chat, way)(request)

        return ask

    def _hold(self, judge: str, model: str, stage: Stage, request: Request, way: Way) -> None:
        how = reading(request, way)
        before = self._held.get(stage.fingerprint)
        if before is None:
            facts = {"judge": judge, "numbers": how, "dialect": way.dialect, "found": way.found}
            before = self._held[stage.fingerprint] = stage.read_as(facts)["numbers"]
        if before != how:
            raise RecipeError(
                f"judge {judge}: {stage.folder} holds judgements read from {before}, and {model!r} would now be read "
                f"from {how}; ask an endpoint that can what the first could, or fix how it is read (`samples` on the "
                "judge, `dialect` on the model), and all is judged anew beside the old"
            )

    async def _find(self, name: str) -> Way:
        model = self._models[name]
        where = model.model_dump(mode="json", include={"model", "base_url"})
        kept = self.known.get(name) or {}
        way = declared(model)
        if way is None and {key: kept.get(key) for key in where} == where and kept.get("found") == "probe":
            way = Way.model_validate({key: kept[key] for key in Way.model_fields})
        if way is None:
            assert isinstance(model, Endpoint)
            way = await probe(model, key_of(name, model))
        self._path.parent.mkdir(parents=True, exist_ok=True)
        part = self._path.with_name(f".{FILE}.part")
        part.write_text(json.dumps(self.known | {name: where | way.model_dump()}, indent=2) + "\n")
        part.replace(self._path)
        return way
