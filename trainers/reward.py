"""Train a reward model: a base with one output, on pairs. Settings, base and token rows in, a TRL trainer out.

The reward of a conversation is read at its last token, as `serving.classifier` and vLLM read it. In a padded batch
transformers looks for the last token that is not the padding token, and would take the one before it where a template
ends with that very token; so padding is done with a token that ends no conversation.
"""

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from datasets import Dataset
from trl.trainer.reward_config import RewardConfig
from trl.trainer.reward_trainer import RewardTrainer

from trainers.arguments import adapter, arguments
from trainers.clock import Measured
from trainers.guards import BadInput
from trainers.precision import weights_that_move
from trainers.settings import RewardSettings

if TYPE_CHECKING:
    from transformers import TrainerCallback


class MeasuredReward(Measured, RewardTrainer):
    pass


def reward_config(settings: RewardSettings, work: Path, seed: int) -> RewardConfig:
    return RewardConfig(
        **arguments(settings, work, seed),
        center_rewards_coefficient=settings.center or None,
        disable_dropout=True,
    )


def reward_trainer(
    settings: RewardSettings,
    model: Any,
    tokenizer: Any,
    train: Dataset,
    held_out: Dataset | None,
    work: Path,
    seed: int,
    callbacks: "Sequence[TrainerCallback]",
) -> RewardTrainer:
    """A trainer over rows with `chosen_ids` and `rejected_ids`. `model`: with one output."""
    tokenizer.pad_token = padding(tokenizer, [part for part in (train, held_out) if part is not None])
    trainer = MeasuredReward(
        model=model,
        args=reward_config(settings, work, seed),
        train_dataset=train,
        eval_dataset=held_out,
        processing_class=tokenizer,
        peft_config=adapter(settings, model.config.num_hidden_layers, whole="score", scores=True),
        callbacks=list(callbacks),
    )
    weights_that_move(trainer, settings, seed)
    return trainer


def padding(tokenizer: Any, rows: Sequence[Dataset]) -> str:
    """A special token of the tokenizer that no conversation ends with; its own padding token where that is one.

    Raises:
        BadInput: every special token ends some conversation.
    """
    ends = {ids[-1] for part in rows for name in ("chosen_ids", "rejected_ids") for ids in part[name]}
    every = [
        tokenizer.pad_token_id,
        tokenizer.unk_token_id,
        tokenizer.bos_token_id,
        *tokenizer.all_special_ids,
    ]
    for token in every:
        if token is not None and token not in ends:
            return tokenizer.convert_ids_to_tokens(token)
    raise BadInput(
        f"each of the tokenizer's special tokens {tokenizer.all_special_tokens} ends a conversation, so none can pad: "
        "the score would be read at another token; add a padding token to the tokenizer"
    )
