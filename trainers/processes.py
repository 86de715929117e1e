"""What processes that train together say to each other."""

from collections.abc import Callable
from typing import Any, TypeVar

import torch
from accelerate import PartialState
from accelerate.utils import broadcast_object_list

from trainers.checkpoints import TrainingFailed

T = TypeVar("T")


def from_first(find: Callable[[], T]) -> T:
    """What `find` gives in the first process, in all of them: only one reads and writes files."""
    found: list[Any] = [find() if PartialState().is_main_process else None]
    return broadcast_object_list(found)[0]


def most(accelerator: Any, number: int) -> int:
    """The largest of every process's number."""
    return int(accelerator.gather(torch.tensor([number], device=accelerator.device)).max())


def ready_to_train(trainer: Any) -> None:
    """Let a model that was evaluated be wrapped for training. accelerate prepares a model once: after an evaluation it
    would stay as it is, and every process would train on its own gradients, without a word."""
    vars(trainer.accelerator.unwrap_model(trainer.model)).pop("_is_accelerate_prepared", None)


def check_alike(trainer: Any) -> None:
    """After training, every process has the same weights.

    Raises:
        TrainingFailed: they have not; gradients were not shared.
    """
    weights = [p.detach().double().abs().sum() for p in trainer.model.parameters() if p.requires_grad]
    sums = trainer.accelerator.gather(torch.stack(weights).sum()[None]).tolist()
    if max(sums) - min(sums) > 1e-6 * max(sums):
        raise TrainingFailed(f"the processes have trained apart: their weights sum to {sums}")


def whole(trainer: Any, fresh: Callable[[], Any]) -> Any:
    """The trained model where every process has a shard of it, in the first process; None in the others.

    `fresh`: makes the model training began with.
    """
    state = trainer.accelerator.get_state_dict(trainer.model_wrapped)
    if not trainer.accelerator.is_main_process:
        return None
    model = fresh()
    own = [name for name, parameter in model.named_parameters() if parameter.requires_grad]
    if missing := [name for name in own if name not in state]:
        raise RuntimeError(
            f"{len(missing)} of the trained weights are not in what was trained: {missing[:3]}"
        )
    model.load_state_dict({name: state[name] for name in own}, strict=False)
    model.tie_weights()
    return model
