"""Our names and units to the trainer's arguments, each set by name so that no default of a release decides."""

import os
from pathlib import Path
from typing import Any

from trainers.online_settings import RLHFSettings
from trainers.settings import Optimizer, Training

OPTIMIZERS: dict[Optimizer, str] = {
    "adamw": "adamw_torch_fused",
    "adamw_8bit_stochastic": "adamw_torch_fused",
    "paged_adamw": "paged_adamw_32bit",
    "rmsprop": "rmsprop",
}
"""Names of transformers'. The first two are those of `trainers/optimizers.py`, but where the weights are in shards."""


def devices() -> int:
    """Processes that train together, as the launcher says."""
    return int(os.environ.get("WORLD_SIZE", "1"))


def sharded() -> bool:
    """Whether each process holds a part of every weight: FSDP or DeepSpeed, as the launcher says."""
    names = ("ACCELERATE_USE_FSDP", "ACCELERATE_USE_DEEPSPEED")
    return any(os.environ.get(name, "").lower() in ("true", "1") for name in names)


def computes_in_copies(settings: Training) -> bool:
    """Whether the model's trained weights are bfloat16, and nothing is cast on the way through it.

    Their float32 masters, where there are any, are with the optimizer then. Frozen weights in float32, shards, and
    optimizers that know no masters are left as they are; autocast turns them into bfloat16 in every pass.
    """
    own = settings.optimizer in ("adamw", "adamw_8bit_stochastic") and not sharded()
    own = own and not isinstance(settings, RLHFSettings)  # PPO's value head reads float32
    own = own and not (settings.lora and settings.lora.quantize)  # 4-bit layers say what they compute in
    return own and compute(settings) == "bfloat16" and (settings.lora is None or settings.dtype == "bfloat16")


def arguments(settings: Training, work: Path, seed: int) -> dict[str, Any]:
    """What the configurations of TRL's trainers share. Checkpoints go to `work`/checkpoints."""
    import torch

    gpu = torch.cuda.is_available()
    if (
        "tensorboard" in settings.report_to
    ):  # transformers takes the folder from nowhere else; `work` is removed at the end
        own = work.parent / "tensorboard" / work.name.removesuffix(".partial")
        os.environ.setdefault("TENSORBOARD_LOGGING_DIR", str(own))
    return {
        "output_dir": str(work / "checkpoints"),
        "learning_rate": settings.learning_rate,
        "lr_scheduler_type": settings.scheduler,
        "warmup_steps": settings.warmup,  # below 1 it is a fraction
        "num_train_epochs": settings.epochs or 1,
        "max_steps": settings.max_steps or -1,  # with epochs, set once the rows are counted
        "per_device_train_batch_size": settings.rows_per_step(devices()),
        "per_device_eval_batch_size": settings.micro_batch,
        "gradient_accumulation_steps": settings.accumulation(devices()),
        "max_length": settings.max_length,
        "optim": OPTIMIZERS[settings.optimizer],
        "weight_decay": settings.weight_decay,
        "max_grad_norm": settings.max_grad_norm,
        "gradient_checkpointing": settings.gradient_checkpointing,
        "gradient_checkpointing_kwargs": {"every_n_layers": settings.checkpoint_every}
        if settings.gradient_checkpointing and settings.checkpoint_every > 1
        else None,
        "train_sampling_strategy": "group_by_length" if settings.group_by_length else "random",
        "length_column_name": "length",
        "remove_unused_columns": False,  # else the lengths are gone before the sampler sees them
        "seed": seed,
        "data_seed": seed,
        "save_strategy": "steps" if settings.save_every else "no",
        "save_steps": settings.save_every or 500,
        "save_total_limit": 2,
        "logging_steps": settings.logging_every,
        "logging_first_step": True,
        "logging_nan_inf_filter": False,  # a loss that is not a number is shown as such
        "eval_strategy": "no",
        "report_to": list(settings.report_to) or "none",
        "run_name": f"{work.parent.parent.name}-{work.name.removesuffix('.partial')}",
        "disable_tqdm": True,
        "use_cpu": not gpu,
        "bf16": compute(settings) == "bfloat16" and not computes_in_copies(settings),  # autocast
        "dataloader_num_workers": 0,
        "dataloader_pin_memory": gpu,
    }


def compute(settings: Training) -> str:
    """float32 or bfloat16: what the matrix products run in on this machine."""
    import torch

    if settings.compute != "auto":
        return settings.compute
    return "bfloat16" if torch.cuda.is_available() else "float32"


def load_model(base: Path, settings: Training, **how: Any) -> Any:
    import torch
    from transformers import AutoModelForCausalLM

    kind = getattr(torch, settings.dtype)
    return AutoModelForCausalLM.from_pretrained(
        base, dtype=kind, attn_implementation="sdpa", local_files_only=True, **how
    )


def load_scorer(base: Path, settings: Training, seed: int) -> Any:
    """The base with one output in place of its head; first values of that output are drawn by `seed`."""
    import torch
    from transformers import AutoModelForSequenceClassification

    torch.manual_seed(seed)
    return AutoModelForSequenceClassification.from_pretrained(
        base,
        num_labels=1,
        dtype=getattr(torch, settings.dtype),
        attn_implementation="sdpa",
        local_files_only=True,
    )


def load_tokenizer(base: Path, settings: Training, *, chats: bool = True) -> Any:
    """The base's tokenizer, with the settings' template and a padding token. `chats`: it must have a template."""
    from transformers import AutoTokenizer

    from trainers.guards import check_tokenizer

    tokenizer = AutoTokenizer.from_pretrained(base, local_files_only=True)
    tokenizer.padding_side = "right"
    if settings.template:
        tokenizer.chat_template = settings.template
    if chats:
        check_tokenizer(tokenizer, base)
    if tokenizer.pad_token is None:
        tokenizer.pad_token = (
            tokenizer.eos_token
        )  # labels are masked by position, so the end token stays trained
    return tokenizer


def adapter(settings: Training, layers: int, *, whole: str | None = None, scores: bool = False) -> Any:
    """The LoRA configuration for a model of `layers` blocks, or None.

    `whole`: a module that is trained itself. `scores`: the model has one output in place of its head.
    """
    from peft import LoraConfig

    lora = settings.lora
    if lora is None:
        return None
    only = None
    if lora.last_layers is not None:
        only = list(range(max(0, layers - lora.last_layers), layers))
    target = lora.target if isinstance(lora.target, str) else list(lora.target)
    if only is not None and target == "all-linear":  # the two do not combine in peft
        target = ["q_proj", "k_proj", "v_proj", "o_proj", "gate_proj", "up_proj", "down_proj"]
    return LoraConfig(
        r=lora.r,
        lora_alpha=lora.alpha,
        lora_dropout=lora.dropout,
        target_modules=target,
        bias="none",
        task_type="SEQ_CLS" if scores else "CAUSAL_LM",
        modules_to_save=[whole] if whole else None,
        layers_to_transform=only,
    )
