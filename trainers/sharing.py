"""Every prompt once and no padding, behind an unchanged TRL trainer.

TRL runs a batch of pairs as two padded rows a pair, so a prompt is computed for each of its answers. Here a batch is
one row of tokens: every distinct prompt, each followed by every distinct answer to it.

    tokens     prompt A .... | answer A1 .. | answer A2 ... | prompt B ... | answer B1 .
    attends to itself        | A, itself    | A, itself     | itself       | B, itself

Positions within an answer go on from its prompt, so rotary embeddings are those of the answer's own row. The last
token of a prompt belongs to each of its answers: what it predicts is the answer's first token. The results are put
back where TRL looks for them; losses and gradients are its own to rounding (`tests/trainers/test_sharing.py`).

The idea is prefix sharing, as in arXiv 2410.20305; the layout is ours.
"""

import types
from itertools import accumulate
from typing import Any, NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor
from transformers import AttentionInterface, AttentionMaskInterface
from transformers.integrations.sdpa_attention import sdpa_attention_forward
from transformers.masking_utils import sdpa_mask

NAME = "prompts_once"
"""Of the attention, among those of transformers."""

SCORES = ("log_probs", "entropy", "log_sum_sq_probs", "mean_logits", "is_top1")
"""What a TRL head gives per token."""


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

    def to(self, device: torch.device) -> "Layout":
        return self._replace(
            **{name: part.to(device) for name, part in self._asdict().items() if name != "spans"}
        )


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
    return Layout(*row, *ends, spans)  # pyright: ignore[reportCallIssue]


def attend(
    module: torch.nn.Module,
    query: Tensor,
    key: Tensor,
    value: Tensor,
    attention_mask: Tensor | None,
    scaling: float | None = None,
    sliding_window: int | None = None,
    layout: Layout | None = None,
    **kwargs: Any,
) -> tuple[Tensor, None]:
    """Attention over a laid-out row, or transformers' own where there is no layout. Shapes (1, heads, T, width)."""
    if layout is None:
        return sdpa_attention_forward(module, query, key, value, attention_mask, scaling=scaling, **kwargs)
    if query.is_cuda and query.dtype in (torch.bfloat16, torch.float16):
        return _varlen(query, key, value, layout, scaling, sliding_window), None
    grouped = key.shape[1] != query.shape[1]
    parts = []
    for span in layout.spans:
        end, total = span.start + span.length, span.shared + span.length
        if span.beside:
            here = slice(span.prompt, end)
            q, k, v = query[:, :, here], key[:, :, here], value[:, :, here]
        else:
            q = query[:, :, span.start : end]
            before, own = slice(span.prompt, span.prompt + span.shared), slice(span.start, end)
            k = torch.cat([key[:, :, before], key[:, :, own]], 2)
            v = torch.cat([value[:, :, before], value[:, :, own]], 2)
        windowed = sliding_window is not None and sliding_window < total
        mask = None
        if windowed or not span.beside:
            mask = torch.ones(q.shape[2], total, dtype=torch.bool, device=q.device).tril(total - q.shape[2])
            if windowed:
                mask = mask.triu(total - q.shape[2] - sliding_window + 1)  # type: ignore[operator]
        parts.append(
            F.scaled_dot_product_attention(
                q, k, v, attn_mask=mask, is_causal=mask is None, scale=scaling, enable_gqa=grouped
            )
        )
    return torch.cat(parts, 2).transpose(1, 2), None


def _varlen(
    query: Tensor, key: Tensor, value: Tensor, layout: Layout, scaling: float | None, window: int | None
) -> Tensor:
    """The same through flash attention over stretches of unequal length; keys of a prompt are repeated per answer."""
    from torch.nn.attention.varlen import varlen_attn

    longest = max(span.shared + span.length for span in layout.spans)
    out = varlen_attn(
        query[0].transpose(0, 1).contiguous(),
        key[0].transpose(0, 1)[layout.keys],
        value[0].transpose(0, 1)[layout.keys],
        layout.query_ends,
        layout.key_ends,
        longest,
        longest,
        scale=scaling,
        window_size=(-1 if window is None else window - 1, 0),
        enable_gqa=key.shape[1] != query.shape[1],
    )
    assert isinstance(out, Tensor)
    return out[None]


def obstacle(model: Any) -> str | None:
    """Why prompts cannot be shared in `model`, or None."""
    config = model.config.get_text_config()
    kinds = set(getattr(config, "layer_types", None) or ["full_attention"])
    if config is not model.config:
        return "it reads more than text"
    if config.is_encoder_decoder:
        return "it is an encoder-decoder"
    if not model._can_set_attn_implementation():
        return "its attention cannot be replaced"
    if other := kinds - {"full_attention", "sliding_attention"}:
        return f"it has layers of kind {', '.join(sorted(other))}"
    if not (getattr(config, "rope_parameters", None) or getattr(config, "rope_theta", None)):
        return "its positions are not rotary"
    if getattr(config, "attn_logit_softcapping", None):
        return "its attention caps logits"
    if getattr(config, "output_router_logits", False):
        return "its router is balanced over every token"
    return None


def share_prompts(model: Any) -> None:
    """Make `model`, already prepared by a TRL trainer, run batches as one row where the fused head is asked for."""
    AttentionInterface.register(NAME, attend)
    AttentionMaskInterface.register(NAME, sdpa_mask)
    model.set_attn_implementation(NAME)
    fused = model.forward

    def forward(
        self: Any,
        *args: Any,
        input_ids: Tensor | None = None,
        labels: Tensor | None = None,
        attention_mask: Tensor | None = None,
        fused_lm_head: bool = False,
        **kwargs: Any,
    ) -> Any:
        row = None
        if self.sharing and fused_lm_head and labels is not None and input_ids is not None:
            row = lay_out(input_ids.cpu(), labels.cpu())
        if row is None:
            if labels is not None:
                kwargs["labels"] = labels
            return fused(
                *args,
                input_ids=input_ids,
                attention_mask=attention_mask,
                fused_lm_head=fused_lm_head,
                **kwargs,
            )
        assert input_ids is not None and labels is not None
        row = row.to(input_ids.device)
        out = fused(
            *args,
            input_ids=row.ids[None],
            position_ids=row.positions[None],
            attention_mask=input_ids.new_ones(
                1, 1, 1, 1
            ),  # four dimensions: taken as it is, no mask is built
            shift_labels=row.targets[None],
            fused_lm_head=True,
            layout=row,
            **kwargs,
        )
        mask = labels[:, 1:] != -100
        for name in SCORES:
            if (scores := out.get(name)) is not None:
                out[name] = scores.new_zeros(mask.shape).masked_scatter(mask, scores[0, row.places])
        out["label_mask"] = mask
        return out

    model.sharing = True
    model.forward = types.MethodType(forward, model)


@torch.no_grad()
def disagreement(model: Any, inputs: dict[str, Tensor], labels: Tensor) -> float:
    """Mean difference of a token's log-probability between the shared and the model's own way, in nats."""
    base = model.get_base_model() if hasattr(model, "get_base_model") else model
    found = []
    for base.sharing in (False, True):
        found.append(model(**inputs, labels=labels, use_cache=False, fused_lm_head=True).log_probs)
    return float((found[0] - found[1]).abs().sum() / (labels[:, 1:] != -100).sum())
