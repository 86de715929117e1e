"""Preference-tune a model with DPO (arXiv 2305.18290). Settings, base and token rows in, a TRL trainer out."""

from contextlib import nullcontext
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pyarrow.parquet as pq
import torch
from datasets import Dataset, concatenate_datasets
from trl.trainer.dpo_config import DPOConfig
from trl.trainer.dpo_trainer import DPOTrainer

from trainers.arguments import adapter, arguments
from trainers.batches import PromptsTogether, pick, tokens_of, within
from trainers.guards import adapters_in_float32
from trainers.head import score_only_answers
from trainers.settings import DPOSettings
from trainers.sharing import disagreement, obstacle, share_prompts

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
    """A trainer over rows with `prompt_ids`, `chosen_ids`, `rejected_ids`; the reference is `model` as it comes."""
    trainer = PairTrainer(
        share=settings.share_prompts,
        budget=settings.micro_tokens,
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
    """TRL's trainer, with rows that are tokens already, prompts computed once, and a reference that outlives a run."""

    def __init__(self, *, share: bool, budget: int | None, **kwargs: Any) -> None:
        """`budget`: tokens per forward pass; None leaves the batch as it is."""
        self.lean_head: bool | None = None
        """Whether only the answers' tokens meet the vocabulary; None before the model is prepared."""
        self.not_shared = None if share else "share_prompts is off"
        """Why prompts are computed once per answer; None: they are not."""
        self._budget, self._share_of_step = budget, 1.0
        super().__init__(**kwargs)
        self._prepare(self.train_dataset)

    def _prepare(self, dataset: Any) -> None:
        """Give the model its head and its layout, once. The reference is asked before TRL's own set-up ends."""
        if self.lean_head is not None:
            return
        self.lean_head = score_only_answers(self.model)
        base: Any = self.accelerator.unwrap_model(self.model)
        base = base.get_base_model() if hasattr(base, "get_base_model") else base
        self.not_shared = self.not_shared or obstacle(base)
        if self.not_shared is None:
            share_prompts(base)
            if not (self.is_fsdp_enabled or self.is_deepspeed_enabled):  # there the weights are not whole yet
                self.not_shared = self._disagreement(base, dataset)

    def _disagreement(self, base: Any, dataset: Any) -> str | None:
        batch = {name: part.to(self.args.device) for name, part in self.data_collator([dataset[0]]).items()}
        labels = batch["input_ids"].masked_fill(batch["completion_mask"] == 0, -100)
        inputs = {name: batch[name] for name in ("input_ids", "attention_mask")}
        with self.accelerator.autocast():
            nats = disagreement(self.model, inputs, labels)
        exact = next(base.parameters()).dtype == torch.float32 and not self.args.bf16
        if base.sharing and nats <= (1e-4 if exact else 5e-2):
            return None
        base.sharing = False
        return f"its log-probabilities would differ by {nats:.2g} nats a token"

    def _prepare_dataset(self, dataset: Any, *args: Any, **kwargs: Any) -> Any:
        return dataset

    def _get_train_sampler(self, train_dataset: Any = None) -> Any:
        prompts = [tuple(prompt) for prompt in self.train_dataset["prompt_ids"]]
        if self.not_shared is None and len(set(prompts)) < len(prompts):
            return PromptsTogether(prompts, self.args.seed)
        return super()._get_train_sampler(train_dataset)

    def training_step(self, model: Any, inputs: Any, num_items_in_batch: Any = None) -> torch.Tensor:
        """One batch, in as many passes as its tokens need; the loss is the mean over its pairs all the same."""
        if self._budget is None:
            return super().training_step(model, inputs, num_items_in_batch)
        lengths = tokens_of(inputs)
        parts = within(lengths, self._budget)
        if self.accelerator.num_processes > 1:  # devices must pass together, those with fewer tokens too
            parts = within(lengths, self._budget, most(self.accelerator, len(parts)))
        metrics = self._metrics["train"]
        before = {name: len(values) for name, values in metrics.items()}
        total = torch.zeros((), device=self.args.device)
        for i, pairs in enumerate(parts):
            self._share_of_step = len(pairs) / len(lengths)
            last = i == len(parts) - 1
            with nullcontext() if last else self.accelerator.no_sync(model):
                total += super().training_step(model, pick(inputs, pairs), num_items_in_batch)
        self._share_of_step = 1.0
        for name, values in metrics.items():
            new = values[before.get(name, 0) :]
            if len(new) == len(parts):
                values[-len(new) :] = [
                    sum(v * len(pairs) for v, pairs in zip(new, parts, strict=True)) / len(lengths)
                ]
        return total

    def compute_loss(self, *args: Any, **kwargs: Any) -> Any:
        found = super().compute_loss(*args, **kwargs)
        return found if self._share_of_step == 1.0 else found * self._share_of_step

    def _precompute_ref_logps(self, dataset: Any, name: str, batch_size: int) -> Any:
        """`dataset` with the reference's log-probabilities: its own, those of the run before, or computed."""
        self._prepare(dataset)
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


def most(accelerator: Any, number: int) -> int:
    """The largest of every device's number."""
    return int(accelerator.gather(torch.tensor([number], device=accelerator.device)).max())
