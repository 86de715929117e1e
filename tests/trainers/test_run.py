import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from safetensors.torch import load_file

from trainers.run import main

LORA = {"r": 4, "alpha": 8}
ROOT = Path(__file__).parents[2]


def start(job: dict[str, Any], tmp_path: Path) -> subprocess.Popen[str]:
    (tmp_path / "job.json").write_text(json.dumps(job))
    command = [sys.executable, "-m", "trainers.run", str(tmp_path / "job.json")]
    return subprocess.Popen(command, cwd=ROOT, text=True, stdout=subprocess.PIPE, stderr=subprocess.PIPE)


def here(job: dict[str, Any], tmp_path: Path) -> int:
    (tmp_path / "job.json").write_text(json.dumps(job))
    return main([str(tmp_path / "job.json")])


def read(job: dict[str, Any], name: str) -> Any:
    return json.loads((Path(job["out"]) / name).read_text())


def test_a_dpo_job_gives_a_model_folder_that_says_where_it_came_from(job: Callable[..., Any], tmp_path: Path):
    asked = job(
        settings={"lora": LORA},
        recipe="name: tiny\n",
        base_receipt={"name": "me/tiny", "license": "mit"},
        data_receipts=[{"source": "me/pairs", "license": "cc-by-nc-4.0"}],
    )
    process = start(asked, tmp_path)
    out, errors = process.communicate(timeout=100)
    assert process.returncode == 0, errors
    said = json.loads(out.splitlines()[-1])
    assert said["out"] == asked["out"] and not said["reused"]

    model, metrics = read(asked, "model.json"), read(asked, "metrics.json")
    assert model["key"] == said["key"] and model["base"]["name"] == "me/tiny"
    assert metrics["steps"] == 4 and [line["step"] for line in metrics["train"]] == [1, 2, 3, 4]
    assert metrics["train"][0]["loss"] == pytest.approx(0.693147, abs=1e-4)
    assert metrics["eval_before"]["loss"] == pytest.approx(0.693147, abs=1e-4)
    assert metrics["eval_after"]["loss"] < 0.69 and "rewards/margins" in metrics["eval_after"]
    assert metrics["lean_head"] is True
    folder = Path(asked["out"])
    assert (folder / "recipe.yaml").read_text() == "name: tiny\n"
    assert (folder / "adapter" / "adapter_model.safetensors").is_file()
    assert "im_start" in (folder / "chat_template.jinja").read_text()
    card = (folder / "README.md").read_text()
    assert (
        "license: other" in card
        and "| me/tiny | mit |" in card
        and "| rows of me/pairs | cc-by-nc-4.0 |" in card
    )
    assert model["licenses"] == {"me/tiny": "mit", "rows of me/pairs": "cc-by-nc-4.0"}
    assert not Path(asked["out"] + ".partial").exists()

    began = time.monotonic()
    again = start(asked, tmp_path)
    out, errors = again.communicate(timeout=60)
    assert json.loads(out.splitlines()[-1])["reused"] and time.monotonic() - began < 10, errors


def test_the_merged_model_is_the_base_with_the_adapter(job: Callable[..., Any], tiny: Path, tmp_path: Path):
    import torch
    from peft import PeftModel
    from transformers import AutoModelForCausalLM

    asked = job(settings={"lora": LORA, "max_steps": 2})
    assert here(asked, tmp_path) == 0
    merged = AutoModelForCausalLM.from_pretrained(asked["out"])
    adapted = PeftModel.from_pretrained(
        AutoModelForCausalLM.from_pretrained(tiny), Path(asked["out"]) / "adapter"
    )
    ids = torch.tensor([[5, 6, 7, 8]])
    assert torch.allclose(merged(ids).logits, adapted(ids).logits, atol=1e-5)


BFLOAT16 = {"compute": "bfloat16", "optimizer": "adamw_8bit_stochastic"}


@pytest.mark.parametrize(
    "own",
    [{}, {"lora": LORA}, pytest.param(BFLOAT16, marks=pytest.mark.long)],
    ids=["all weights", "lora", "masters and 8 bits"],
)
def test_a_killed_run_goes_on_and_ends_at_the_same_weights(
    own: dict[str, Any], job: Callable[..., Any], tmp_path: Path
):
    settings = {**own, "epochs": 3, "save_every": 2}
    whole = job(settings=settings, out=str(tmp_path / "whole"))
    assert here(whole, tmp_path) == 0

    broken = job(settings=settings, out=str(tmp_path / "broken"))
    process = start(broken, tmp_path)
    saved = tmp_path / "broken.partial" / "checkpoints" / "checkpoint-4"
    while process.poll() is None and not (saved / "complete").exists():
        time.sleep(0.002)
    process.send_signal(signal.SIGKILL)
    process.communicate()
    if (tmp_path / "broken").exists():
        pytest.skip("the run was over before it could be killed")
    torn = saved.with_name("checkpoint-5")
    torn.mkdir(exist_ok=True)
    (torn / "trainer_state.json").write_text("{")

    assert here(broken, tmp_path) == 0
    assert read(broken, "metrics.json")["resumed_from_step"] in (4, 6)
    assert [line["step"] for line in read(broken, "metrics.json")["train"]] == [1, 2, 3, 4, 5, 6]
    one, other = (load_file(tmp_path / name / "model.safetensors") for name in ("whole", "broken"))
    assert all((one[name] == other[name]).all() for name in one)


@pytest.mark.long
@pytest.mark.parametrize("kind, save_every", [("dpo", 1), ("dpo", 2), ("sft", 2)])
def test_a_run_killed_after_every_step_in_turn_ends_at_the_same_weights(
    kind: str, save_every: int, job: Callable[..., Any], tmp_path: Path
):
    """One run, killed once after each of its steps: with checkpoints at every step, and between them."""
    settings = {"lora": LORA, "epochs": 3, "save_every": save_every}
    whole = job(kind, settings=settings, out=str(tmp_path / "whole"))
    assert here(whole, tmp_path) == 0
    broken = job(kind, settings=settings, out=str(tmp_path / "broken"))
    progress = tmp_path / "broken.partial" / "progress.jsonl"
    for step in range(1, 6):
        process = start(broken, tmp_path)
        while process.poll() is None and not (
            progress.exists() and f'"step": {step},' in progress.read_text()
        ):
            time.sleep(0.002)
        process.send_signal(signal.SIGKILL)
        process.communicate()
    assert here(broken, tmp_path) == 0
    made, wanted = (read(each, "metrics.json") for each in (broken, whole))
    assert [line["loss"] for line in made["train"]] == [line["loss"] for line in wanted["train"]]
    one, other = (load_file(tmp_path / name / "model.safetensors") for name in ("whole", "broken"))
    assert all((one[name] == other[name]).all() for name in one)


def test_another_job_does_not_go_on_from_what_is_left_of_this_one(tmp_path: Path):
    from trainers.checkpoints import open_work

    work = tmp_path / "model.partial"
    assert open_work(work, "one") is None
    for step, sealed in ((2, True), (10, True), (12, False)):
        (work / "checkpoints" / f"checkpoint-{step}").mkdir(parents=True)
        (work / "checkpoints" / f"checkpoint-{step}" / "complete").touch() if sealed else None
    (work / "progress.jsonl").write_text('{"step": 10}\n{"step": 11}\n{"step": 1')
    found = open_work(work, "one")
    assert found and found.name == "checkpoint-10"
    assert (work / "progress.jsonl").read_text() == '{"step": 10}\n'
    assert not (work / "checkpoints" / "checkpoint-12").exists()
    assert open_work(work, "two") is None
    assert not (work / "checkpoints").exists()


def test_sft_learns_and_keeps_its_template(job: Callable[..., Any], tmp_path: Path):
    from tests.trainers.conftest import ZEPHYR

    asked = job("sft", settings={"lora": LORA, "template": ZEPHYR, "group_by_length": True, "max_steps": 3})
    assert here(asked, tmp_path) == 0
    metrics = read(asked, "metrics.json")
    assert metrics["steps"] == 3 and metrics["eval_after"]["loss"] < metrics["eval_before"]["loss"]
    assert (Path(asked["out"]) / "chat_template.jinja").read_text() == ZEPHYR


@pytest.mark.parametrize(
    "change, said",
    [
        (
            {"kind": "sft", "settings": {"batch": 6}},
            "batch=6 is not a multiple of micro_batch=4 x 1 devices; set batch to a multiple of 4",
        ),
        ({"settings": {"betta": 1}}, "betta"),
        ({"base": "/nowhere"}, "base='/nowhere' has no config.json"),
        ({"train": {"files": ["/nowhere.parquet"]}}, "train: no files"),
        ({"train": {"folder": "/nowhere"}}, "give either files, or a folder and its split"),
        ({"gguf": "/nowhere.gguf"}, "gguf='/nowhere.gguf' is not there"),
        ({"settings": {"max_length": 4096}}, "max_length=4096 is above the base's 512 positions"),
        (
            {"settings": {"dtype": "bfloat16", "learning_rate": 5e-7, "optimizer": "rmsprop"}},
            "about 1% of the weights would move",
        ),
    ],
)
def test_a_wrong_job_exits_with_2_and_says_what_was_wanted(
    change: dict[str, Any],
    said: str,
    job: Callable[..., Any],
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
):
    assert here(job(**change), tmp_path) == 2
    assert said in capsys.readouterr().err
    assert not (tmp_path / "model").exists()


def test_a_loss_that_is_not_a_number_fails_the_run_and_names_the_rate(
    job: Callable[..., Any], tmp_path: Path, capsys: pytest.CaptureFixture[str]
):
    asked = job(settings={"learning_rate": 1e30, "max_grad_norm": 1e9})
    assert here(asked, tmp_path) == 1
    assert "lower learning_rate=1e+30" in capsys.readouterr().err


def test_settings_and_jobs_load_without_torch():
    code = "import sys, trainers.settings, trainers.run; sys.exit('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], cwd=ROOT, env=os.environ).returncode == 0
