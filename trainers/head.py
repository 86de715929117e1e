"""The language-model head on a CPU, for the tokens that are scored and nothing else.

TRL's fused head scores every position on a CPU, prompt and padding included, and projects onto the
vocabulary three times per step. With a frozen head, as under LoRA, the gradient is known in the forward
pass already, so two projections of the scored positions do. Same numbers to float32 rounding.
"""

import types
from typing import Any

import torch
from torch import Tensor
from trl.trainer.utils import FusedCausalLMOutput

ROWS = 256
"""Tokens whose logits exist at one time: 50 MB with a vocabulary of 49k."""


class _Score(torch.autograd.Function):
    """Log-probability, entropy and top-1 of `targets` (N,) under `hidden` (N, H) @ `weight` (V, H) "
    "transposed."""

    @staticmethod
    def forward(ctx: Any, hidden: Tensor, weight: Tensor, targets: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        logps, entropies, tops, slopes = [], [], [], []
        for h_NH, t_N in zip(hidden.split(ROWS), targets.split(ROWS), strict=True):
            z_NV = (h_NH @ weight.T).float()
            best_N1 = z_NV.amax(1, keepdim=True)
            target_N = z_NV.gather(1, t_N[:, None])[:, 0]
            z_NV -= best_N1
            e_NV = z_NV.exp()
            sum_N = e_NV.sum(1)
            logps.append(target_N - best_N1[:, 0] - sum_N.log())
            entropies.append(sum_N.log() - torch.linalg.vecdot(e_NV, z_NV) / sum_N)
            tops.append(target_N >= best_N1[:, 0])
            if ctx.needs_input_grad[0]:  # d logp / d h = W[target] - sum over v of p_v W[v]
                mean_NH = (e_NV.to(weight.dtype) @ weight) / sum_N[:, None].to(weight.dtype)
                slopes.append(weight[t_N] - mean_NH)
        ctx.save_for_backward(*([torch.cat(slopes)] if slopes else []))
        entropy, top = torch.cat(entropies), torch.cat(tops)
        ctx.mark_non_differentiable(entropy, top)
        return torch.cat(logps), entropy, top

    @staticmethod
    def backward(ctx: Any, *grads: Any) -> tuple[Tensor, None, None]:
        (slope_NH,) = ctx.saved_tensors
        return grads[0][:, None].to(slope_NH.dtype) * slope_NH, None, None


def score_only_answers(model: Any) -> bool:
    """Give `model`, already prepared by a TRL trainer, the lean head. False: not eligible, nothing "
    "changed."""
    base = model.get_base_model() if hasattr(model, "get_base_model") else model
    head = base.get_output_embeddings()
    scaled = (
        "final_logit_softcapping",
        "logit_scale",
        "logits_scaling",
        "output_multiplier",
        "lm_head_multiplier",
    )
    config = base.config.get_text_config()
    if (
        head.weight.device.type != "cpu"
        or head.weight.requires_grad
        or getattr(head, "bias", None) is not None
        or any(
            getattr(config, name, None) is not None for name in (*scaled, "num_experts", "num_local_experts")
        )
    ):
        return False
    fused = base.forward

    def forward(
        self: Any,
        *args: Any,
        fused_lm_head: bool = False,
        labels: Tensor | None = None,
        shift_labels: Tensor | None = None,
        **kwargs: Any,
    ) -> Any:
        if not fused_lm_head or (labels is None and shift_labels is None):
            return fused(
                *args, fused_lm_head=fused_lm_head, labels=labels, shift_labels=shift_labels, **kwargs
            )
        kwargs.pop("num_items_in_batch", None)
        hidden = self.base_model(*args, **{**kwargs, "use_cache": False}).last_hidden_state
        if shift_labels is None:
            assert labels is not None
            hidden, shift_labels = hidden[:, :-1], labels[:, 1:]
        mask = shift_labels != -100
        if not mask.any():
            return fused(*args, fused_lm_head=True, labels=labels, shift_labels=shift_labels, **kwargs)
        weight = self.get_output_embeddings().weight
        logp, entropy, top = _Score.apply(hidden[mask], weight, shift_labels[mask])
        mean = (hidden[mask].detach() @ weight.mean(0)).float()

        def back(values: Tensor) -> Tensor:
            return values.new_zeros(mask.shape).masked_scatter(mask, values)

        return FusedCausalLMOutput(
            loss=-logp.sum() / mask.sum(),
            log_probs=back(logp),
            entropy=back(entropy),
            mean_logits=back(mean),
            is_top1=back(top),
            label_mask=mask,
        )

    base.forward = types.MethodType(forward, base)
    return True
