"""A model is tried once, what was found is kept, and one folder's judgements are read in one way."""

import json
from pathlib import Path
from typing import Any

import pytest

from flows.readings import Readings
from flows.recipe import RecipeError
from judges import Rating
from records.store import Stage
from serving.client import PlainTransport
from serving.settings import Endpoint
from tests.fake_model import Fake, fake_model
from tests.judges.examples import completion, prompt
from tests.serving.test_way import hosted, silent


async def judge(fake: Fake, folder: Path, stage: Stage, settings: Rating | None = None) -> Any:
    models = {"m": Endpoint(model="fake", base_url=fake.url)}
    transport = PlainTransport(fake.url, "fake", "openai", None, 20, 4)
    try:
        chat = Readings(folder, models).chat("rating", "m", stage, transport.ask)
        (verdict,) = await (settings or Rating(model="m")).build(chat)(prompt(), [completion("a")], "quality")
        return verdict
    finally:
        await transport.close()


async def test_an_endpoint_is_tried_once_and_another_address_again(tmp_path: Path):
    stage = Stage(tmp_path, "judgements", {"judge": 1})
    with fake_model(hosted) as fake:
        assert (await judge(fake, tmp_path, stage)).score == pytest.approx((4 * 0.5 + 2 * 0.25) / 0.75)
        assert len(fake.asked) == 3
        await judge(fake, tmp_path, stage)
        assert len(fake.asked) == 4, "what was found is kept in the folder"
    kept = json.loads((tmp_path / "dialects.json").read_text())["m"]
    assert (kept["dialect"], kept["logprobs"], kept["found"]) == ("openai", "likeliest", "probe")
    read = json.loads((Path(stage.folder) / "read.json").read_text())
    assert read["numbers"] == "probabilities"
    with fake_model(hosted) as moved:
        await judge(moved, tmp_path, stage)
        assert len(moved.asked) == 3


async def test_judgements_read_from_probabilities_are_not_continued_with_counts(tmp_path: Path):
    stage = Stage(tmp_path, "judgements", {"judge": 1})
    with fake_model(hosted) as fake:
        await judge(fake, tmp_path, stage)
    with fake_model(silent) as other:
        with pytest.raises(RecipeError, match=r"read from probabilities, .* from shares of 8 answers"):
            await judge(other, tmp_path, Stage(tmp_path, "judgements", {"judge": 1}))
        assert len(other.asked) == 2, "only the two requests that tell"
        anew = Stage(tmp_path, "judgements", {"judge": 1, "samples": 8})
        assert (await judge(other, tmp_path, anew, Rating(model="m", samples=8))).status == "ok"
