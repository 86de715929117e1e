"""Liger's fused RMSNorm, SwiGLU and rotary kernels in a model, where they run: a fifth of a 7B LoRA step on an H100.

They are tried on one block of the model first, forward and backward. Where they are not installed, fail or give other
numbers, the model is left as it is.
"""

import copy
import sys
from collections.abc import Callable
from importlib.metadata import version
from typing import Any

import torch
from torch import Tensor

PARTS = {
    "rope": True,
    "rms_norm": True,
    "swiglu": True,
    "cross_entropy": False,
    "fused_linear_cross_entropy": False,
}
"""The losses are TRL's."""
APART = 2e-2
"""Largest difference of a logit or gradient, as a part of the largest one; bfloat16 keeps 8 bits."""


def fuse(model: Any) -> str:
    """Put the kernels into `model`; returns what was done, or why not."""
    if next(model.parameters()).device.type != "cuda":
        return "none: there is no GPU"
    try:
        from liger_kernel.transformers.monkey_patch import (  # pyright: ignore[reportMissingImports]
            MODEL_TYPE_TO_APPLY_LIGER_FN,
            _apply_liger_kernel_to_instance,
        )
    except Exception as error:  # a wheel for another torch may raise anything
        return f"none: liger-kernel does not import: {error}"
    if model.config.model_type not in MODEL_TYPE_TO_APPLY_LIGER_FN:
        return f"none: liger-kernel has none for {model.config.model_type}"
    why = fuse_if_right(model, lambda one: _apply_liger_kernel_to_instance(model=one, **PARTS))
    return f"none: {why}" if why else f"liger-kernel {version('liger-kernel')}"


def fuse_if_right(model: Any, apply: Callable[[Any], None]) -> str | None:
    """Call `apply` on `model` if that changes no number of a model of one such block; else the reason."""
    home = sys.modules[type(model).__module__]  # kernels are put there too
    before = dict(vars(home))
    like = next(model.parameters())
    config = copy.deepcopy(model.config)
    config.num_hidden_layers = 1
    if getattr(config, "layer_types", None):
        config.layer_types = config.layer_types[:1]
    with torch.random.fork_rng(), torch.device(like.device):
        small: Any = type(model)._from_config(config, dtype=like.dtype, attn_implementation="sdpa")
    try:
        plain = _numbers(small)
        apply(small)
        fused = _numbers(small)
        apart = max(float((a - b).abs().max() / b.abs().max()) for a, b in zip(fused, plain, strict=True))
        why = None if apart <= APART else f"its numbers are {apart:.2g} of the largest from the model's own"
    except Exception as error:  # whatever a kernel raises on a machine it was not made for
        why = f"{type(error).__name__}: {error}"[:200]
    if why is None:
        apply(model)
    else:
        vars(home).update(before)
    return why


@torch.enable_grad()
def _numbers(model: Any) -> list[Tensor]:
    """Logits and gradients for a few tokens."""
    model.zero_grad()
    ids = torch.arange(3, 35, device=next(model.parameters()).device).view(2, 16) % model.config.vocab_size
    with torch.autocast(ids.device.type, enabled=False):
        logits = model(input_ids=ids, use_cache=False).logits.float()
        logits.square().mean().backward()
    return [logits.detach(), *(p.grad.float() for p in model.parameters() if p.grad is not None)]
