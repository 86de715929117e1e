"""lm-evaluation-harness as an external program: how it is called, and what of its results file is read."""

import json
import sys
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from flows.evaluate import Contender
from flows.failures import StageFailed
from flows.recipe import RecipeError
from flows.suites import harness
from flows.suites.settings import Harness
from serving.settings import Endpoint, LlamaCpp, Vllm

FOUND = {
    "results": {
        "arc_challenge": {
            "alias": "arc_challenge",
            "sample_len": 1172,
            "acc,none": 0.58,
            "acc_stderr,none": 0.0144,
            "acc_norm,none": 0.6203,
            "acc_norm_stderr,none": 0.0142,
        },
        "tiny_sums": {"sample_len": 3, "exact_match,none": 0.5, "exact_match_stderr,none": "N/A"},
    },
    "n-samples": {"arc_challenge": {"original": 1172, "effective": 1172}},
    "lm_eval_version": "0.4.13",
}
"""In the shape that version 0.4.13 writes."""

PROGRAM = """#!{python}
import json, os, pathlib, sys
here = pathlib.Path(__file__).parent
with (here / "calls.jsonl").open("a") as file:
    file.write(json.dumps(sys.argv[1:]) + "\\n")
out = pathlib.Path(sys.argv[sys.argv.index("--output_path") + 1])
if "fails" in sys.argv[sys.argv.index("--tasks") + 1]:
    print("Tasks not found: fails")
    sys.exit(3)
(out / "model").mkdir(parents=True)
(out / "model" / "results_2026.json").write_text(json.dumps({found}))
"""


class Served:
    """An engine of which only the address is asked."""

    async def address(self, model: str) -> str:
        return "http://127.0.0.1:7/v1"


def program(folder: Path) -> str:
    file = folder / "python-of-the-harness"
    file.write_text(PROGRAM.format(python=sys.executable, found=FOUND))
    file.chmod(0o755)
    return str(file)


async def run(folder: Path, suite: Harness, model: Any) -> dict[str, Any]:
    who = Contender("dpo", model, {"trained": "abc"})
    return await harness.run("arc", suite, who, SimpleNamespace(folder=folder), Served())  # type: ignore[arg-type]


async def test_it_is_told_where_the_model_is_and_asked_once(tmp_path: Path):
    suite = Harness(
        tasks=("arc_challenge", "mine"), shots=25, limit=7, include="tasks", python=program(tmp_path)
    )
    model = Vllm(model="/models/dpo", max_in_flight=32)
    assert await run(tmp_path, suite, model) == FOUND
    assert await run(tmp_path, suite, model) == FOUND
    [call] = [json.loads(line) for line in (tmp_path / "calls.jsonl").open()]
    assert call[:4] == ["-m", "lm_eval", "--model", "local-completions"]
    options = dict(zip(call[2::2], call[3::2], strict=True))
    arguments = dict(pair.split("=", 1) for pair in options["--model_args"].split(","))
    assert arguments["base_url"] == "http://127.0.0.1:7/v1/completions"
    assert (arguments["model"], arguments["tokenizer"], arguments["num_concurrent"]) == (
        "dpo",
        "/models/dpo",
        "32",
    )
    assert options["--tasks"] == "arc_challenge,mine" and options["--num_fewshot"] == "25"
    assert options["--limit"] == "7" and options["--include_path"] == str(Path("tasks").resolve())


async def test_a_model_that_only_chats_is_asked_to_chat_under_its_own_name(tmp_path: Path):
    suite = Harness(tasks=("gsm8k",), api="chat", python=program(tmp_path))
    await run(tmp_path, suite, Endpoint(model="gpt-4", base_url="http://h/v1"))
    [call] = [json.loads(line) for line in (tmp_path / "calls.jsonl").open()]
    assert "--apply_chat_template" in call and "local-chat-completions" in call
    assert (
        "model=gpt-4,base_url=http://127.0.0.1:7/v1/chat/completions" in call[call.index("--model_args") + 1]
    )
    assert "tokenizer=" not in call[call.index("--model_args") + 1]


async def test_a_run_that_ends_badly_is_no_figure_and_says_its_last_words(tmp_path: Path):
    suite = Harness(tasks=("fails",), api="chat", python=program(tmp_path))
    with pytest.raises(StageFailed, match=r"ended with 3(.|\n)*Tasks not found"):
        await run(tmp_path, suite, LlamaCpp(model="x.gguf"))


def test_a_task_is_the_metric_the_leaderboard_takes_and_a_missing_error_is_no_interval():
    figures = harness.figures(FOUND)
    arc = figures["arc_challenge"]
    assert (arc.value, arc.n) == (0.6203, 1172) and arc.low == pytest.approx(0.6203 - 1.96 * 0.0142, abs=1e-4)
    assert figures["arc_challenge acc"].value == 0.58
    tiny = figures["tiny_sums"]
    assert set(figures) == {"arc_challenge", "arc_challenge acc", "tiny_sums"}, "sample_len is no metric"
    assert tiny.low == tiny.value == tiny.high == 0.5 and tiny.n == 3
    result = harness.result({"base": FOUND, "dpo": FOUND})
    assert set(result.metrics["arc_challenge"]) == {"base", "dpo"}
    assert result.notes == ("lm-evaluation-harness 0.4.13",)


def test_a_harness_that_is_not_there_is_said_before_anything_is_asked(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setenv("PATH", "/nowhere")
    monkeypatch.delenv("ZEPHYR_LM_EVAL_PYTHON", raising=False)
    with pytest.raises(RecipeError, match="lm-evaluation-harness is not found"):
        harness.find(Harness(tasks=("arc_challenge",)))
    with pytest.raises(RecipeError, match="no interpreter at '/nowhere/python'"):
        harness.find(Harness(tasks=("arc_challenge",), python="/nowhere/python"))
