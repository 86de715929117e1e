"""A run's dataset and models go to the Hub as they are, with a card that says how they were made."""

import json
import os
import re
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml

from flows.imports import import_dataset
from flows.preferences import build_preferences
from flows.recipe import Recipe
from flows.recipe_file import load_recipe
from tests.fake_model import fake_model
from tests.flows.fakes import answer, recipe
from tests.standin_hub import Hub, standin_hub
from tests.ultrafeedback_file import clean, write

ROOT = Path(__file__).parent.parent.parent


@pytest.fixture
def hub() -> Iterator[Hub]:
    with standin_hub() as hub:
        yield hub


def export(run: Path, url: str, *arguments: str) -> tuple[int, dict[str, Any]]:
    env = os.environ | {
        "HF_ENDPOINT": url,
        "HF_TOKEN": "hf_test",
        "HF_HUB_OFFLINE": "0",
        "PYTHONPATH": str(ROOT),
        "HF_HUB_DISABLE_XET": "1",
    }
    command = [sys.executable, "-m", "flows.cli", "export", str(run), *arguments, "--json"]
    done = subprocess.run(command, cwd=ROOT, env=env, capture_output=True, text=True, timeout=100)
    return done.returncode, json.loads(done.stdout.splitlines()[-1])


async def test_dataset_and_models_are_published_with_their_cards_and_nothing_else(tmp_path: Path, hub: Hub):
    found = import_dataset(str(write(tmp_path / "uf.jsonl", [clean(i) for i in range(8)])), "uf", tmp_path)
    await build_preferences(load_recipe(Path(found["recipe"])), tmp_path)
    run, model = tmp_path / "uf", tmp_path / "uf/models/dpo"
    model.mkdir(parents=True)
    for name in ("model.json", "README.md", "train.log", "x.partial"):
        (model / name).write_text("{}")
    hub.files["me/uf"] = {"data/stale_prefs.parquet": b"old", "kept.txt": b"theirs"}
    code, said = export(run, hub.url, "--push", "me/uf")
    assert code == 0, said
    assert {repo: (made["type"], made["visibility"]) for repo, made in hub.made.items()} == {
        "me/uf": ("dataset", "private"), "me/uf-dpo": ("model", "private")
    }  # fmt: skip
    ours = {
        str(p.relative_to(run / "dataset")): p.read_bytes()
        for p in (run / "dataset").rglob("*")
        if p.is_file()
    }
    assert hub.files["me/uf"] == ours | {"kept.txt": b"theirs"}
    assert set(hub.files["me/uf-dpo"]) == {"model.json", "README.md"}
    assert hub.tokens == {"Bearer hf_test"} and len(said["pushed"]) == 2
    export(run, hub.url, "--push", "me/open", "--public")
    assert hub.made["me/open"]["visibility"] == "public"


async def test_what_cannot_be_published_says_why_and_keeps_the_rest(tmp_path: Path, hub: Hub):
    run = tmp_path / "run"
    run.mkdir()
    for arguments, wanted in (
        (("--push", "no-owner"), "wanted OWNER/NAME"),
        (("--push", "me/run"), "has no dataset"),
        ((), "give a folder to copy to, or --push"),
    ):
        code, said = export(run, hub.url, *arguments)
        assert code == 2 and wanted in said["error"]
    assert not hub.made
    (run / "dataset").mkdir()
    (run / "dataset/README.md").write_text("---\nlicense: mit\n---\n")
    hub.refuse = True
    code, said = export(run, hub.url, "--push", "me/run")
    assert code == 2 and "--push me/run" in said["error"] and "403" in said["error"]


async def test_the_card_has_licences_and_a_recipe_that_loads_and_names_no_address(
    tmp_path: Path, prompt_file: Path
):
    with fake_model(answer) as fake:
        fields = recipe(fake.url, prompt_file).model_dump(mode="json")
        fields["prompts"][0]["license"] = "cc-by-4.0"
        fields["models"]["fake"] |= {"license": "apache-2.0", "key_env": "SECRET_KEY"}
        os.environ["SECRET_KEY"] = "very secret"
        try:
            await build_preferences(Recipe.model_validate(fields), tmp_path)
        finally:
            del os.environ["SECRET_KEY"]
        card = (tmp_path / "flowtest/dataset/README.md").read_text()
        assert fake.url not in card
    assert "SECRET_KEY" not in card and "very secret" not in card and str(tmp_path) not in card
    assert "| prompts | cc-by-4.0 |" in card
    assert card.count("| apache-2.0 |") == 3, "two samplers and the judge that asks a model"
    text = re.search(r"```yaml\n(.*?)```", card, re.DOTALL)
    assert text is not None
    again = yaml.safe_load(text[1])
    assert again["prompts"][0]["file"] == "prompts.jsonl" and again["models"]["fake"]["base_url"] == "…"
    again["models"]["fake"]["base_url"] = "http://127.0.0.1:1/v1"
    loaded = Recipe.model_validate(again)
    assert loaded.jury == Recipe.model_validate(fields).jury
    assert loaded.pairs == Recipe.model_validate(fields).pairs
