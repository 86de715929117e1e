"""Preference-tune a model with DPO (arXiv 2305.18290). Settings, base and token rows in, a TRL trainer out."""

from collections.abc import Sequence
from contextlib import nullcontext
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from datasets import Dataset
from trl.trainer.dpo_config import DPOConfig
from trl.trainer.dpo_trainer import DPOTrainer

from trainers.arguments import adapter, arguments, compute, sharded
from trainers.batches import Order, PromptsTogether, SameSteps, part, pick, tokens_of, within
from trainers.clock import Measured
from trainers.head import score_only_answers
from trainers.kept_reference import KeptReference
from trainers.kernels import fuse
from trainers.pair_tally import PairTally, Seen
from trainers.precision import weights_that_move
from trainers.processes import most
from trainers.reference import COLUMNS, References
from trainers.settings import DPOSettings
from trainers.sharing import disagreement, obstacle, share_prompts

if TYPE_CHECKING:
    from transformers import TrainerCallback

WROTE = ("chosen_model", "rejected_model")
"""Columns that say which model wrote the answers, where it is known."""


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
    callbacks: "Sequence[TrainerCallback]",
    references: References | None = None,
) -> "PairTrainer":
    """A trainer over rows with `prompt_ids`, `chosen_ids`, `rejected_ids`; the reference is `model` as it comes.

    `references`: what this model gave before; None keeps it beside the work, for a run that is killed.
    """
    return PairTrainer(
        references=references or References(work / "reference", "base", settings.dtype, compute(settings)),
        settings=settings,
        model=model,
        args=dpo_config(settings, work, seed),
        train_dataset=train,
        eval_dataset=held_out,
        processing_class=tokenizer,
        peft_config=adapter(settings, model.config.num_hidden_layers),
        callbacks=list(callbacks),
    )


class PairTrainer(SameSteps, Measured, KeptReference, DPOTrainer):
    """TRL's trainer, with rows that are tokens already, prompts computed once, and a reference that outlives a run."""

    def __init__(self, *, references: References, settings: DPOSettings, **kwargs: Any) -> None:
        self.lean_head: bool | None = None
        """Whether only the answers' tokens meet the vocabulary; None before the model is prepared."""
        self.fused = ""
        """Kernels of Liger in the model, or why there are none."""
        self.not_shared = None if settings.share_prompts else "share_prompts is off"
        """Why prompts are computed once per answer; None: they are not."""
        self.reference: dict[str, dict[str, int]] = {}
        """Split -> pairs whose reference was computed, and pairs whose was kept."""
        self._references = references
        self._settings = settings
        self._budget, self._weight = settings.micro_tokens, 1.0
        super().__init__(**kwargs)
        self._prepare(self.train_dataset)
        self._watch_pairs()

    def _watch_pairs(self) -> None:
        """Have each pair's log-probabilities seen as they are computed, and the models' names come with the batches."""
        datasets = [part for part in (self.train_dataset, self.eval_dataset) if isinstance(part, Dataset)]
        found = {
            name
            for part in datasets
            for column in WROTE
            if column in part.column_names
            for name in part[column]
        }
        names = sorted(found - {None})
        self.tallies = {mode: PairTally(names) for mode in ("train", "eval")}
        self._outputs: list[Any] | None = None
        models: tuple[Any, ...] = (self.model, self.ref_model)
        for model in models:
            if model is not None:
                model.register_forward_hook(self._note_outputs)
        if names:
            codes = {name: code for code, name in enumerate(names)}
            collate: Any = self.data_collator

            def with_models(rows: list[dict[str, Any]]) -> dict[str, Any]:
                written = [[codes.get(row.get(column), -1) for column in WROTE] for row in rows]
                return {**collate(rows), "models": torch.tensor(written)}

            self.data_collator = with_models

    def _note_outputs(self, module: Any, inputs: Any, output: Any) -> None:
        if self._outputs is not None and getattr(output, "log_probs", None) is not None:
            self._outputs.append(output.log_probs.detach())

    def _prepare(self, dataset: Any) -> None:
        """Give the model its number format, its head and its layout, once. The reference is asked before TRL's own
        set-up ends."""
        if self.lean_head is not None:
            return
        weights_that_move(self, self._settings, self.args.seed)
        self.lean_head = score_only_answers(self.model)
        base: Any = self.accelerator.unwrap_model(self.model)
        base = base.get_base_model() if hasattr(base, "get_base_model") else base
        self.fused = "none: shards" if sharded() else fuse(base)
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
        if base.sharing and nats <= (1e-4 if self._exact else 5e-2):
            return None
        base.sharing = False
        return f"its log-probabilities would differ by {nats:.2g} nats a token"

    @property
    def attention(self) -> dict[str, Any] | None:
        """The kernel that ran over shared rows, and why others did not; None where nothing is shared."""
        base: Any = self.accelerator.unwrap_model(self.model)
        base = base.get_base_model() if hasattr(base, "get_base_model") else base
        choice = getattr(base, "attention", None)
        return {"kernel": choice.name, "refused": choice.refused} if choice else None

    @property
    def _exact(self) -> bool:
        """Whether everything is computed in float32."""
        return compute(self._settings) == "float32" and self._settings.dtype == "float32"

    def _prepare_dataset(self, dataset: Any, *args: Any, **kwargs: Any) -> Any:
        return dataset

    def _order(self) -> Order:
        prompts = [tuple(prompt) for prompt in self.train_dataset["prompt_ids"]]
        if self.not_shared is None and len(set(prompts)) < len(prompts):
            return PromptsTogether(prompts, self.args.seed)
        return super()._order()

    def _step_rows(self) -> int:
        return self._settings.batch

    def training_step(self, model: Any, inputs: Any, num_items_in_batch: Any = None) -> torch.Tensor:
        """This process's pairs of one optimizer step, in as many passes as they need.

        The loss is the mean over the pairs of all processes, whatever the passes and the processes they fall into.
        """
        step, count = self.state.global_step % self._steps_an_epoch, self._settings.batch
        total = min(count, len(self.train_dataset) - step * count)
        own = len(part(range(total), self.args.process_index, self.args.world_size))
        lengths = tokens_of(inputs)
        if self._budget is not None:
            passes = within(lengths, self._budget)
        else:
            passes = within([1] * len(lengths), self._settings.micro_batch)
        weights = [len(pairs) * self.args.world_size / total if own else 0.0 for pairs in passes]
        if self.accelerator.num_processes > 1:  # processes pass together, those with fewer pairs too
            spare = most(self.accelerator, len(passes)) - len(passes)
            passes, weights = passes + [[0]] * spare, weights + [0.0] * spare
        metrics = self._metrics["train"]
        before = {name: len(values) for name, values in metrics.items()}
        loss = torch.zeros((), device=self.args.device)
        for number, (pairs, weight) in enumerate(zip(passes, weights, strict=True)):
            last, self._weight = number == len(passes) - 1, weight
            self.accelerator.gradient_state._set_sync_gradients(last)
            waits = last or self.is_deepspeed_enabled  # it counts the passes itself
            with nullcontext() if waits else self.accelerator.no_sync(model):
                loss += super().training_step(model, pick(inputs, pairs), num_items_in_batch)
        self._weight = 1.0
        for name, values in metrics.items():
            new = values[before.get(name, 0) :]
            if len(new) == len(passes) and any(weights):
                values[-len(new) :] = [sum(v * w for v, w in zip(new, weights, strict=True)) / sum(weights)]
        return loss

    @property
    def _steps_an_epoch(self) -> int:
        return -(-len(self.train_dataset) // self._settings.batch)

    def compute_loss(self, model: Any, inputs: Any, *args: Any, **kwargs: Any) -> Any:
        inputs = dict(inputs)
        models = inputs.pop("models", None)
        self._outputs = []
        found = super().compute_loss(model, inputs, *args, **kwargs)
        outputs, self._outputs = self._outputs, None
        if self._weight:
            self.tallies[self._mode].add(self._seen(outputs, inputs, models))
        return found if self._weight == 1.0 else found * self._weight

    @property
    def _mode(self) -> str:
        model: Any = self.model
        return "train" if model.training else "eval"

    def _seen(self, outputs: list[torch.Tensor], inputs: Any, models: torch.Tensor | None) -> Seen:
        """`outputs`: the policy's, and the reference's where it is computed in every step."""
        policy = outputs[0].sum(1).chunk(2)
        reference = [inputs[name] for name in COLUMNS] if COLUMNS[0] in inputs else outputs[1].sum(1).chunk(2)
        chosen, rejected = (ours - theirs for ours, theirs in zip(policy, reference, strict=True))
        lengths = inputs["completion_mask"].sum(1).view(2, -1)
        return Seen(self.beta * chosen, self.beta * rejected, lengths, chosen, models)

    def log(self, logs: dict[str, float], *args: Any, **kwargs: Any) -> None:
        before = "eval_" if self._mode == "eval" else ""
        figures = self.tallies[self._mode].take(self.accelerator)
        logs.update({f"{before}{name}": value for name, value in figures.items()})
        super().log(logs, *args, **kwargs)
