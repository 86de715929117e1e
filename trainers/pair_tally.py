"""What a step says of its pairs beyond TRL's means: how long the answers are, whether the order is learned where length
does not give it away, and which models' answers it is learned of.

    lengths/chosen 212  lengths/rejected 187                 tokens of an answer, means
    rewards/accuracies_length_matched 0.61                   of pairs whose answers are about as long
    accuracy_chosen/gpt-4 0.97  accuracy_rejected/gpt-4 0.31 of pairs whose chosen, rejected that model wrote
    logps/chosen_change -0.12                                nats a token of the chosen, against the reference
    saturated 0.4                                            share of pairs that hardly teach any more

A model that learned "what gpt-4 writes is better" orders every pair where it wrote the chosen and few where it wrote
the rejected; one that learned "longer is better" is right overall and at chance among the length-matched.
"""

import math
from collections.abc import Sequence
from typing import Any, NamedTuple

import torch
from torch import Tensor

MATCHED = 0.1
"""Answers are about as long where their lengths differ by this share of the longer at most. Our choice."""
SPENT = math.log(99)
"""Margin of rewards from which on a pair's weight in DPO's gradient, sigmoid(-margin), is below 1 %."""
PLAIN = (
    "lengths/chosen",
    "lengths/rejected",
    "rewards/accuracies_length_matched",
    "logps/chosen_change",
    "saturated",
)


class Seen(NamedTuple):
    """B pairs."""

    chosen: Tensor
    """(B,) beta times what the policy's log-probability of the answer has over the reference's."""
    rejected: Tensor
    lengths: Tensor
    """(2, B) tokens of the chosen and of the rejected answers."""
    change: Tensor
    """(B,) of the chosen's log-probability against the reference, nats of the whole answer."""
    models: Tensor | None
    """(B, 2) places in the names of who wrote them; below 0: not known."""


class PairTally:
    """Sums over pairs until they are taken."""

    def __init__(self, models: Sequence[str]) -> None:
        self.names = [
            *PLAIN,
            *(f"accuracy_{side}/{name}" for side in ("chosen", "rejected") for name in models),
        ]
        self._models = len(models)
        self._sums = torch.zeros(2, len(self.names), dtype=torch.float64)
        self.counts: dict[str, int] = {}
        """Pairs, or tokens of `logps/chosen_change`, behind each figure that was taken last."""

    def add(self, seen: Seen) -> None:
        right = (seen.chosen > seen.rejected).double()
        lengths, ones = seen.lengths.double(), torch.ones_like(right)
        matched = ((lengths[0] - lengths[1]).abs() <= MATCHED * lengths.amax(0)).double()
        spent = (seen.chosen - seen.rejected > SPENT).double()
        plain = [
            (lengths[0], ones),
            (lengths[1], ones),
            (right * matched, matched),
            (seen.change.double(), lengths[0]),
            (spent, ones),
        ]
        sums = torch.stack([torch.stack([value.sum(), weight.sum()]) for value, weight in plain], 1)
        if seen.models is not None and self._models:
            for side in (0, 1):
                known = seen.models[:, side] >= 0
                codes = seen.models[known, side]
                by_model = [
                    torch.bincount(codes, weights=weight[known], minlength=self._models)
                    for weight in (right, ones)
                ]
                sums = torch.cat([sums, torch.stack(by_model)], 1)
            self._sums += sums.cpu()
        else:
            self._sums[:, : len(PLAIN)] += sums.cpu()

    def take(self, accelerator: Any) -> dict[str, float]:
        """Means over all devices' pairs since the last time; what no pair was counted for is left out."""
        sums = self._sums
        if accelerator.num_processes > 1:
            sums = accelerator.reduce(sums.float().to(accelerator.device), "sum").cpu().double()
        self._sums = torch.zeros_like(self._sums)
        if not sums.any():
            return {}
        values, weights = sums.tolist()
        self.counts = {name: int(weight) for name, weight in zip(self.names, weights, strict=True) if weight}
        return {
            name: value / weight
            for name, value, weight in zip(self.names, values, weights, strict=True)
            if weight
        }
