"""Attention over a laid-out row, by the fastest kernel that gives the right numbers on this machine.

    varlen      torch's flash attention over stretches of unequal length; GPUs from Ampere on, 16 bits
    flash_attn  the same from the package flash-attn, where it is installed
    flex        torch's flex_attention, compiled; any GPU that Triton knows
    spans       an attention per answer; everywhere, and what the others must agree with

A kernel is believed after it gave the results and gradients of `spans` on a small row, on the device and in the number
format in which it is wanted. One that fails, or differs, is left out, and `Choice.refused` says why.
"""

from collections.abc import Callable, Iterable
from functools import lru_cache
from typing import Any, NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor
from transformers.integrations.sdpa_attention import sdpa_attention_forward

from trainers.layout import Layout, lay_out

Kernel = Callable[[Tensor, Tensor, Tensor, Layout, float | None, int | None], Tensor]
"""(query, key, value, layout, scale, window) -> (1, T, heads, width); the first three are (1, heads, T, width), with
fewer heads for key and value where they are grouped. `window`: tokens a token sees, itself included; None: all."""

APART = {torch.bfloat16: 2e-2, torch.float16: 4e-3, torch.float32: 1e-4}
"""Largest difference from `spans` in float32, as a part of its largest value."""


class Choice(NamedTuple):
    name: str
    kernel: Kernel
    refused: dict[str, str]
    """Kernel -> why not."""


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
    """For transformers' interface: over a laid-out row, or its own attention where there is no layout."""
    if layout is None:
        return sdpa_attention_forward(module, query, key, value, attention_mask, scaling=scaling, **kwargs)
    shape = (query.shape[1], key.shape[1], query.shape[3])
    choice = chosen(query.device, query.dtype, *shape, sliding_window is not None)
    layout.seen["kernel"] = choice
    return choice.kernel(query, key, value, layout, scaling, sliding_window), None


@lru_cache
def chosen(
    device: torch.device, dtype: torch.dtype, heads: int, grouped: int, width: int, windowed: bool
) -> Choice:
    """The first kernel that works for such tensors. `grouped`: heads of key and value."""
    if device.type != "cuda":
        return Choice("spans", spans, {})
    return choose(device, dtype, heads, grouped, width, windowed, KERNELS.items())


def choose(
    device: torch.device,
    dtype: torch.dtype,
    heads: int,
    grouped: int,
    width: int,
    windowed: bool,
    kernels: Iterable[tuple[str, Kernel]],
) -> Choice:
    """The first of `kernels` that agrees with `spans` on a small row."""
    refused: dict[str, str] = {}
    for name, kernel in kernels:
        try:
            apart = difference(kernel, device, dtype, heads, grouped, width, 9 if windowed else None)
        except Exception as error:  # whatever a kernel for other machines or versions raises, it is not used
            refused[name] = f"{type(error).__name__}: {error}"[:200]
            continue
        if apart <= APART[dtype]:
            return Choice(name, kernel, refused)
        refused[name] = f"its numbers are {apart:.2g} of the largest from the right ones"
    return Choice("spans", spans, refused)


def small_row() -> Layout:
    """Three prompts, each with three answers of unequal length."""
    sequences = [
        [*range(20 + prompt), *[prompt] * (3 + 5 * answer), 7] for prompt in range(3) for answer in range(3)
    ]
    ids = torch.zeros(len(sequences), max(map(len, sequences)), dtype=torch.long)
    labels = torch.full_like(ids, -100)
    for row, sequence in enumerate(sequences):
        ids[row, : len(sequence)] = torch.tensor(sequence)
        labels[row, 20 + row // 3 : len(sequence)] = 1
    layout = lay_out(ids, labels)
    assert layout is not None
    return layout


@torch.enable_grad()
def difference(
    kernel: Kernel,
    device: torch.device,
    dtype: torch.dtype,
    heads: int,
    grouped: int,
    width: int,
    window: int | None,
) -> float:
    """Of results and gradients from those of `spans` in float32, as a part of the largest."""
    chance, layout = torch.Generator().manual_seed(0), small_row().to(device)
    shapes = [(1, count, len(layout.ids), width) for count in (heads, grouped, grouped)]
    given = [torch.randn(shape, generator=chance).to(dtype) for shape in shapes]
    found: list[list[Tensor]] = []
    with torch.autocast(device.type, enabled=False):
        for one, of in ((kernel, dtype), (spans, torch.float32)):
            tensors = [part.to(device, of).requires_grad_() for part in given]
            q, k, v = tensors
            out = one(q, k, v, layout._replace(seen={}), width**-0.5, window)
            gradients = torch.autograd.grad((out.float() * out.detach().float().sin()).sum(), tensors)
            found.append([out.float(), *(gradient.float() for gradient in gradients)])
    return max(float((a - b).abs().max() / b.abs().max()) for a, b in zip(*found, strict=True))


def spans(
    query: Tensor, key: Tensor, value: Tensor, layout: Layout, scaling: float | None, window: int | None
) -> Tensor:
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
        windowed = window is not None and window < total
        mask = None
        if windowed or not span.beside:
            mask = torch.ones(q.shape[2], total, dtype=torch.bool, device=q.device).tril(total - q.shape[2])
            if windowed:
                mask = mask.triu(total - q.shape[2] - window + 1)  # type: ignore[operator]
        parts.append(
            F.scaled_dot_product_attention(
                q, k, v, attn_mask=mask, is_causal=mask is None, scale=scaling, enable_gqa=grouped
            )
        )
    return torch.cat(parts, 2).transpose(1, 2)


def _stretches(query: Tensor, key: Tensor, value: Tensor, layout: Layout) -> tuple[Any, ...]:
    """What kernels for stretches of unequal length take: a prompt's keys are repeated for each of its answers."""
    longest = max(span.shared + span.length for span in layout.spans)
    q = query[0].transpose(0, 1).contiguous()
    k, v = (part[0].transpose(0, 1)[layout.keys] for part in (key, value))
    return q, k, v, layout.query_ends, layout.key_ends, longest, longest


def varlen(
    query: Tensor, key: Tensor, value: Tensor, layout: Layout, scaling: float | None, window: int | None
) -> Tensor:
    from torch.nn.attention.varlen import varlen_attn

    before = -1 if window is None else window - 1
    out = varlen_attn(
        *_stretches(query, key, value, layout),
        scale=scaling,
        window_size=(before, 0),
        enable_gqa=key.shape[1] != query.shape[1],
    )
    assert isinstance(out, Tensor)
    return out[None]


def flash_attn(
    query: Tensor, key: Tensor, value: Tensor, layout: Layout, scaling: float | None, window: int | None
) -> Tensor:
    from flash_attn import flash_attn_varlen_func  # pyright: ignore[reportMissingImports]

    before = -1 if window is None else window - 1
    stretches = _stretches(query, key, value, layout)
    return flash_attn_varlen_func(
        *stretches, softmax_scale=scaling, causal=True, window_size=(before, 0 if window else -1)
    )[None]


def flex(
    query: Tensor, key: Tensor, value: Tensor, layout: Layout, scaling: float | None, window: int | None
) -> Tensor:
    if ("flex", window) not in layout.seen:
        layout.seen["flex", window] = _block_mask(layout, window)
    attention = _flex_on(query.device.type)
    mask, grouped = layout.seen["flex", window], key.shape[1] != query.shape[1]
    return attention(query, key, value, block_mask=mask, scale=scaling, enable_gqa=grouped).transpose(1, 2)


@lru_cache
def _flex_on(device: str) -> Any:
    """Compiled it skips what the mask hides; as it is, it computes all and hides it then."""
    from torch.nn.attention.flex_attention import flex_attention

    return torch.compile(flex_attention, dynamic=True) if device == "cuda" else flex_attention


def _block_mask(layout: Layout, window: int | None) -> Any:
    """A token sees its prompt and what is before it in its own answer."""
    from torch.nn.attention.flex_attention import create_block_mask

    size, device = len(layout.ids), layout.ids.device
    prompts, answers = torch.zeros(2, size, dtype=torch.int32)
    for number, span in enumerate(layout.spans, 1):
        prompts[span.prompt : span.prompt + span.shared] = span.prompt
        prompts[span.start : span.start + span.length] = span.prompt
        answers[span.start : span.start + span.length] = number
    prompts, answers, positions = prompts.to(device), answers.to(device), layout.positions

    def sees(batch: Any, head: Any, q: Tensor, k: Tensor) -> Tensor:
        own = (prompts[q] == prompts[k]) & ((answers[k] == 0) | (answers[k] == answers[q]))
        near = positions[q] - positions[k]
        return own & (near >= 0) & (near < (window or size))

    return create_block_mask(sees, None, None, size, size, device=str(device))


KERNELS: dict[str, Kernel] = {"varlen": varlen, "flash_attn": flash_attn, "flex": flex}
"""The fastest first."""
