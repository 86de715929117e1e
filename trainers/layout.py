"""A batch of conversations as one row of tokens: every prompt once, followed by every answer to it."""

from itertools import accumulate
from typing import Any, NamedTuple

import torch
from torch import Tensor


class Span(NamedTuple):
    """One answer in the row, and where its prompt is."""

    prompt: int
    shared: int
    """Tokens of the prompt that come before the answer's part: all but the last."""
    start: int
    length: int

    @property
    def beside(self) -> bool:
        """Whether the answer is the one right behind its prompt: both are one causal stretch then."""
        return self.start == self.prompt + self.shared

    @property
    def seen(self) -> tuple[range, range]:
        """Places in the row of what the answer attends to: its prompt, and itself."""
        return range(self.prompt, self.prompt + self.shared), range(self.start, self.start + self.length)


class Layout(NamedTuple):
    """A batch as one row."""

    ids: Tensor
    """(T,)"""
    positions: Tensor
    """(T,), of each token in its own conversation."""
    targets: Tensor
    """(T,), the token each one predicts; -100 where nothing is scored."""
    places: Tensor
    """Where in the row each scored token of the batch is, batch row by batch row."""
    keys: Tensor
    """Where in the row the tokens are that each answer attends to, answer by answer: its prompt again, and itself."""
    query_ends: Tensor
    """Where each answer's own tokens end in the row, from 0 on; a prompt's are the first answer's."""
    key_ends: Tensor
    """Where each answer's tokens end in `keys`, from 0 on."""
    spans: list[Span]
    """In the row's order."""
    seen: dict[Any, Any]
    """What an attention made of it once, for all the layers; `kernel` is the attention's name."""

    def to(self, device: torch.device) -> "Layout":
        parts = self._asdict().items()
        return self._replace(**{name: part.to(device) for name, part in parts if isinstance(part, Tensor)})


def lay_out(input_ids: Tensor, labels: Tensor) -> Layout | None:
    """`input_ids` and `labels` of shape (rows, length), right-padded; labels are -100 outside the answer.

    None where nothing is scored.

    Raises:
        ValueError: a row's scored tokens are not one stretch.
    """
    rows, scored = input_ids.tolist(), labels[:, 1:] != -100
    first, counts = scored.int().argmax(1).tolist(), scored.sum(1).tolist()
    answers: dict[tuple[int, ...], dict[tuple[int, ...], int]] = {}
    wanted: list[tuple[tuple[int, ...], tuple[int, ...]]] = []
    for row, (ids, shared, count) in enumerate(zip(rows, first, counts, strict=True)):
        if not count:
            continue
        if not scored[row, shared : shared + count].all():
            raise ValueError("the scored tokens of a row are not one stretch; prompts cannot be shared")
        prompt, answer = tuple(ids[:shared]), tuple(ids[shared : shared + count + 1])
        answers.setdefault(prompt, {}).setdefault(answer, 0)
        wanted.append((prompt, answer))
    if not wanted:
        return None
    ids, positions, targets, spans = [], [], [], []
    for prompt, own in answers.items():
        at = len(ids)
        ids += prompt
        positions += range(len(prompt))
        targets += [-100] * len(prompt)
        for answer in own:
            own[answer] = len(ids)
            spans.append(Span(at, len(prompt), len(ids), len(answer) - 1))
            ids += answer[:-1]
            positions += range(len(prompt), len(prompt) + len(answer) - 1)
            targets += answer[1:]
    places = [answers[prompt][answer] + i for prompt, answer in wanted for i in range(len(answer) - 1)]
    keys = [place for span in spans for part in span.seen for place in part]
    query_ends = [0, *(span.start + span.length for span in spans)]
    key_ends = [0, *accumulate(span.shared + span.length for span in spans)]
    row = map(torch.tensor, (ids, positions, targets, places, keys))
    ends = (torch.tensor(ends, dtype=torch.int32) for ends in (query_ends, key_ends))
    return Layout(*row, *ends, spans, {})  # pyright: ignore[reportCallIssue]
