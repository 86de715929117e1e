"""Where the time of a training run goes, and what comes of it.

    time/forward 0.31  time/backward 0.52  time/optimizer 0.04  time/data 0.13     shares, they sum to 1
    tokens_per_s/unique 410  tokens_per_s/padded 905  mfu 0.38

Unique tokens are those that must be computed: a pair's prompt once, and no padding. Padded tokens are what the same
rows fill as a padded batch. MFU is the share of the device's peak that went into what the unique tokens need; work
that is repeated (checkpointing) or spent on padding does not count.
"""

import time
from collections import Counter
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any

import torch
from transformers import TrainerCallback

from trainers.batches import tokens_of
from trainers.cost import operations, peak, weights_of

PHASES = ("forward", "backward", "optimizer", "data", "sampling", "saving", "judging")
"""`sampling` is the online trainers': answers and their rewards. `data` is what is left: rows, logging, the rest."""


class Clock(TrainerCallback):
    """Seconds by phase, on this device; one phase at a time."""

    def __init__(self) -> None:
        self.seconds: Any = Counter()
        """Of each phase; a Counter, of floats."""
        self.tokens: Counter[str] = Counter()
        """unique, padded, scored (those that meet the vocabulary), squares (of the rows' lengths)."""
        self._phase: str | None = None
        self._at = 0.0
        self._told: tuple[Any, Counter[str]] = (Counter(), Counter())

    def switch(self, phase: str | None) -> str | None:
        """The phase until now. None: nothing is counted."""
        if torch.cuda.is_available():
            torch.cuda.synchronize()
        now = time.perf_counter()
        if self._phase is not None:
            self.seconds[self._phase] += now - self._at
        before, self._phase, self._at = self._phase, phase, now
        return before

    @contextmanager
    def phase(self, name: str) -> Iterator[None]:
        before = self.switch(name)
        try:
            yield
        finally:
            self.switch(before)

    def on_train_begin(self, *args: Any, **kwargs: Any) -> None:
        self.switch("data")

    def on_pre_optimizer_step(self, *args: Any, **kwargs: Any) -> None:
        self.switch("optimizer")

    def on_optimizer_step(self, *args: Any, **kwargs: Any) -> None:
        self.switch("data")

    def on_train_end(self, *args: Any, **kwargs: Any) -> None:
        self.switch(None)

    def count(self, inputs: Any) -> None:
        """The tokens of a batch as a collator gives it."""
        if not isinstance(inputs, Mapping) or "input_ids" not in inputs:
            return
        inputs = dict(inputs)
        ids, mask = inputs["input_ids"], inputs.get("attention_mask")
        lengths = mask.sum(1) if mask is not None and mask.dim() == 2 else torch.tensor([ids.numel()])
        unique = sum(tokens_of(inputs)) if "completion_mask" in inputs else int(lengths.sum())
        scored = inputs["completion_mask"] if "completion_mask" in inputs else inputs.get("labels")
        self.tokens["unique"] += unique
        self.tokens["padded"] += ids.numel()
        self.tokens["squares"] += int((lengths**2).sum()) if mask is not None else 0
        if scored is not None:
            self.tokens["scored"] += int(
                (scored > 0).sum() if "completion_mask" in inputs else (scored != -100).sum()
            )

    def since_told(self) -> tuple[Any, Counter[str]]:
        """Seconds and tokens since this was called last."""
        self.switch(self._phase)
        seconds, tokens = self._told
        found = self.seconds - seconds, self.tokens - tokens
        self._told = self.seconds.copy(), self.tokens.copy()
        return found


class Measured:
    """Of a TRL trainer: its clock, and what the clock says in every line of its log."""

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        self.clock = Clock()
        self.notes: dict[str, float] = {}
        """Figures for the next line of the log."""
        super().__init__(*args, **kwargs)
        trainer: Any = self
        trainer.add_callback(self.clock)
        self._config: Any = trainer.accelerator.unwrap_model(trainer.model).config.get_text_config()
        self._weights = weights_of(self._config)
        frozen = any(not p.requires_grad for p in trainer.model.parameters())
        self._passes = 2 if frozen else 3
        self._peak: tuple[float, str] | None = None

    def training_step(self, model: Any, inputs: Any, *args: Any, **kwargs: Any) -> Any:
        parent: Any = super()
        with self.clock.phase("backward"):  # what is neither forward nor sampling
            self.clock.count(inputs)
            return parent.training_step(model, inputs, *args, **kwargs)

    def compute_loss(self, *args: Any, **kwargs: Any) -> Any:
        parent, trainer = super(), self
        if not trainer.model.training:  # type: ignore[attr-defined]
            return parent.compute_loss(*args, **kwargs)  # type: ignore[misc]
        with self.clock.phase("forward"):
            return parent.compute_loss(*args, **kwargs)  # type: ignore[misc]

    def _save_checkpoint(self, *args: Any, **kwargs: Any) -> None:
        parent: Any = super()
        with self.clock.phase("saving"):
            parent._save_checkpoint(*args, **kwargs)

    def _generate_and_score_completions(self, *args: Any, **kwargs: Any) -> Any:
        """Of the online trainers; the others have none."""
        parent: Any = super()
        with self.clock.phase("sampling"):
            return parent._generate_and_score_completions(*args, **kwargs)

    def log(self, logs: dict[str, float], *args: Any, **kwargs: Any) -> None:
        parent: Any = super()
        if "loss" in logs:
            seconds, tokens = self.clock.since_told()
            logs.update(self._figures(seconds, tokens) | self.notes)
            self.notes.clear()
        parent.log(logs, *args, **kwargs)

    def _figures(self, seconds: Any, tokens: Counter[str]) -> dict[str, float]:
        whole = sum(seconds.values())
        if whole <= 0:
            return {}
        found = {f"time/{phase}": seconds[phase] / whole for phase in PHASES if seconds[phase]}
        if tokens["unique"]:
            found |= {
                f"tokens_per_s/{kind}": self._devices * tokens[kind] / whole for kind in ("unique", "padded")
            }
            found["mfu"] = (
                self._passes * operations(self._weights, self._config, tokens) / (whole * self._top[0])
            )
        return found

    def run_figures(self) -> dict[str, Any]:
        """Of the whole run, as `metrics.json` has them: seconds, tokens per second over all devices, MFU."""
        seconds, tokens = self.clock.seconds, self.clock.tokens
        found: dict[str, Any] = {
            "seconds": {name: round(seconds[name], 3) for name in PHASES if seconds[name]}
        }
        if tokens["unique"]:
            found["tokens"] = {kind: self._devices * tokens[kind] for kind in ("unique", "padded")}
            found |= {
                name: round(value, 4)
                for name, value in self._figures(seconds, tokens).items()
                if not name.startswith("time/")
            }
            found["peak_tflops"], found["device"] = round(self._top[0] / 1e12, 4), self._top[1]
        return found

    @property
    def _devices(self) -> int:
        trainer: Any = self
        return trainer.accelerator.num_processes

    @property
    def _top(self) -> tuple[float, str]:
        """Of one device."""
        trainer: Any = self
        if self._peak is None:
            low = trainer.args.bf16 or torch.bfloat16 in {p.dtype for p in trainer.model.parameters()}
            self._peak = peak("bfloat16" if low else "float32", self._config)
        return self._peak
