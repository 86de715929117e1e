"""`zephyr gc`: what nothing needs any more is found, the rest stays, and nothing goes without being told to."""

import os
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

from flows.garbage import collect_garbage, garbage_text
from flows.preferences import build_preferences
from tests.fake_model import fake_model
from tests.flows.fakes import answer, recipe


def age(folder: Path, days: float) -> None:
    then = time.time() - days * 86_400
    for path in [folder, *folder.rglob("*")]:
        os.utime(path, (then, then))


def found(out: Path, **more: Any) -> dict[str, set[str]]:
    by_why: dict[str, set[str]] = {}
    for each in collect_garbage(out, 14, **more)["found"]:
        by_why.setdefault(each["why"], set()).add(Path(each["path"]).name)
    return by_why


async def test_answers_that_the_recipe_does_not_ask_for_any_more_go_and_those_it_uses_stay(
    tmp_path: Path, prompt_file: Path
):
    with fake_model(answer) as fake:
        settings = recipe(fake.url, prompt_file)
        await build_preferences(settings, tmp_path)
        run = tmp_path / "flowtest"
        before = {folder.name for folder in run.glob("completions/*/")}
        fewer = settings.model_copy(update={"seed": 5})
        made = await build_preferences(fewer, tmp_path)
        now = {folder.name for folder in run.glob("completions/*/")} - before
        assert len(before) == len(now) == 2
        unfinished = run / "models" / "sft.partial"
        unfinished.mkdir(parents=True)
        (unfinished / "weights").write_bytes(bytes(1000))
        assert not found(tmp_path), "all of it is new"

        age(run, 20)
        by_why = found(tmp_path)
        assert by_why["orphaned"] >= before and not by_why["orphaned"] & now
        assert "unfinished" not in by_why, "its model is not there: it goes on from these checkpoints"
        (run / "models" / "sft").mkdir()
        (run / "models" / "sft" / "model.json").write_text("{}")
        assert found(tmp_path)["unfinished"] == {"sft.partial"}
        assert all((run / "completions" / name).exists() for name in before), "a look removes nothing"

        removed = collect_garbage(tmp_path, 14, delete=True)
        assert removed["bytes"] > 1000 and "removed" in garbage_text(removed)
        assert {folder.name for folder in run.glob("completions/*/")} == now
        assert not found(tmp_path)
        asked = len(fake.asked)
        assert (await build_preferences(fewer, tmp_path))["dataset"] == made["dataset"]
        assert len(fake.asked) == asked, "nothing that the run needs was gone"


async def test_a_run_at_work_and_a_recipe_of_another_time_are_left_alone(tmp_path: Path, prompt_file: Path):
    with fake_model(answer) as fake:
        await build_preferences(recipe(fake.url, prompt_file), tmp_path)
    other = tmp_path / "older"
    (other / "completions" / "abc").mkdir(parents=True)
    (other / "recipe.yaml").write_text("name: older\nwhat_was: once\n")
    age(tmp_path, 20)
    looked = collect_garbage(tmp_path, 14, delete=True)
    assert "what_was" in looked["skipped"][str(other)] and (other / "completions" / "abc").exists()
    hold = (
        "import pathlib, sys; from records.lock import exclusive\n"
        "with exclusive(pathlib.Path(sys.argv[1])): print(1, flush=True); input()"
    )
    at_work = subprocess.Popen(
        [sys.executable, "-c", hold, str(tmp_path / "flowtest")],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
    )
    assert at_work.stdout is not None and at_work.stdout.readline()
    assert "in use by process" in collect_garbage(tmp_path, 0)["skipped"][str(tmp_path / "flowtest")]
    at_work.communicate(b"\n")
