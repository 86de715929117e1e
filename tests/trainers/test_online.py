"""Reinforcement learning: the exact formulas, and a toy reward that every algorithm learns."""

import copy
import math
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from datasets import Dataset

from tests.trainers.conftest import TOPICS, said
from trainers.arguments import load_model
from trainers.checkpoints import TrainingFailed
from trainers.online import judged, online_trainer
from trainers.online_settings import RLHFSettings
from trainers.ppo import adapted, gae, policy_loss, rewards_of, value_loss, whiten
from trainers.prompts import prompts_to_rows

SMALL: dict[str, Any] = {"batch": 32, "micro_batch": 16, "answers": 4, "max_length": 64, "max_tokens": 8}
SMALL |= {"learning_rate": 3e-2, "scheduler": "constant", "warmup": 0.0, "compute": "float32", "beta": 0.02}
SMALL |= {"epochs": None, "max_steps": 12}


def prompts(count: int = 8) -> Dataset:
    rows = [
        {"prompt": [said("user", f"Tell me about {TOPICS[i % 8]}.")], "prompt_id": f"p{i}"}
        for i in range(count)
    ]
    return Dataset.from_list(rows)


def share_of_low_tokens(completion_ids: Any, **_: Any) -> list[float]:
    """1 where all of an answer's tokens are in the lower half of the vocabulary; about 0.5 by chance."""
    return [sum(token < 200 for token in ids) / len(ids) for ids in completion_ids]


@pytest.fixture
def trained(tiny: Path, tokenizer: Any, tmp_path: Path) -> Callable[..., Any]:
    """Train the tiny model and give the trainer; `stop_at` breaks the run off after so many steps."""

    def run(
        reward: Any = share_of_low_tokens, folder: str = "work", resume: str | None = None, **settings: Any
    ) -> Any:
        from transformers import TrainerCallback

        stop_at = settings.pop("stop_at", None)

        class Stop(TrainerCallback):
            def on_step_end(self, args: Any, state: Any, control: Any, **_: Any) -> None:
                control.should_training_stop = state.global_step == stop_at

        torch.set_num_threads(1)
        own = RLHFSettings.model_validate(SMALL | settings)
        words = copy.deepcopy(tokenizer)
        rows = prompts_to_rows(prompts(own.prompts_per_round), words, own).tokens
        work, model = tmp_path / folder, load_model(tiny, own)
        trainer = online_trainer(own, model, words, rows, work, 1, [Stop()], reward)
        trainer.train(resume_from_checkpoint=str(work / "checkpoints" / resume) if resume else None)
        return trainer

    return run


def history(trainer: Any, name: str) -> list[float]:
    return [line[name] for line in trainer.state.log_history if name in line]


@pytest.mark.parametrize("algorithm", ["rloo", "grpo", "ppo"])
def test_every_algorithm_learns_a_toy_reward_and_stays_near_the_reference(
    algorithm: str, trained: Callable[..., Any]
):
    more: dict[str, Any] = {
        "rloo": {},
        "grpo": {"learning_rate": 2e-2, "beta": 0.05, "max_steps": 16},
        "ppo": {"learning_rate": 1e-2},
    }[algorithm]
    if algorithm == "ppo":
        more |= {"passes": 2, "max_steps": 24, "answers": 1}
    trainer = trained(algorithm=algorithm, **more)
    reward, kl = history(trainer, "reward"), history(trainer, "kl")
    before, after = sum(reward[:2]) / 2, sum(reward[-2:]) / 2
    assert before < 0.62 and after > before + 0.2, reward  # a mean of 32 answers of 8 tokens strays by 0.03
    assert 0.0 < kl[-1] < 2.5, kl  # nats per token; always the same token is log(400) = 6
    assert history(trainer, "unjudged") == [0.0] * len(history(trainer, "unjudged"))


@pytest.mark.parametrize("algorithm", ["rloo", "ppo"])
def test_a_run_that_was_broken_off_goes_on_and_ends_at_the_same_weights(
    algorithm: str, trained: Callable[..., Any]
):
    settings: dict[str, Any] = {
        "algorithm": algorithm,
        "max_steps": 4,
        "save_every": 2,
        "scheduler": "linear",
    }
    if algorithm == "ppo":
        settings |= {"passes": 2, "ppo": {"target_kl": 0.1}}
    whole = trained(folder="whole", **settings)
    trained(folder="broken", stop_at=3, **settings)
    on = trained(folder="broken", resume="checkpoint-2", **settings)
    for (name, one), other in zip(whole.model.named_parameters(), on.model.parameters(), strict=True):
        assert torch.equal(one, other), name
    if algorithm == "ppo":
        assert whole.coefficient == on.coefficient != 0.02


@pytest.mark.parametrize("algorithm", ["rloo", "grpo", "ppo"])
def test_an_answer_without_a_score_teaches_nothing(algorithm: str, trained: Callable[..., Any], tiny: Path):
    """One that is not judged is not one that is worth 0: where none is judged, no weight moves."""
    trainer = trained(
        lambda completion_ids, **_: [None] * len(completion_ids),
        algorithm=algorithm,
        max_unjudged=1,
        max_steps=1,
        beta=0,
    )
    before = dict(load_model(tiny, RLHFSettings()).named_parameters())
    assert all(torch.equal(before[name], p) for name, p in trainer.model.named_parameters() if name in before)
    assert history(trainer, "unjudged") == [1.0]


def test_ppo_trains_the_value_head_with_lora_and_keeps_it_out_of_the_adapted_layers(
    trained: Callable[..., Any],
):
    trainer = trained(algorithm="ppo", lora={"r": 4}, max_steps=2)
    moved = {n for n, p in trainer.model.named_parameters() if p.requires_grad and "lora_" not in n}
    assert len(moved) == 2 and all("value_head" in name for name in moved)
    assert trainer.value_head.weight.abs().max() > 0
    merged = trainer.accelerator.unwrap_model(trainer.model).merge_and_unload()
    assert merged.value_head.weight.abs().max() > 0


def test_a_judge_that_fails_too_often_stops_training():
    reward = judged(lambda completions, **_: [None if i % 2 else 0.5 for i in range(len(completions))], 0.4)

    def ask(count: int) -> Any:
        import asyncio

        made: Any = reward(completions=[""] * count, log_metric=lambda *_: None)
        return asyncio.run(made)

    assert ask(32) == [0.5, None] * 16
    with pytest.raises(TrainingFailed, match=r"32 of 64 answers could not be judged, max_unjudged=0\.4"):
        ask(32)


def test_prompts_that_leave_no_room_are_counted_and_too_few_are_refused(tokenizer: Any):
    settings = RLHFSettings.model_validate(SMALL)
    long = {"prompt": [said("user", "tea " * 80)], "prompt_id": "long"}
    answered = {"prompt": [said("user", "Tea?"), said("assistant", "Yes.")], "prompt_id": "answered"}
    rows = Dataset.from_list([*map(dict, prompts()), long, answered])
    made = prompts_to_rows(rows, tokenizer, settings)
    assert made.counts["dropped"] == {"no_question": 1, "prompt_too_long": 1} and len(made.tokens) == 8
    with pytest.raises(ValueError, match="7 prompts are less than the 8 of one round"):
        prompts_to_rows(prompts(7), tokenizer, settings)


@pytest.mark.parametrize(
    "settings, wanted",
    [
        ({"answers": 1}, "rloo compares answers"),
        ({"answers": 5}, "not a multiple of answers=5"),
        ({"max_tokens": 64}, "leaves no room"),
        ({"passes": 2, "save_every": 3}, "middle of a round of 2 steps"),
        ({"lora": {"dropout": 0.1}}, "set it to 0"),
    ],
)
def test_settings_that_cannot_mean_what_they_say_are_refused(settings: dict[str, Any], wanted: str):
    with pytest.raises(ValueError, match=wanted):
        RLHFSettings.model_validate(SMALL | settings)


def test_steps_count_whole_rounds():
    settings = RLHFSettings.model_validate(
        SMALL | {"epochs": 2, "max_steps": None, "passes": 2, "rollout": 2}
    )
    assert settings.prompts_per_round == 16
    assert settings.steps(40) == 2 * 2 * 2 * 2  # 2 epochs of 2 whole rounds, of 2 steps each, twice


# --- PPO's formulas on numbers worked by hand ---


def test_the_score_is_at_the_last_token_and_the_kl_at_each():
    mask = torch.tensor([[1.0, 1, 1], [1, 1, 0]])
    logps, ref = torch.tensor([[-1.0, -2, -3], [-1, -1, -9]]), torch.tensor([[-1.5, -2, -2], [-1, -3, -1]])
    found = rewards_of(torch.tensor([1.0, 2.0]), logps, ref, mask, beta=0.1)
    assert torch.allclose(found, torch.tensor([[-0.05, 0.0, 1.1], [0.0, 1.8, 0.0]]))


def test_advantages_on_numbers_worked_by_hand():
    """gamma 0.5, lambda 0.5. Last: 1 - 0.2 = 0.8. Middle: 0 + 0.5 * 0.2 - 0.4 + 0.25 * 0.8 = -0.1.
    First: 0 + 0.5 * 0.4 - 0.6 + 0.25 * -0.1 = -0.425. The padding's value is nothing to it."""
    rewards = torch.tensor([[0.0, 0, 1, 7]])
    values, mask = torch.tensor([[0.6, 0.4, 0.2, 5]]), torch.tensor([[1.0, 1, 1, 0]])
    advantages, returns = gae(rewards, values, mask, 0.5, 0.5)
    assert torch.allclose(advantages, torch.tensor([[-0.425, -0.1, 0.8, 0]]))
    assert torch.allclose(returns, torch.tensor([[0.175, 0.3, 1.0, 0]]))


def test_with_lambda_1_an_advantage_is_the_return_minus_the_value():
    chance = torch.Generator().manual_seed(0)
    rewards, values = torch.randn(3, 5, generator=chance), torch.randn(3, 5, generator=chance)
    advantages, returns = gae(rewards, values, torch.ones(3, 5), 1.0, 1.0)
    to_come = rewards.flip(1).cumsum(1).flip(1)
    assert torch.allclose(returns, to_come, atol=1e-6) and torch.allclose(
        advantages, to_come - values, atol=1e-6
    )


@pytest.mark.parametrize(
    "ratio, advantage, wanted",
    [
        (1.1, 2.0, -2.2),
        (1.5, 2.0, -2.4),
        (0.5, 2.0, -1.0),
        (1.5, -2.0, 3.0),
        (0.5, -2.0, 1.6),
        (0.9, -2.0, 1.8),
    ],
)
def test_the_policy_loss_is_the_clipped_surrogate(ratio: float, advantage: float, wanted: float):
    logps = torch.tensor([math.log(ratio)], requires_grad=True)
    loss = policy_loss(logps, torch.zeros(1), torch.tensor([advantage]), 0.2)
    assert loss.item() == pytest.approx(wanted, abs=1e-6)
    loss.sum().backward()
    stopped = (ratio > 1.2 and advantage > 0) or (ratio < 0.8 and advantage < 0)
    assert logps.grad is not None and (logps.grad.item() == 0) == stopped


@pytest.mark.parametrize(
    "value, old, target, wanted",
    [(0.5, 0.4, 1.0, 0.125), (0.9, 0.4, 1.0, 0.08), (0.9, 0.4, 0.2, 0.245), (0.1, 0.4, 1.0, 0.405)],
)
def test_the_value_loss_is_the_larger_of_clipped_and_unclipped(
    value: float, old: float, target: float, wanted: float
):
    """(0.9 towards 1.0, clipped to 0.6): max(0.01, 0.16) / 2 = 0.08."""
    found = value_loss(torch.tensor([value]), torch.tensor([old]), torch.tensor([target]), 0.2)
    assert found.item() == pytest.approx(wanted, abs=1e-6)


def test_whitening_looks_at_the_masked_tokens_alone():
    found = whiten(torch.tensor([[1.0, 3.0, 100.0]]), torch.tensor([[1.0, 1.0, 0.0]]))
    assert torch.allclose(found, torch.tensor([[-1.0, 1.0, 0.0]]), atol=1e-5)


def test_the_coefficient_goes_up_where_the_policy_strays_and_never_far_at_once():
    assert adapted(0.1, kl=6.6, target=6.0) == pytest.approx(0.101)
    assert adapted(0.1, kl=60.0, target=6.0) == pytest.approx(0.102)
    assert adapted(0.1, kl=0.0, target=6.0) == pytest.approx(0.098)
