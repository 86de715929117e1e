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
from typing import Any

import torch
from torch import Tensor
from transformers import AttentionInterface, AttentionMaskInterface
from transformers.masking_utils import sdpa_mask

from trainers.attention import attend
from trainers.layout import lay_out

NAME = "prompts_once"
"""Of the attention, among those of transformers."""

SCORES = ("log_probs", "entropy", "log_sum_sq_probs", "mean_logits", "is_top1")
"""What a TRL head gives per token."""


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
        self.attention = row.seen.get("kernel")
        mask = labels[:, 1:] != -100
        for name in SCORES:
            if (scores := out.get(name)) is not None:
                out[name] = scores.new_zeros(mask.shape).masked_scatter(mask, scores[0, row.places])
        out["label_mask"] = mask
        return out

    model.sharing, model.attention = True, None
    model.forward = types.MethodType(forward, model)


@torch.no_grad()
def disagreement(model: Any, inputs: dict[str, Tensor], labels: Tensor) -> float:
    """Mean difference of a token's log-probability between the shared and the model's own way, in nats."""
    base = model.get_base_model() if hasattr(model, "get_base_model") else model
    found = []
    for base.sharing in (False, True):
        found.append(model(**inputs, labels=labels, use_cache=False, fused_lm_head=True).log_probs)
    return float((found[0] - found[1]).abs().sum() / (labels[:, 1:] != -100).sum())
