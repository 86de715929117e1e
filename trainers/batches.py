"""What is computed together, and in which order: pairs of one prompt, as many as fit into a number of tokens; prompts
whose answers are sampled together; each process's part of an optimizer step."""

from collections.abc import Iterator, Sequence
from typing import Any

import torch
from accelerate.data_loader import prepare_data_loader
from torch import Tensor
from torch.utils.data import DataLoader, Dataset, Sampler
from transformers.trainer_pt_utils import get_length_grouped_indices

Batch = dict[str, Tensor]
"""As TRL's collator makes it: B chosen rows, then B rejected ones; reference columns have B rows."""


class Order(Sampler[int]):
    """Rows in an order drawn by (seed, epoch), whatever was drawn before."""

    def __init__(self, rows: int, seed: int, lengths: Sequence[int] | None = None, batch: int = 1) -> None:
        """`lengths`: of each row, where rows of similar length are to be in one `batch`."""
        self.rows, self.seed, self.epoch, self.lengths, self.batch = rows, seed, 0, lengths, batch

    def set_epoch(self, epoch: int) -> None:
        self.epoch = epoch

    def __len__(self) -> int:
        return self.rows

    @property
    def chance(self) -> torch.Generator:
        return torch.Generator().manual_seed(self.seed + self.epoch)

    def __iter__(self) -> Iterator[int]:
        if self.lengths is None:
            return iter(torch.randperm(self.rows, generator=self.chance).tolist())
        return iter(get_length_grouped_indices(self.lengths, self.batch, generator=self.chance))


class PromptsTogether(Order):
    """The pairs of one prompt follow each other."""

    def __init__(self, prompts: Sequence[tuple[int, ...]], seed: int) -> None:
        """`prompts`: the tokens of each row's prompt."""
        super().__init__(len(prompts), seed)
        own: dict[tuple[int, ...], list[int]] = {}
        for row, prompt in enumerate(prompts):
            own.setdefault(prompt, []).append(row)
        self.groups = list(own.values())

    def __iter__(self) -> Iterator[int]:
        for group in torch.randperm(len(self.groups), generator=self.chance).tolist():
            yield from self.groups[group]


class Steps(Sampler[list[int]]):
    """What one of several processes computes: its part of every optimizer step, in passes.

    A step is the same `size` rows of the order whatever the number of processes, and the last of an epoch has what is
    left. Processes make the same number of passes, for they wait for each other; one that has no row for a pass gets
    number `len(order)`, which stands for a row without labels.
    """

    def __init__(self, order: Order, size: int, micro: int, process: int, processes: int) -> None:
        """`micro`: rows of a pass at most."""
        self.order, self.size, self.micro = order, size, micro
        self.process, self.processes = process, processes

    def set_epoch(self, epoch: int) -> None:
        self.order.set_epoch(epoch)

    def __len__(self) -> int:
        whole, rest = divmod(len(self.order), self.size)
        return whole * self._passes(self.size) + (self._passes(rest) if rest else 0)

    def __iter__(self) -> Iterator[list[int]]:
        rows = list(self.order)
        for start in range(0, len(rows), self.size):
            step = rows[start : start + self.size]
            own = part(step, self.process, self.processes)
            passes = self._passes(len(step))
            for number in range(passes):
                yield part(own, number, passes) or [len(rows)]

    def _passes(self, rows: int) -> int:
        return -(-rows // (self.processes * self.micro))


def part(rows: Sequence[int], number: int, of: int) -> list[int]:
    """The `number`th of `of` consecutive parts, from 0; the first have one more where it does not come out even."""
    each, rest = divmod(len(rows), of)
    start = number * each + min(number, rest)
    return list(rows[start : start + each + (number < rest)])


class WithBlank(Dataset[dict[str, Any]]):
    """Rows, and at their end one whose labels count for nothing."""

    def __init__(self, rows: Any) -> None:
        self.rows = rows

    def __len__(self) -> int:
        return len(self.rows)

    def __getitem__(self, number: int) -> dict[str, Any]:
        if number < len(self.rows):
            return self.rows[number]
        row = dict(self.rows[0])
        return row | {"labels": [-100] * len(row["labels"])} if "labels" in row else row


class SameSteps:
    """Of TRL's trainers: an optimizer step is the same rows in the same order, however many processes share it, and
    each row has the same weight in it."""

    def _order(self) -> Order:
        own: Any = self
        rows, args = own.train_dataset, own.args
        if args.train_sampling_strategy == "group_by_length":
            return Order(len(rows), args.data_seed, rows["length"], self._step_rows())
        return Order(len(rows), args.data_seed)

    def _step_rows(self) -> int:
        """Rows of an optimizer step, over all processes."""
        args: Any = self.args  # pyright: ignore[reportAttributeAccessIssue]
        return args.per_device_train_batch_size * args.gradient_accumulation_steps * args.world_size

    def get_train_dataloader(self) -> Any:
        own: Any = self
        args = own.args
        micro = args.per_device_train_batch_size
        steps = Steps(self._order(), self._step_rows(), micro, args.process_index, args.world_size)
        loader = DataLoader(
            WithBlank(own.train_dataset),
            batch_sampler=steps,
            collate_fn=own.data_collator,
            num_workers=args.dataloader_num_workers,
            pin_memory=args.dataloader_pin_memory,
        )
        device = own.accelerator.device
        return prepare_data_loader(loader, device, num_processes=1, process_index=0, put_on_device=True)


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


def within(lengths: Sequence[int], budget: int) -> list[list[int]]:
    """Places 0, 1, … in consecutive groups whose lengths sum to `budget` at most; one above it is alone."""
    groups: list[list[int]] = []
    room = 0
    for place, length in enumerate(lengths):
        if not groups or length > room:
            groups.append([])
            room = budget
        groups[-1].append(place)
        room -= length
    return groups


def pick(batch: Batch, pairs: Sequence[int]) -> Batch:
    """Some pairs of a batch."""
    count = len(batch["input_ids"]) // 2
    rows = [*pairs, *(count + pair for pair in pairs)]
    return {name: part[rows if len(part) == 2 * count else list(pairs)] for name, part in batch.items()}
