"""What training says of itself: where its time went, what came of it, and what its pairs show."""

import json
import math
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from datasets import Dataset
from transformers import AutoConfig, AutoModelForCausalLM, TrainerCallback

from tests.trainers.conftest import pair
from trainers.alarms import alarms, by_model, live
from trainers.clock import Clock, Measured
from trainers.cost import operations, weights_of
from trainers.dpo import dpo_trainer
from trainers.guards import BadInput, check_settings
from trainers.pair_tally import PairTally, Seen
from trainers.rows import pairs_to_tokens
from trainers.run import main
from trainers.settings import DPOSettings, SFTSettings

ALONE: Any = SimpleNamespace(num_processes=1)


def test_what_pairs_show_on_numbers_worked_by_hand():
    """Right, wrong, right, right. Lengths 10 and 10, 10 and 11 are about alike; 10 and 20, 30 and 3 are not."""
    tally = PairTally(["big", "small"])
    tally.add(
        Seen(
            chosen=torch.tensor([1.0, 0.0, 6.0, 0.2]),
            rejected=torch.tensor([0.0, 0.5, 0.0, 0.1]),
            lengths=torch.tensor([[10, 10, 10, 30], [10, 11, 20, 3]]),
            change=torch.tensor([-5.0, -5.0, 5.0, -25.0]),
            models=torch.tensor([[0, 1], [0, 1], [1, 0], [-1, 1]]),
        )
    )
    assert tally.take(ALONE) == pytest.approx(
        {
            "lengths/chosen": 15.0,
            "lengths/rejected": 11.0,
            "rewards/accuracies_length_matched": 0.5,
            "logps/chosen_change": -30 / 60,
            "saturated": 0.25,
            "accuracy_chosen/big": 0.5,
            "accuracy_chosen/small": 1.0,
            "accuracy_rejected/big": 1.0,
            "accuracy_rejected/small": 2 / 3,
        }
    )
    assert tally.counts["accuracy_rejected/small"] == 3 and tally.counts["logps/chosen_change"] == 60
    assert tally.take(ALONE) == {}, "what was taken does not count again"


def rows(tokenizer: Any, settings: DPOSettings, count: int = 16) -> Dataset:
    made = [pair(i) | {"chosen_model": "a" if i % 2 else "b", "rejected_model": "c"} for i in range(count)]
    return pairs_to_tokens(Dataset.from_list(made), tokenizer, settings).tokens


@pytest.mark.parametrize(
    "changes", [{}, {"precompute_reference": False}, {"share_prompts": False}, {"micro_tokens": 64}]
)
def test_figures_of_pairs_are_those_of_trls_means_and_are_in_every_line(
    changes: dict[str, Any], tiny: Path, tokenizer: Any, tmp_path: Path
):
    """A step sees all 16 pairs there are, so its figures can be counted from the rows."""
    lines: list[dict[str, float]] = []

    class Tracker(TrainerCallback):
        def on_log(self, args: Any, state: Any, control: Any, logs: Any = None, **_: Any) -> None:
            lines.append(dict(logs))

    wanted: dict[str, Any] = {
        "batch": 16,
        "micro_batch": 4,
        "max_length": 128,
        "learning_rate": 1e-2,
        "warmup": 0.0,
    }
    wanted |= {"compute": "float32", "epochs": 3, "lora": {"r": 4}, "scheduler": "constant"}
    settings = DPOSettings.model_validate(wanted | changes)
    data = rows(tokenizer, settings)
    torch.manual_seed(0)
    model = AutoModelForCausalLM.from_pretrained(tiny)
    trainer: Any = dpo_trainer(settings, model, tokenizer, data, data, tmp_path, 1, [Tracker()])
    trainer.train()
    steps = [line for line in lines if "loss" in line]
    assert len(steps) == 3
    for line in steps:
        assert line["lengths/chosen"] == pytest.approx(sum(map(len, data["chosen_ids"])) / 16)
        assert line["lengths/rejected"] == pytest.approx(sum(map(len, data["rejected_ids"])) / 16)
        by_side = (line["accuracy_chosen/a"] + line["accuracy_chosen/b"]) / 2
        assert (
            by_side == pytest.approx(line["rewards/accuracies"]) == pytest.approx(line["accuracy_rejected/c"])
        )
        per_answer = line["logps/chosen_change"] * line["lengths/chosen"]
        assert settings.beta * per_answer == pytest.approx(line["rewards/chosen"], abs=1e-5)
        shares = [value for name, value in line.items() if name.startswith("time/")]
        assert sum(shares) == pytest.approx(1) and line["time/forward"] > 0 and line["time/backward"] > 0
        assert 0 < line["tokens_per_s/unique"] < line["tokens_per_s/padded"] and line["mfu"] > 0
    held = trainer.evaluate()
    assert held["eval_lengths/chosen"] == pytest.approx(steps[0]["lengths/chosen"])
    assert trainer.tallies["eval"].counts["accuracy_chosen/a"] == 8
    unique = sum(len(r["prompt_ids"]) + len(r["chosen_ids"]) + len(r["rejected_ids"]) for r in data.to_list())
    assert trainer.run_figures()["tokens"]["unique"] == 3 * unique


def test_operations_are_two_for_each_weight_a_token_meets(tiny: Path):
    """2 layers of 4 * 32 * 32 / ... : q and o 32 x 32, k and v 32 x 16, three of 32 x 64; the head 400 x 32."""
    config = AutoConfig.from_pretrained(tiny)
    weights = weights_of(config)
    assert weights == (2 * (2 * 32 * 32 + 2 * 32 * 16 + 3 * 32 * 64), 400 * 32)
    tokens = {"unique": 10, "scored": 4, "squares": 100}
    # attention: two products of a row's length squared times the width, of which the causal half is needed
    assert (
        operations(weights, config, tokens) == 2 * (weights.body * 10 + weights.head * 4) + 2 * 2 * 32 * 100
    )


def test_a_clock_is_in_one_phase_at_a_time_and_goes_back_to_the_one_before(monkeypatch: pytest.MonkeyPatch):
    now = iter(range(100))
    monkeypatch.setattr("trainers.clock.time.perf_counter", lambda: float(next(now)))
    clock = Clock()
    clock.on_train_begin()
    with clock.phase("backward"), clock.phase("forward"):
        pass
    clock.on_pre_optimizer_step()
    clock.on_optimizer_step()
    clock.on_train_end()
    assert clock.seconds == Counter({"data": 3, "backward": 2, "forward": 1, "optimizer": 1})


@pytest.mark.parametrize(
    "inputs, unique, padded, scored",
    [
        (
            {
                "input_ids": torch.ones(2, 8),
                "attention_mask": torch.tensor([[1] * 8, [1] * 5 + [0] * 3]),
                "completion_mask": torch.tensor([[0] * 3 + [1] * 5, [0] * 3 + [1] * 2 + [0] * 3]),
            },
            3 + 5 + 2,
            16,
            7,
        ),
        (
            {
                "input_ids": torch.ones(2, 8),
                "attention_mask": torch.tensor([[1] * 8, [1] * 5 + [0] * 3]),
                "labels": torch.tensor([[-100] * 6 + [4, 4], [-100] * 8]),
            },
            13,
            16,
            2,
        ),
        (
            {"input_ids": torch.ones(1, 12), "labels": torch.ones(1, 12), "position_ids": torch.ones(1, 12)},
            12,
            12,
            12,
        ),
    ],
    ids=["pairs", "padded dialogues", "packed dialogues"],
)
def test_tokens_that_must_be_computed_are_told_from_padding(
    inputs: Any, unique: int, padded: int, scored: int
):
    clock = Clock()
    clock.count(inputs)
    assert (clock.tokens["unique"], clock.tokens["padded"], clock.tokens["scored"]) == (
        unique,
        padded,
        scored,
    )


def test_every_trainer_of_ours_says_where_its_time_goes():
    from trainers.dpo import PairTrainer
    from trainers.online import GRPO, PPO, RLOO
    from trainers.reward import MeasuredReward
    from trainers.sft import MeasuredSFT

    for trainer in (MeasuredSFT, MeasuredReward, PairTrainer, RLOO, GRPO, PPO):
        assert issubclass(trainer, Measured)


def test_a_finished_model_has_its_figures_and_alarms(job: Callable[..., Any], tmp_path: Path):
    asked = job(settings={"max_steps": 2})
    (tmp_path / "job.json").write_text(json.dumps(asked))
    assert main([str(tmp_path / "job.json")]) == 0
    metrics = json.loads((tmp_path / "model" / "metrics.json").read_text())
    speed = metrics["speed"]
    assert set(speed["seconds"]) >= {"forward", "backward", "optimizer", "data"}
    assert 0 < speed["tokens_per_s/unique"] < speed["tokens_per_s/padded"] and 0 < speed["mfu"] < 1
    assert "saturated" in metrics["train"][-1]["metrics"] and "lengths/chosen" in metrics["eval_after"]
    assert metrics["alarms"] == [] and metrics["win_rates"] == [] and metrics["kept_step"] == 2


# --- alarms ---


def line(loss: float = 0.5, **metrics: float) -> dict[str, Any]:
    return {"loss": loss, "metrics": metrics}


COUNTS = {"lengths/chosen": 40, "rewards/accuracies_length_matched": 25}
STUCK = [line(math.log(2) + 1e-4) for _ in range(10)]


@pytest.mark.parametrize(
    "history, after, settings, alarm",
    [
        ([line()] * 10, {"rewards/accuracies": 0.8, "rewards/accuracies_length_matched": 0.75}, {}, None),
        ([line(**{"logps/chosen_change": -1.4})] * 3, {}, {}, "chosen_drop: the chosen answers' log-probability"),
        ([line(**{"logps/chosen_change": -0.4})] * 3, {}, {}, None),
        (STUCK, {}, {}, "loss_stuck"),
        (STUCK, {}, {"loss": "hinge"}, None),
        ([line()], {"rewards/accuracies": 0.98}, {"epochs": 1}, "too_easy: 98%"),
        ([line()], {"rewards/accuracies": 0.98}, {"epochs": 3}, None),
        ([line()], {"rewards/accuracies": 0.8, "rewards/accuracies_length_matched": 0.5}, {}, "by_length: 80%"),
    ],
)  # fmt: skip
def test_what_is_wrong_although_the_loss_falls_is_said(
    history: Any, after: dict[str, float], settings: dict[str, Any], alarm: str | None
):
    found = alarms(DPOSettings.model_validate(settings), history, after, COUNTS)
    assert [said.startswith(alarm or "-") for said in found] == [True] * (alarm is not None)


def test_few_pairs_raise_no_alarm():
    assert alarms(DPOSettings(), [line()], {"rewards/accuracies": 1.0}, {"lengths/chosen": 19}) == []
    assert alarms(SFTSettings(), STUCK, {}, {}) == []


def test_a_drop_is_said_while_training_runs():
    assert live({"logps/chosen_change": -1.2, "loss": 0.1})
    assert (
        live({"logps/chosen_change": -0.9}) is None
        and live({}) is None
        and live({"logps/chosen_change": None}) is None
    )


def test_figures_by_model_have_the_pairs_behind_them():
    after = {"accuracy_chosen/org/a": 0.9, "accuracy_rejected/org/a": 0.2, "loss": 1.0}
    assert by_model(after, {"accuracy_chosen/org/a": 10, "accuracy_rejected/org/a": 5}) == {
        "org/a": {"chosen": {"pairs": 10, "accuracy": 0.9}, "rejected": {"pairs": 5, "accuracy": 0.2}}
    }


# --- trackers ---


def test_a_tracker_that_is_not_installed_is_refused_before_anything_starts(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr("trainers.guards.find_spec", lambda name: None)
    with pytest.raises(BadInput, match="report_to='wandb': the package wandb is not installed"):
        check_settings(DPOSettings(report_to=("wandb",)))


def test_trackers_are_passed_on_and_change_no_model(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    from trainers.arguments import arguments
    from trainers.job import COSMETIC

    monkeypatch.delenv("TENSORBOARD_LOGGING_DIR", raising=False)
    settings = DPOSettings(report_to=("tensorboard",))
    work = tmp_path / "run" / "models" / "dpo.partial"
    made = arguments(settings, work, 0)
    assert made["report_to"] == ["tensorboard"] and made["run_name"] == "run-dpo"
    assert arguments(DPOSettings(), work, 0)["report_to"] == "none" and "report_to" in COSMETIC


def test_tensorboard_has_every_figure(
    job: Callable[..., Any], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    where = "tensorboard.backend.event_processing.event_accumulator"
    events = pytest.importorskip(where, reason="pip install tensorboard, to see that it is written to")

    monkeypatch.delenv("TENSORBOARD_LOGGING_DIR", raising=False)
    asked = job(settings={"max_steps": 2, "report_to": ["tensorboard"]})
    (tmp_path / "job.json").write_text(json.dumps(asked))
    assert main([str(tmp_path / "job.json")]) == 0
    found = events.EventAccumulator(str(tmp_path / "tensorboard" / "model"))
    found.Reload()
    assert {"train/loss", "train/mfu", "train/lengths/chosen", "eval/rewards/accuracies"} <= set(
        found.Tags()["scalars"]
    )
