"""The reference's log-probabilities in a TRL trainer: those that are kept, and the others computed now and kept."""

from typing import Any

import torch
from accelerate.utils import gather_object
from trl.models.utils import prepare_deepspeed

from trainers.batches import part
from trainers.guards import BadInput
from trainers.processes import from_first
from trainers.reference import COLUMNS, Logps, key_of_pair

KEPT_AT_ONCE = 1024
"""Pairs whose reference is computed before it is kept: what a killed run loses at most."""
CHECKED = 3
"""Kept pairs that are computed again before the others are believed."""


class KeptReference:
    """Of TRL's pair trainer. It has `_references`, where they are kept, and `_prepare`, which makes the model ready."""

    def _precompute_ref_logps(self: Any, dataset: Any, name: str, batch_size: int) -> Any:
        """`dataset` with the reference's log-probabilities, those that are kept or else computed now, and kept."""
        self._prepare(dataset)
        keys = [key_of_pair(row) for row in dataset]
        logps = from_first(lambda: self._references.known(keys))
        self._spot_check(dataset, keys, logps)
        missing = list({key: row for row, key in enumerate(keys) if key not in logps}.values())
        for start in range(0, len(missing), KEPT_AT_ONCE):
            some = missing[start : start + KEPT_AT_ONCE]
            new = self._reference_of(dataset, some, batch_size)
            if self.accelerator.is_main_process:
                self._references.add([keys[row] for row in some], new)
            logps |= {keys[row]: found for row, found in zip(some, new, strict=True)}
        self.reference[name] = {"computed": len(missing), "kept": len(set(keys)) - len(missing)}
        for column, place in zip(COLUMNS, (0, 1), strict=True):
            dataset = dataset.add_column(column, [logps[key][place] for key in keys])
        return dataset

    def _reference_of(self: Any, dataset: Any, rows: list[int], batch_size: int) -> list[Logps]:
        """Log-probabilities of `rows`, each process computing its part of them."""
        processes = self.accelerator.num_processes
        own = part(rows, self.accelerator.process_index, processes)
        passes = -(-len(rows) // (processes * batch_size))  # as many in each: shards are gathered together
        found: dict[int, Logps] = {}
        for number in range(passes):
            batch = part(own, number, passes)
            pairs = [dataset[row] for row in batch or rows[:1]]
            chosen, rejected = (logps.tolist() for logps in self._ask_reference(pairs))
            found |= dict(zip(batch, zip(chosen, rejected, strict=True), strict=False))
        every = gather_object([found])
        together = {row: logps for one in every for row, logps in one.items()}
        return [together[row] for row in rows]

    def _ask_reference(self: Any, pairs: list[Any]) -> tuple[torch.Tensor, torch.Tensor]:
        model = self.ref_model or self.model
        if self.ref_model is None and self.is_deepspeed_enabled:
            self._precompute_engine = self._precompute_engine or prepare_deepspeed(
                self.model, self.accelerator
            )
            model = self._precompute_engine
        elif self.ref_model is None and self.is_fsdp_enabled:
            model = self.model.to(self.args.device)  # whole, before it becomes shards
        batch = self.data_collator(pairs)
        batch = {name: batch[name].to(self.args.device) for name in batch if name != "models"}
        return self.compute_ref_log_probs(model, batch)

    def _spot_check(self: Any, dataset: Any, keys: list[str], logps: dict[str, Logps]) -> None:
        """Compute a few of the kept ones again. Where a folder was copied or edited, they would be another model's."""
        known = [row for row, key in enumerate(keys) if key in logps]
        for row in known[:: max(1, len(known) // CHECKED)][:CHECKED]:
            pair = dataset[row]
            again = [float(logps) for logps in self._ask_reference([pair])]
            for kept, found, answer in zip(
                logps[keys[row]], again, ("chosen_ids", "rejected_ids"), strict=True
            ):
                if abs(kept - found) > (1e-3 if self._exact else 0.05) * max(len(pair[answer]), 10):
                    raise BadInput(
                        f"{self._references.folder} says {kept:.2f} nats for an answer to which this base gives "
                        f"{found:.2f}: it was not computed by this model; delete the folder"
                    )
