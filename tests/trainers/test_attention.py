"""Kernels for GPUs, on the CPU: through the same layouts and masks, with what the kernels promise in plain torch."""

import sys
from types import ModuleType
from typing import Any

import pytest
import torch
from torch import Tensor

from trainers import attention
from trainers.attention import Choice, choose, difference, flash_attn, flex, small_row, spans, varlen
from trainers.layout import Layout

CPU = torch.device("cpu")


def stretches(
    q: Tensor, k: Tensor, v: Tensor, q_ends: Tensor, k_ends: Tensor, longest_q: int, longest_k: int,
    scale: float, window: tuple[int, int],
) -> Tensor:  # fmt: skip
    """What flash attention says it computes: causal from the end of both, `window` tokens back."""
    assert q_ends.dtype == k_ends.dtype == torch.int32 and q.is_contiguous()
    assert longest_q >= int(q_ends.diff().max()) and longest_k >= int(k_ends.diff().max())
    made, times = [], q.shape[1] // k.shape[1]
    for i in range(len(q_ends) - 1):
        own, seen = slice(int(q_ends[i]), int(q_ends[i + 1])), slice(int(k_ends[i]), int(k_ends[i + 1]))
        keys, values = (part[seen].repeat_interleave(times, 1) for part in (k, v))
        scores = torch.einsum("qhd,khd->hqk", q[own], keys) * scale
        late = len(keys) - (own.stop - own.start)
        ahead = torch.arange(len(keys)) - torch.arange(own.stop - own.start)[:, None] - late
        hidden = ahead > window[1]
        if window[0] >= 0:
            hidden |= ahead < -window[0]
        made.append(torch.einsum("hqk,khd->qhd", scores.masked_fill(hidden, -torch.inf).softmax(-1), values))
    return torch.cat(made)


def torchs(*given: Any, scale: float, window_size: tuple[int, int], enable_gqa: bool) -> Tensor:
    assert enable_gqa == (given[0].shape[1] != given[1].shape[1])
    return stretches(*given, scale=scale, window=window_size)


def packages(*given: Any, softmax_scale: float, causal: bool, window_size: tuple[int, int]) -> Tensor:
    assert causal
    return stretches(*given, scale=softmax_scale, window=(window_size[0], 0))


@pytest.fixture
def on_a_gpu(monkeypatch: pytest.MonkeyPatch) -> None:
    import torch.nn.attention.varlen

    package = ModuleType("flash_attn")
    package.flash_attn_varlen_func = packages  # pyright: ignore[reportAttributeAccessIssue]
    monkeypatch.setattr(torch.nn.attention.varlen, "varlen_attn", torchs)
    monkeypatch.setitem(sys.modules, "flash_attn", package)


@pytest.mark.parametrize("window", [None, 9, 2], ids=["", "window", "narrow window"])
@pytest.mark.parametrize("grouped", [4, 2], ids=["", "grouped"])
@pytest.mark.parametrize("kernel", [varlen, flash_attn])
def test_kernels_for_stretches_give_the_results_and_gradients(
    kernel: Any, grouped: int, window: Any, on_a_gpu: None
):
    assert difference(kernel, CPU, torch.float32, 4, grouped, 16, window) < 1e-5


@pytest.mark.parametrize("window", [None, 9, 2], ids=["", "window", "narrow window"])
@pytest.mark.parametrize("grouped", [4, 2], ids=["", "grouped"])
def test_flex_attention_gives_the_results(grouped: int, window: Any):
    """Its gradients are torch's own, and there are none on a CPU; what is ours is the mask."""
    layout = small_row()
    shapes = [(1, heads, len(layout.ids), 16) for heads in (4, grouped, grouped)]
    given = [torch.randn(shape, generator=torch.Generator().manual_seed(i)) for i, shape in enumerate(shapes)]
    found = [kernel(given[0], given[1], given[2], layout, 0.25, window) for kernel in (flex, spans)]
    assert (found[0] - found[1]).abs().max() < 1e-5


def test_a_kernel_that_is_wrong_or_fails_is_left_out_and_says_why():
    def fails(*args: Any) -> Tensor:
        raise RuntimeError("no kernel image is available")

    def sees_too_much(
        query: Tensor, key: Tensor, value: Tensor, layout: Layout, scaling: Any, window: Any
    ) -> Tensor:
        return spans(query, key, value + 0.1 * value.flip(2), layout, scaling, window)

    def right(*given: Any) -> Tensor:
        return spans(*given)

    kernels: list[Any] = [("fails", fails), ("sees too much", sees_too_much), ("right", right)]
    found = choose(CPU, torch.float32, 4, 2, 16, False, kernels)
    assert found.name == "right" and found.refused["fails"] == "RuntimeError: no kernel image is available"
    assert "from the right ones" in found.refused["sees too much"]
    assert choose(CPU, torch.float32, 4, 2, 16, False, kernels[:2]).name == "spans"


def test_on_a_cpu_nothing_is_tried():
    assert attention.chosen(CPU, torch.float32, 4, 2, 16, False) == Choice("spans", spans, {})


def test_fused_kernels_go_into_a_model_only_if_they_change_no_number():
    from transformers import LlamaConfig, LlamaForCausalLM
    from transformers.models.llama import modeling_llama

    from trainers.kernels import fuse, fuse_if_right

    config = LlamaConfig(
        vocab_size=50, hidden_size=16, intermediate_size=32, num_hidden_layers=2, num_attention_heads=2
    )
    model: Any = LlamaForCausalLM(config)
    assert fuse(model) == "none: there is no GPU"
    applied: list[Any] = []
    assert fuse_if_right(model, applied.append) is None
    assert applied[1] is model and applied[0].config.num_hidden_layers == 1

    own = modeling_llama.apply_rotary_pos_emb

    def wrong(one: Any) -> None:
        assert one is not model, "only tried on the small one"
        home: Any = vars(modeling_llama)
        home["apply_rotary_pos_emb"] = lambda q, k, *rest, **more: (q, k)

    assert "from the model's own" in str(fuse_if_right(model, wrong))
    assert modeling_llama.apply_rotary_pos_emb is own

    def fails(one: Any) -> None:
        raise RuntimeError("no Triton")

    assert fuse_if_right(model, fails) == "RuntimeError: no Triton"
