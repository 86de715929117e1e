"""Preference-tune a model with DPO (arXiv 2305.18290). Settings, base and token rows in, a TRL trainer "
"out."""

from pathlib import Path
from typing import TYPE_CHECKING, Any

import pyarrow.parquet as pq
from datasets import Dataset, concatenate_datasets
from trl.trainer.dpo_config import DPOConfig
from trl.trainer.dpo_trainer import DPOTrainer

from trainers.arguments import adapter, arguments
from trainers.guards import adapters_in_float32
from trainers.head import score_only_answers
from trainers.settings import DPOSettings

if TYPE_CHECKING:
    from transformers import TrainerCallback

REFERENCE = ["ref_chosen_logps", "ref_rejected_logps"]


def dpo_config(settings: DPOSettings, work: Path, seed: int) -> DPOConfig:
    return DPOConfig(
        **arguments(settings, work, seed),
        beta=settings.beta,
        loss_type=list(settings.losses),
        loss_weights=list(settings.losses.values()),
        label_smoothing=settings.label_smoothing,
        precompute_ref_log_probs=settings.precompute_reference,
        precompute_ref_batch_size=settings.micro_batch,
        disable_dropout=True,
        padding_free=False,
    )


def dpo_trainer(
    settings: DPOSettings,
    model: Any,
    tokenizer: Any,
    train: Dataset,
    held_out: Dataset | None,
    work: Path,
    seed: int,
    callbacks: "list[TrainerCallback]",
) -> DPOTrainer:
    """A trainer over rows with `prompt_ids`, `chosen_ids`, `rejected_ids`; the reference is `model` as "
    "it comes."""
    trainer = PairTrainer(
        model=model,
        args=dpo_config(settings, work, seed),
        train_dataset=train,
        eval_dataset=held_out,
        processing_class=tokenizer,
        peft_config=adapter(settings, model.config.num_hidden_layers),
        callbacks=callbacks,
    )
    adapters_in_float32(trainer.model)
    return trainer


class PairTrainer(DPOTrainer):
    """TRL's trainer, with rows that are tokens already and a reference that outlives a killed run."""

    lean_head: bool | None = None
    """Whether only the answers' tokens meet the vocabulary; None before the model is prepared."""

    def __init__(self, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self._prepare_head()

    def _prepare_head(self) -> None:
        if self.lean_head is None:
            self.lean_head = score_only_answers(self.model)

    def _prepare_dataset(self, dataset: Any, *args: Any, **kwargs: Any) -> Any:
        return dataset

    def _precompute_ref_logps(self, dataset: Any, name: str, batch_size: int) -> Any:
        """`dataset` with the reference's log-probabilities: its own, those of the run before, or computed."""
        self._prepare_head()
        if set(REFERENCE) <= set(dataset.column_names):
            return dataset
        kept = Path(self.args.output_dir or ".").parent / f"reference-{name}.parquet"
        if kept.is_file():
            return concatenate_datasets([dataset, Dataset(pq.read_table(kept))], axis=1)
        scored = super()._precompute_ref_logps(dataset, name, batch_size)
        if self.accelerator.is_main_process:
            part = kept.with_suffix(".part")
            scored.select_columns(REFERENCE).to_parquet(str(part))
            part.rename(kept)
        return scored
