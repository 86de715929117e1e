"""Fine-tune on dialogues, or go on pretraining on texts. Settings, base and token rows in, a TRL trainer out."""

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from datasets import Dataset
from trl.trainer.sft_config import SFTConfig
from trl.trainer.sft_trainer import SFTTrainer

from trainers.arguments import adapter, arguments, sharded
from trainers.batches import SameSteps
from trainers.clock import Measured
from trainers.head import score_only_answers
from trainers.kernels import fuse
from trainers.precision import weights_that_move
from trainers.settings import PretrainSettings, SFTSettings

if TYPE_CHECKING:
    from transformers import TrainerCallback


def sft_config(settings: SFTSettings | PretrainSettings, work: Path, seed: int) -> SFTConfig:
    return SFTConfig(
        **arguments(settings, work, seed),
        packing=isinstance(settings, SFTSettings) and bool(settings.packing),
        packing_strategy="wrapped"
        if isinstance(settings, SFTSettings) and settings.packing == "wrapped"
        else "bfd",
        eval_packing=False,
        padding_free=False,
        loss_type="nll",
        assistant_only_loss=False,  # the labels come with the rows
        completion_only_loss=None,
        shuffle_dataset=False,
    )


class MeasuredSFT(SameSteps, Measured, SFTTrainer):
    fused = ""
    """Kernels of Liger in the model, or why there are none."""


def sft_trainer(
    settings: SFTSettings | PretrainSettings,
    model: Any,
    tokenizer: Any,
    train: Dataset,
    held_out: Dataset | None,
    work: Path,
    seed: int,
    callbacks: "Sequence[TrainerCallback]",
) -> SFTTrainer:
    """A trainer over rows with `input_ids` and `labels`."""
    trainer = MeasuredSFT(
        model=model,
        args=sft_config(settings, work, seed),
        train_dataset=train,
        eval_dataset=held_out,
        processing_class=tokenizer,
        peft_config=adapter(settings, model.config.num_hidden_layers),
        callbacks=list(callbacks),
    )
    weights_that_move(trainer, settings, seed)
    base: Any = trainer.model
    base = base.get_base_model() if hasattr(base, "get_base_model") else base
    trainer.fused = "none: shards" if sharded() else fuse(base)
    score_only_answers(trainer.model)
    return trainer
