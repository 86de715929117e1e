"""The language-model head on a CPU, for the tokens that are scored and nothing else.

TRL's fused head scores every position on a CPU, prompt and padding included, in a dozen passes over all logits. Here
only scored positions meet the vocabulary, a tile at a time. With a frozen head, as under LoRA, the gradient is known
in the forward pass already; with a trained one the logits are computed once more on the way back. Same numbers to
float32 rounding.
"""

import types
from typing import Any

import torch
from torch import Tensor
from trl.trainer.utils import FusedCausalLMOutput

ROWS = 256
"""Tokens whose logits exist at one time: 50 MB with a vocabulary of 49k."""


class _Score(torch.autograd.Function):
    """Log-probability, entropy and top-1 of `targets` (N,) under `hidden` (N, H) @ `weight` (V, H) transposed."""

    @staticmethod
    def forward(ctx: Any, hidden: Tensor, weight: Tensor, targets: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        logps, entropies, tops, slopes, normalizers = [], [], [], [], []
        frozen = ctx.needs_input_grad[0] and not ctx.needs_input_grad[1]
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
            normalizers.append(best_N1[:, 0] + sum_N.log())
            if frozen:  # d logp / d h = W[target] - sum over v of p_v W[v]
                mean_NH = (e_NV.to(weight.dtype) @ weight) / sum_N[:, None].to(weight.dtype)
                slopes.append(weight[t_N] - mean_NH)
        saved = [torch.cat(slopes)] if frozen else [hidden, weight, targets, torch.cat(normalizers)]
        ctx.save_for_backward(*saved)
        entropy, top = torch.cat(entropies), torch.cat(tops)
        ctx.mark_non_differentiable(entropy, top)
        return torch.cat(logps), entropy, top

    @staticmethod
    def backward(ctx: Any, *grads: Any) -> tuple[Tensor, Tensor | None, None]:
        grad_N = grads[0]
        if not ctx.needs_input_grad[1]:
            (slope_NH,) = ctx.saved_tensors
            return grad_N[:, None].to(slope_NH.dtype) * slope_NH, None, None
        hidden, weight, targets, normalizer = ctx.saved_tensors
        weight_grad = torch.zeros_like(weight)
        hidden_grads = []
        for h_NH, t_N, log_sum_N, g_N in zip(
            *(part.split(ROWS) for part in (hidden, targets, normalizer, grad_N)), strict=True
        ):  # d logp / d z = onehot(target) - p
            h_NH = h_NH.to(weight.dtype)
            p_NV = (h_NH @ weight.T).float().sub_(log_sum_N[:, None]).exp_().mul_(-g_N[:, None])
            p_NV.scatter_add_(1, t_N[:, None], g_N[:, None])
            p_NV = p_NV.to(weight.dtype)
            hidden_grads.append((p_NV @ weight).to(hidden.dtype))
            weight_grad.addmm_(p_NV.T, h_NH)
        return torch.cat(hidden_grads), weight_grad, None


def score_only_answers(model: Any) -> bool:
    """Give `model`, already prepared by a TRL trainer, the lean head. False: not eligible, nothing changed."""
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
