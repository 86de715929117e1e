"""Reinforcement learning on the model's own answers: RLOO and GRPO through TRL, PPO ours. Prompts and a reward in, a
trainer out.

A reward is a function of prompts and answers that gives a number, or None for an answer that could not be judged.
None is never a number: the answer is left out of its group's mean and of the loss, and is counted.
"""

import inspect
from collections.abc import Awaitable, Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from datasets import Dataset
from trl.trainer.grpo_config import GRPOConfig
from trl.trainer.grpo_trainer import GRPOTrainer
from trl.trainer.rloo_config import RLOOConfig
from trl.trainer.rloo_trainer import RLOOTrainer

from trainers.arguments import adapter, arguments
from trainers.batches import EpochOrder
from trainers.checkpoints import TrainingFailed
from trainers.clock import Measured
from trainers.head import score_only_answers
from trainers.online_settings import RLHFSettings
from trainers.ppo import PPOTrainer
from trainers.precision import weights_that_move

if TYPE_CHECKING:
    from transformers import TrainerCallback

Scores = Sequence[float | None]
Reward = Callable[..., Scores | Awaitable[Scores]]
"""Called with `prompts`, `completions`, `completion_ids` and the rows' other columns, as TRL does."""

ENOUGH = 64
"""Answers before the share without a score says anything."""


class RLOO(Measured, EpochOrder, RLOOTrainer):
    pass


class GRPO(Measured, EpochOrder, GRPOTrainer):
    pass


class PPO(Measured, PPOTrainer):
    pass


def online_trainer(
    settings: RLHFSettings,
    model: Any,
    tokenizer: Any,
    train: Dataset,
    work: Path,
    seed: int,
    callbacks: "Sequence[TrainerCallback]",
    reward: Reward,
) -> RLOOTrainer | GRPOTrainer:
    """A trainer over rows with `prompt`. The reference is `model` as it comes."""
    own_head = "value_head" if settings.algorithm == "ppo" else None
    common: dict[str, Any] = {
        "model": model,
        "reward_funcs": [judged(reward, settings.max_unjudged)],
        "train_dataset": train,
        "processing_class": tokenizer,
        "peft_config": adapter(settings, model.config.num_hidden_layers, whole=own_head),
        "callbacks": list(callbacks),
    }
    tokenizer.padding_side = "left"
    fields = online_arguments(settings, work, seed)
    trainer: Any
    match settings.algorithm:
        case "rloo":
            trainer = RLOO(args=RLOOConfig(**fields, normalize_advantages=False), **common)
        case "grpo":
            trainer = GRPO(args=GRPOConfig(**fields, loss_type="dapo", scale_rewards="group"), **common)
        case "ppo":
            fields["num_generations"] = max(2, settings.answers)
            trainer = PPO(args=RLOOConfig(**fields), ppo=settings.ppo, answers=settings.answers, **common)
    weights_that_move(trainer, settings, seed)
    if settings.temperature == 1:  # the lean head knows none
        for scored in (trainer.model, trainer.ref_model):
            if scored is not None:
                trainer.lean_head = score_only_answers(scored)
    return trainer


def online_arguments(settings: RLHFSettings, work: Path, seed: int) -> dict[str, Any]:
    """What the configurations of TRL's online trainers share."""
    fields = arguments(settings, work, seed)
    for other in ("max_length", "train_sampling_strategy", "length_column_name"):
        del fields[other]
    return fields | {
        "num_generations": settings.answers,
        "max_completion_length": settings.max_tokens,
        "temperature": settings.temperature,
        "top_p": 1.0,
        "top_k": 0,
        "beta": settings.beta,
        "epsilon": settings.clip,
        "num_iterations": settings.passes,
        "steps_per_generation": fields["gradient_accumulation_steps"] * settings.rollout,
        "mask_truncated_completions": False,
        "disable_dropout": True,
        "shuffle_dataset": True,
        "log_completions": False,
        "use_vllm": False,
    }


def judged(reward: Reward, max_unjudged: float) -> Reward:
    """`reward`, with what it could not judge counted: TRL logs it as `unjudged`, the share of the answers so far.

    Raises (when called):
        TrainingFailed: that share is above `max_unjudged`.
    """
    asked = failed = 0

    async def score(*args: Any, log_metric: Callable[[str, float], None], **kwargs: Any) -> Scores:
        nonlocal asked, failed
        found = reward(*args, **kwargs)
        scores = await found if inspect.isawaitable(found) else found
        asked, failed = asked + len(scores), failed + sum(one is None for one in scores)
        log_metric("unjudged", sum(one is None for one in scores) / len(scores))
        if asked >= ENOUGH and failed > max_unjudged * asked:
            raise TrainingFailed(
                f"{failed} of {asked} answers could not be judged, max_unjudged={max_unjudged:g}; the judge's log says "
                "why"
            )
        return scores

    return score
