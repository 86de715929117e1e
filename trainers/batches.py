"""What is computed together, and in which order: pairs of one prompt, as many as fit into a number of tokens; prompts
whose answers are sampled together."""

from collections.abc import Iterator, Sequence
from typing import Any

import torch
from torch import Tensor
from torch.utils.data import Sampler

Batch = dict[str, Tensor]
"""As TRL's collator makes it: B chosen rows, then B rejected ones; reference columns have B rows."""


class PromptsTogether(Sampler[int]):
    """Prompts in an order drawn by (seed, epoch); the pairs of one prompt follow each other."""

    def __init__(self, prompts: Sequence[tuple[int, ...]], seed: int) -> None:
        """`prompts`: the tokens of each row's prompt."""
        own: dict[tuple[int, ...], list[int]] = {}
        for row, prompt in enumerate(prompts):
            own.setdefault(prompt, []).append(row)
        self.groups, self.rows, self.seed, self.epoch = list(own.values()), len(prompts), seed, 0

    def set_epoch(self, epoch: int) -> None:
        self.epoch = epoch

    def __len__(self) -> int:
        return self.rows

    def __iter__(self) -> Iterator[int]:
        chance = torch.Generator().manual_seed(self.seed + self.epoch)
        for group in torch.randperm(len(self.groups), generator=chance).tolist():
            yield from self.groups[group]


class EpochOrder:
    """Of TRL's online trainers. Their sampler draws one order after another from where it began, so a run that goes on
    would see the first epoch's order again; here the order is drawn by (seed, epoch)."""

    def _get_train_sampler(self, *args: Any, **kwargs: Any) -> Any:
        parent: Any = super()
        sampler = parent._get_train_sampler(*args, **kwargs)
        sampler.set_epoch = lambda epoch: sampler.generator.manual_seed(sampler.seed + epoch)
        return sampler


def tokens_of(batch: Batch) -> list[int]:
    """Tokens each pair adds to a row that has every prompt once, if its prompt is not there yet."""
    real, answer = batch["attention_mask"].sum(1), batch["completion_mask"].sum(1)
    pairs = len(real) // 2
    return (real[:pairs] + answer[pairs:]).tolist()


def within(lengths: Sequence[int], budget: int, least: int = 1) -> list[list[int]]:
    """Places 0, 1, … in consecutive groups whose lengths sum to `budget` at most; one above it is alone.

    `least`: groups there must be, as where other devices have more; the largest are halved for it.
    """
    groups: list[list[int]] = []
    room = 0
    for place, length in enumerate(lengths):
        if not groups or length > room:
            groups.append([])
            room = budget
        groups[-1].append(place)
        room -= length
    while len(groups) < min(least, len(lengths)):
        largest = max(range(len(groups)), key=lambda i: len(groups[i]))
        half = len(groups[largest]) // 2
        groups[largest : largest + 1] = [groups[largest][:half], groups[largest][half:]]
    return groups


def pick(batch: Batch, pairs: Sequence[int]) -> Batch:
    """Some pairs of a batch."""
    count = len(batch["input_ids"]) // 2
    rows = [*pairs, *(count + pair for pair in pairs)]
    return {name: part[rows if len(part) == 2 * count else list(pairs)] for name, part in batch.items()}
