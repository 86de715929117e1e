"""The command `zephyr`, as a shell sees it: help, exit codes, and one JSON object for machines."""

import json
import os
import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import yaml
from typer import Exit
from typer.main import get_command
from typer.testing import CliRunner

from flows.cli import app
from flows.commands.console import answer

ROOT = Path(__file__).parent.parent
QUICKSTART = "recipes/quickstart.yaml"
VERBS: list[str] = sorted(get_command(app).commands)  # type: ignore[attr-defined]


def zephyr(*arguments: str, cwd: Path = ROOT) -> subprocess.CompletedProcess[str]:
    env = os.environ | {"PYTHONPATH": str(ROOT), "COLUMNS": "200", "NO_COLOR": "1", "TERM": "dumb"}
    command = [sys.executable, "-m", "flows.cli", *arguments]
    return subprocess.run(command, cwd=cwd, env=env, capture_output=True, text=True, timeout=100)


def only_object(done: subprocess.CompletedProcess[str]) -> dict[str, Any]:
    """The last line of stdout, which must be the only one that is JSON."""
    lines = done.stdout.splitlines()
    assert lines, done.stderr
    assert not any(line.startswith("{") for line in lines[:-1]), "more than one JSON object on stdout"
    found = json.loads(lines[-1])
    assert isinstance(found, dict)
    return found


def test_help_lists_every_verb():
    done = zephyr("--help")
    assert done.returncode == 0
    assert [verb for verb in VERBS if not re.search(rf"(?m)^\W*{verb} ", done.stdout)] == []


@pytest.mark.parametrize("verb", VERBS)
def test_every_verb_explains_itself_and_answers_machines(verb: str):
    done = CliRunner().invoke(app, [verb, "--help"], env={"COLUMNS": "200", "NO_COLOR": "1", "TERM": "dumb"})
    assert done.exit_code == 0, done.output
    assert "--json" in done.output


def test_an_unknown_verb_is_wrong_input():
    done = zephyr("trian", QUICKSTART)
    assert done.returncode == 2
    assert "trian" in done.stderr


def test_a_wrong_path_is_wrong_input():
    done = zephyr("run", "recipes/quikstart.yaml")
    assert done.returncode == 2
    assert done.stdout == ""
    assert "recipes/quikstart.yaml" in done.stderr and QUICKSTART in done.stderr
    assert "Traceback" not in done.stderr


def test_a_wrong_path_is_one_json_object_for_machines(tmp_path: Path):
    done = zephyr("run", "nowhere.yaml", "--json", "--out", str(tmp_path))
    said = only_object(done)
    assert done.returncode == said["exit"] == 2
    assert said["ok"] is False
    assert "nowhere.yaml" in said["error"]
    assert not list(tmp_path.iterdir()), "a run was begun"


@pytest.mark.parametrize(
    ("options", "says"),
    [
        (("--gold", "nowhere.jsonl"), "nowhere.jsonl"),
        (("--gold", "README.md", "--layout", "pandas"), "pandas"),
    ],
)
def test_a_judge_card_without_a_gold_file_starts_nothing(options: tuple[str, ...], says: str, tmp_path: Path):
    done = zephyr("judge-card", QUICKSTART, *options, "--json", "--out", str(tmp_path))
    assert done.returncode == 2
    assert says in only_object(done)["error"]
    assert not list(tmp_path.iterdir()), "a card was begun"


def test_a_wrong_value_starts_nothing(tmp_path: Path):
    done = zephyr("run", QUICKSTART, "--set", "pairs.min_margin=-1", "--json", "--out", str(tmp_path))
    assert done.returncode == 2
    assert "pairs.min_margin" in only_object(done)["error"]
    assert "Traceback" not in done.stderr
    assert not list(tmp_path.iterdir()), "a run was begun"


def test_judging_again_is_either_asked_or_read(tmp_path: Path):
    done = zephyr("judge", QUICKSTART, "--reparse", "--retry-failed", "--json", "--out", str(tmp_path))
    assert done.returncode == 2
    assert "--reparse asks nothing and --retry-failed asks again" in only_object(done)["error"]
    assert not list(tmp_path.iterdir())


def test_plan_counts_what_the_quickstart_will_ask(tmp_path: Path):
    done = zephyr("plan", QUICKSTART, "--json", "--out", str(tmp_path))
    assert done.returncode == 0, done.stderr
    found = only_object(done)
    assert found["ok"] is True
    assert found["prompts"] == 112 and found["held_out"] == 48
    stages = {stage["stage"]: stage for stage in found["stages"]}
    assert set(stages) == {"generate cool", "generate warm", "generate hot", "generate brief", "judge rating"}
    assert stages["generate cool"]["requests"] == found["prompts"]
    assert stages["judge rating"]["requests"] == 4 * found["prompts"]
    assert found["requests"] == sum(stage["requests"] for stage in found["stages"])
    assert all(stage["held"] == 0 for stage in found["stages"])
    assert found["cost"] == 0
    assert found["training"]["dpo"]["batch"] == 8
    assert found["text"].startswith("112 prompts, 48 of them held out\n")


def test_plan_prices_an_endpoint(tmp_path: Path):
    recipe = {
        "name": "priced",
        "prompts": [{"file": "prompts/quickstart/prompts.jsonl", "limit": 10}],
        "models": {
            "one": {
                "kind": "endpoint",
                "model": "m",
                "base_url": "http://127.0.0.1:1/v1",
                "price_in": 1,
                "price_out": 2,
            }
        },
        "samplers": [{"name": "a", "model": "one", "n": 2, "max_tokens": 100}],
        "judge": {"kind": "rating", "model": "one"},
    }
    path = tmp_path / "priced.yaml"
    path.write_text(yaml.safe_dump(recipe))
    found = only_object(zephyr("plan", str(path), "--json", "--out", str(tmp_path / "runs")))
    generate, judge = found["stages"]
    assert (generate["requests"], judge["requests"]) == (10, 20)
    assert generate["tokens_out"] == 10 * 2 * 100
    assert generate["cost"] == pytest.approx((generate["tokens_in"] * 1 + 2000 * 2) / 1e6)
    assert found["cost"] == pytest.approx(generate["cost"] + judge["cost"])


def test_show_before_anything_was_asked_says_what_to_run(tmp_path: Path):
    done = zephyr("show", QUICKSTART, "--json", "--out", str(tmp_path))
    assert done.returncode == 2
    assert "run `zephyr generate` or `zephyr run` first" in only_object(done)["error"]


@pytest.mark.parametrize("verb", ["report", "export"])
def test_a_folder_that_is_no_run_is_wrong_input(verb: str, tmp_path: Path):
    extra = [str(tmp_path / "to")] if verb == "export" else []
    done = zephyr(verb, str(tmp_path / "nothing"), *extra, "--json")
    assert done.returncode == 2, done.stderr
    assert str(tmp_path / "nothing") in only_object(done)["error"]


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        (("--kinds", "pairwse"), "--kinds pairwse: wanted some of rules, rating"),
        ((QUICKSTART, "--kinds", "rating"), "leave out --answers and --kinds"),
        (("--set", "seed=1"), "--set replaces fields of a recipe"),
        (("--malformed", "0.9", "--refused", "0.2"), "sum to more than 1"),
    ],
)
def test_a_selftest_of_nothing_that_exists_starts_nothing(arguments: tuple[str, ...], says: str):
    done = zephyr("selftest", *arguments, "--json")
    assert done.returncode == 2, done.stderr
    assert says in only_object(done)["error"]


def test_a_result_that_is_not_ok_is_printed_whole_and_leaves_with_1(capsys: pytest.CaptureFixture[str]):
    with pytest.raises(Exit) as left:
        answer(lambda: ({"ok": False, "wrong": 3}, str), True)
    assert left.value.exit_code == 1
    assert json.loads(capsys.readouterr().out) == {"ok": False, "wrong": 3}
