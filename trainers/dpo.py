"""Preference-tune a model with DPO (arXiv 2305.18290). Settings, base and token rows in, a TRL trainer out."""

from collections.abc import Sequence
from contextlib import nullcontext
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from datasets import Dataset
from trl.trainer.dpo_config import DPOConfig
from trl.trainer.dpo_trainer import DPOTrainer

from trainers.arguments import adapter, arguments, compute
from trainers.batches import PromptsTogether, pick, tokens_of, within
from trainers.clock import Measured
from trainers.guards import BadInput, adapters_in_float32
from trainers.head import score_only_answers
from trainers.pair_tally import PairTally, Seen
from trainers.reference import COLUMNS, Logps, References, key_of_pair
from trainers.settings import DPOSettings
from trainers.sharing import disagreement, obstacle, share_prompts

if TYPE_CHECKING:
    from transformers import TrainerCallback

KEPT_AT_ONCE = 1024
"""Pairs whose reference is computed before it is kept: what a killed run loses at most."""
WROTE = ("chosen_model", "rejected_model")
"""Columns that say which model wrote the answers, where it is known."""
CHECKED = 3
"""Kept pairs that are computed again before the others are believed."""


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
    trainer = PairTrainer(
        references=references or References(work / "reference", "base", settings.dtype, compute(settings)),
        share=settings.share_prompts,
        budget=settings.micro_tokens,
        model=model,
        args=dpo_config(settings, work, seed),
        train_dataset=train,
        eval_dataset=held_out,
        processing_class=tokenizer,
        peft_config=adapter(settings, model.config.num_hidden_layers),
        callbacks=list(callbacks),
    )
    adapters_in_float32(trainer.model)
    return trainer


class PairTrainer(Measured, DPOTrainer):
    """TRL's trainer, with rows that are tokens already, prompts computed once, and a reference that outlives a run."""

    def __init__(self, *, references: References, share: bool, budget: int | None, **kwargs: Any) -> None:
        """`budget`: tokens per forward pass; None leaves the batch as it is."""
        self.lean_head: bool | None = None
        """Whether only the answers' tokens meet the vocabulary; None before the model is prepared."""
        self.not_shared = None if share else "share_prompts is off"
        """Why prompts are computed once per answer; None: they are not."""
        self.reference: dict[str, dict[str, int]] = {}
        """Split -> pairs whose reference was computed, and pairs whose was kept."""
        self._references = references
        self._budget, self._share_of_step = budget, 1.0
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
        if base.sharing and nats <= (1e-4 if self._exact else 5e-2):
            return None
        base.sharing = False
        return f"its log-probabilities would differ by {nats:.2g} nats a token"

    @property
    def _exact(self) -> bool:
        """Whether everything is computed in float32."""
        model: Any = self.model
        return not self.args.bf16 and next(model.parameters()).dtype == torch.float32

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

    def compute_loss(self, model: Any, inputs: Any, *args: Any, **kwargs: Any) -> Any:
        inputs = dict(inputs)
        models = inputs.pop("models", None)
        self._outputs = []
        found = super().compute_loss(model, inputs, *args, **kwargs)
        outputs, self._outputs = self._outputs, None
        self.tallies[self._mode].add(self._seen(outputs, inputs, models))
        return found if self._share_of_step == 1.0 else found * self._share_of_step

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

    def _precompute_ref_logps(self, dataset: Any, name: str, batch_size: int) -> Any:
        """`dataset` with the reference's log-probabilities, those that are kept or else computed now, and kept."""
        self._prepare(dataset)
        keys = [key_of_pair(row) for row in dataset]
        logps = self._references.known(keys)
        self._spot_check(dataset, keys, logps)
        missing = list({key: row for row, key in enumerate(keys) if key not in logps}.values())
        for start in range(0, len(missing), KEPT_AT_ONCE):
            part = missing[start : start + KEPT_AT_ONCE]
            scored = super()._precompute_ref_logps(dataset.select(part), name, batch_size)
            new = list(zip(*(scored[column] for column in COLUMNS), strict=True))
            if self.accelerator.is_main_process:
                self._references.add([keys[row] for row in part], new)
            logps |= {keys[row]: found for row, found in zip(part, new, strict=True)}
        self.reference[name] = {"computed": len(missing), "kept": len(set(keys)) - len(missing)}
        for column, place in zip(COLUMNS, (0, 1), strict=True):
            dataset = dataset.add_column(column, [logps[key][place] for key in keys])
        return dataset

    def _spot_check(self, dataset: Any, keys: list[str], logps: dict[str, Logps]) -> None:
        """Compute a few of the kept ones again. Where a folder was copied or edited, they would be another model's."""
        known = [row for row, key in enumerate(keys) if key in logps]
        for row in known[:: max(1, len(known) // CHECKED)][:CHECKED]:
            pair = dataset[row]
            batch = {
                n: part.to(self.args.device)
                for n, part in self.data_collator([pair]).items()
                if n != "models"
            }
            again = [float(part) for part in self.compute_ref_log_probs(self.model, batch)]
            for kept, found, answer in zip(
                logps[keys[row]], again, ("chosen_ids", "rejected_ids"), strict=True
            ):
                if abs(kept - found) > (1e-3 if self._exact else 0.05) * max(len(pair[answer]), 10):
                    raise BadInput(
                        f"{self._references.folder} says {kept:.2f} nats for an answer to which this base gives "
                        f"{found:.2f}: it was not computed by this model; delete the folder"
                    )


def most(accelerator: Any, number: int) -> int:
    """The largest of every device's number."""
    return int(accelerator.gather(torch.tensor([number], device=accelerator.device)).max())
