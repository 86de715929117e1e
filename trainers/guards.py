"""What would train nothing, or something else than it says, refused before it costs anything."""

import json
import math
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from trainers.settings import DPOSettings, Training


class BadInput(ValueError):
    """The job cannot mean what it says. Training does not start; the flow stops with exit code 2."""


TYPICAL_WEIGHT = 0.02
"""Standard deviation of a language model's weights, as initialised and, roughly, as trained."""


def moved_share(settings: Training) -> float:
    """Share of the trained weights that one optimizer step of `learning_rate` can move, 0 to 1.

    An AdamW step changes a weight by about the learning rate. A bfloat16 weight w keeps 8 bits, so a change
    below |w| / 512 is rounded away. Measured after 100 steps: 1 % at 5e-7, 8 % at 5e-6, 30 % at 2e-5; this
    gives 1, 10, 39.
    """
    if (
        settings.dtype == "float32"
        or settings.lora
        or settings.optimizer in ("adamw", "adamw_8bit_stochastic")
    ):
        return 1.0  # with masters, or rounded by chance
    return math.erf(settings.learning_rate * 512 / TYPICAL_WEIGHT / math.sqrt(2))


def check_settings(settings: Training, devices: int = 1) -> None:
    """Refuse what needs no data and no weights to be seen wrong."""
    try:
        settings.accumulation(devices)
    except ValueError as error:
        raise BadInput(str(error)) from None
    for tracker in settings.report_to:
        if find_spec(tracker) is None:
            raise BadInput(
                f"report_to={tracker!r}: the package {tracker} is not installed; install it beside this project, or "
                "leave it out"
            )
    if getattr(settings, "win_rate", None) is not None and devices > 1:
        raise BadInput(
            f"win_rate with {devices} devices: answers are sampled in one process; leave win_rate out, or train on one"
        )
    if settings.lora and settings.lora.quantize and find_spec("bitsandbytes") is None:
        raise BadInput(
            f"lora.quantize={settings.lora.quantize!r} needs bitsandbytes: `pip install bitsandbytes`, or leave it out "
            "and hold the base in bfloat16"
        )
    if (share := moved_share(settings)) < 0.9:
        raise BadInput(
            f"dtype='bfloat16' with learning_rate={settings.learning_rate:g} and "
            f"optimizer={settings.optimizer!r}: "
            f"about {share:.0%} of the weights would move, the other steps are rounded away; "
            "set dtype: float32, or lora, or optimizer: adamw, which rounds by chance"
        )


def check_base(base: Path) -> dict[str, Any]:
    """The base's config, if the folder is a whole model with its tokenizer."""
    if (adapter := base / "adapter_config.json").is_file():
        on = json.loads(adapter.read_text()).get("base_model_name_or_path")
        raise BadInput(
            f"base={str(base)!r} is a LoRA adapter on {on!r}, not a model: training on it would start "
            f"from {on!r} "
            "without the adapter; give the folder of the merged model"
        )
    if not (base / "config.json").is_file():
        raise BadInput(f"base={str(base)!r} has no config.json; a transformers model folder is wanted")
    if not any(base.glob("*.safetensors")):
        raise BadInput(
            f"base={str(base)!r} has no .safetensors weights; a transformers model folder is wanted"
        )
    if not (base / "tokenizer.json").is_file() and not (base / "tokenizer_config.json").is_file():
        raise BadInput(f"base={str(base)!r} has no tokenizer; a transformers model folder is wanted")
    return json.loads((base / "config.json").read_text())


def check_length(settings: Training, config: dict[str, Any]) -> None:
    longest = config.get("max_position_embeddings")
    if longest and settings.max_length > longest:
        raise BadInput(f"max_length={settings.max_length} is above the base's {longest} positions; lower it")


def check_tokenizer(tokenizer: Any, base: Path) -> None:
    if not tokenizer.chat_template:
        raise BadInput(f"base={str(base)!r} has no chat template; set template in the settings")
    if tokenizer.eos_token_id is None:
        raise BadInput(
            f"base={str(base)!r} has no eos_token, so answers could never end; set it in its tokenizer"
        )


def adapters_in_float32(model: Any) -> int:
    """Move trained parameters that are in 16 bits to float32, and say how many there were.

    TRL casts the adapters of a quantized base to bfloat16, where small learning rates are rounded away.
    """
    import torch

    moved = 0
    for name, parameter in model.named_parameters():
        if parameter.requires_grad and "lora_" in name and parameter.dtype != torch.float32:
            parameter.data = parameter.data.float()
            moved += 1
    return moved


def check_reference(settings: Training, before: dict[str, float]) -> None:
    """Before the first step policy and reference are the same model, so the sigmoid loss is ln 2."""
    if isinstance(settings, DPOSettings) and set(settings.losses) == {"sigmoid"} and "loss" in before:
        per_unit = before["loss"] / settings.losses["sigmoid"]
        if abs(per_unit - math.log(2)) > (1e-3 if settings.dtype == "float32" else 2e-2):
            raise BadInput(
                f"the loss before training is {per_unit:.4f} and not ln 2 = 0.6931: the reference "
                "log-probabilities "
                "are not those of this base under this template and length"
            )
