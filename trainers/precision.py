"""What the weights of a training run are kept in, and the share of them that moved.

    compute    dtype      what the model holds         what the optimizer holds
    float32    float32    the weights                  averages
    bfloat16   float32    bfloat16 copies              float32 masters, averages
    bfloat16   bfloat16   the weights                  averages; steps are rounded by chance

Adapters always have masters. Nothing is cast in a pass then: autocast's casts were a quarter of a 7B step on a GPU.
"""

from typing import Any

import torch
from torch import Tensor

from trainers.arguments import computes_in_copies, sharded
from trainers.guards import BadInput, adapters_in_float32
from trainers.optimizers import AdamW
from trainers.settings import Training

LOOKED_AT = 65536
"""Weights of a tensor that are compared before and after, at most."""


def weights_that_move(trainer: Any, settings: Training, seed: int) -> None:
    """Give a TRL trainer its optimizer, and what its model computes in; before its first step.

    Raises:
        BadInput: shards cannot have 8-bit averages.
    """
    adapters_in_float32(trainer.model)
    model = trainer.accelerator.unwrap_model(trainer.model)
    trainer.at_first = {} if sharded() else sample(model)
    if settings.optimizer not in ("adamw", "adamw_8bit_stochastic"):
        return
    eight = settings.optimizer == "adamw_8bit_stochastic"
    if sharded():
        if eight:
            raise BadInput(
                "optimizer='adamw_8bit_stochastic' does not go with shards of weights; set optimizer: adamw"
            )
        return
    masters: dict[Tensor, Tensor] = {}
    if computes_in_copies(settings):
        masters = to_copies(model, masters=settings.lora is not None or settings.dtype == "float32")
    trained = [parameter for parameter in model.parameters() if parameter.requires_grad]
    if not eight and all(parameter.dtype == torch.float32 for parameter in trained):
        return  # nothing is rounded: torch's own will do
    options = {"lr": settings.learning_rate, "bits": 8 if eight else 32, "masters": masters, "seed": seed}
    trainer.optimizer_cls_and_kwargs = (AdamW, options | {"weight_decay": settings.weight_decay})


def to_copies(model: Any, *, masters: bool) -> dict[Tensor, Tensor]:
    """Turn the trained weights of `model` into bfloat16; what they were, where `masters` are wanted."""
    kept: dict[Tensor, Tensor] = {}
    for parameter in model.parameters():
        if parameter.requires_grad:
            if masters:
                kept[parameter] = parameter.detach().float().flatten().clone()
            parameter.data = parameter.data.to(torch.bfloat16)
    return kept


def sample(model: Any) -> dict[str, Tensor]:
    """Some of every trained tensor's weights, evenly spaced."""
    found = {}
    for name, parameter in model.named_parameters():
        if parameter.requires_grad:
            flat = parameter.detach().flatten()
            found[name] = flat[:: max(1, len(flat) // LOOKED_AT)].to("cpu", torch.float32, copy=True)
    return found


def _masters(trainer: Any) -> dict[Tensor, Tensor]:
    optimizer = getattr(trainer.optimizer, "optimizer", trainer.optimizer)
    if not isinstance(optimizer, AdamW):
        return {}
    return {p: state["master"] for p, state in optimizer.state.items() if "master" in state}


def trained(trainer: Any) -> dict[str, Tensor]:
    """The trained weights by name, masters where there are any."""
    masters = _masters(trainer)
    own = trainer.accelerator.unwrap_model(trainer.model).named_parameters()
    return {n: (masters[p] if p in masters else p.detach()).view_as(p) for n, p in own if p.requires_grad}


@torch.no_grad()
def put(trainer: Any, weights: dict[str, Tensor]) -> None:
    """Give a model that is trained no more other weights, as `trained` gave them."""
    masters = _masters(trainer)
    for name, parameter in trainer.accelerator.unwrap_model(trainer.model).named_parameters():
        if name not in weights:
            continue
        given = weights[name].to(parameter.device)
        if parameter in masters:
            masters[parameter].copy_(given.flatten())
            parameter.copy_(given)
        else:
            parameter.data = given


def finish(trainer: Any) -> float | None:
    """Put masters in the place of their copies; returns the share of the trained weights that are not what they were.

    None where they are in shards. Nearly 1 with masters. Without, weights move rarely and then by a whole step of their
    format: 0.2 after 200 steps of 5e-7, where rounding to the nearest leaves 0.004.
    """
    optimizer = getattr(trainer.optimizer, "optimizer", trainer.optimizer)
    if isinstance(optimizer, AdamW):
        optimizer.to_masters()
    before = getattr(trainer, "at_first", None)
    if not before:
        return None
    after = sample(trainer.accelerator.unwrap_model(trainer.model))
    moved = sum(int((after[name] != before[name]).sum()) for name in before)
    return round(moved / sum(part.numel() for part in before.values()), 4)
