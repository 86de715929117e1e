"""What a training run needs, from shapes alone: memory, floating-point operations, hours.

Operations are counted as in arXiv 2001.08361 (two per weight and token forward, twice that backward; half of it where
the weights are frozen), activations by the tensors a Llama-like block keeps. Good to about a third: what is not known
beforehand is how much of its peak a device reaches.
"""

import os
import time
from collections.abc import Mapping
from typing import Any, NamedTuple

from records.base import Strict
from trainers.job import DPOJob, Job, RewardJob, RLHFJob
from trainers.quantized import BYTES, quantizes

GB = 1e9
PEAKS = {
    "B200": 2250,
    "H200": 989,
    "H100": 989,
    "A100": 312,
    "L40S": 362,
    "L4": 121,
    "A10": 125,
    "RTX 4090": 165,
    "RTX 3090": 71,
}
"""Dense bfloat16 TFLOP/s, from NVIDIA's data sheets."""
REACHED = 0.4
"""Share of a GPU's peak that training reaches; measured 0.41 with a 7B LoRA on one H100."""
REACHED_ON_CPU = 0.6
"""Share of what a large matrix product reaches on the same cores."""
OVERHEAD_GB = {"cuda": 1.5, "cpu": 0.8}
"""Libraries, the context, and fragments."""


class Weights(NamedTuple):
    """Numbers in the matrices that every token meets, and in the head, which only scored ones need."""

    body: int
    head: int


def weights_of(config: Any) -> Weights:
    """Of a model with this config; nothing is loaded."""
    import torch
    from transformers import AutoModelForCausalLM

    with torch.device("meta"):
        model = AutoModelForCausalLM.from_config(config)
    head = model.get_output_embeddings().weight.numel()
    every = sum(m.weight.numel() for m in model.modules() if isinstance(m, torch.nn.Linear))
    return Weights(every - head, head)


def operations(weights: Weights, config: Any, tokens: Mapping[str, float]) -> float:
    """Floating-point operations of a forward pass. `tokens`: `unique`, `scored`, and `squares`, the sum of squared
    lengths of rows."""
    products = weights.body * tokens["unique"] + weights.head * tokens["scored"]
    return 2 * (products + config.num_hidden_layers * config.hidden_size * tokens["squares"])


class Cost(Strict):
    """Per device where nothing else is said."""

    parameters: int
    trained: int
    rows: int
    steps: int
    tokens_per_row: float
    """Computed in a forward pass: for pairs the prompt counts once."""
    memory_gb: float
    memory_parts_gb: dict[str, float]
    available_gb: float
    micro_batch_that_fits: int
    """The largest for which the memory is enough; 0: none."""
    device: str
    tflops: float
    """Floating-point operations per second that are expected, in 10^12."""
    rows_per_s: float
    """Over all devices."""
    hours: float
    """Training and, for DPO, the one pass of the reference."""


def estimate(job: Job, rows: Any, devices: int, compute: str) -> Cost:
    """`rows`: the token rows. `compute`: of the matrix products."""
    import torch
    from transformers import AutoConfig, AutoModelForCausalLM

    settings = job.settings
    config = AutoConfig.from_pretrained(job.base, local_files_only=True)
    with torch.device("meta"):
        model = AutoModelForCausalLM.from_config(config)
    shapes = [m for m in model.modules() if isinstance(m, torch.nn.Linear)]
    head = model.get_output_embeddings()
    parameters = sum(p.numel() for p in model.parameters())
    products = sum(m.weight.numel() for m in shapes)
    trained = parameters
    if settings.lora is not None:
        inside = [m for m in shapes if m is not head]
        share = (settings.lora.last_layers or config.num_hidden_layers) / config.num_hidden_layers
        trained = int(share * sum(settings.lora.r * (m.in_features + m.out_features) for m in inside))
    lengths = sorted(_computed(job, rows), reverse=True)
    mean = sum(lengths) / len(lengths)

    gpu = torch.cuda.is_available()
    repeated = 1 / settings.checkpoint_every if settings.gradient_checkpointing else 0.0
    fixed = _fixed(settings, parameters, trained)
    if quantizes(settings):  # all linear layers but the head
        inside = products - (head.weight.numel() if head in shapes else 0)
        fixed["weights"] -= inside * (2 if settings.dtype == "bfloat16" else 4) / GB - inside * BYTES / GB
    fixed["overhead"] = OVERHEAD_GB["cuda" if gpu else "cpu"]
    if gpu:
        fixed["logits"] = 4096 * min(32768, config.vocab_size) * 4 * 2 / GB
    else:
        fixed["logits"] = 256 * config.vocab_size * 4 * 3 / GB
    per_token = _activations(config, 2 if compute == "bfloat16" else 4, repeated)

    def needed(micro: int) -> float:
        return sum(fixed.values()) + per_token * sum(lengths[:micro]) / GB

    budget = getattr(settings, "micro_tokens", None)
    micro = settings.micro_batch
    activations = per_token * (max(budget, lengths[0]) if budget else sum(lengths[:micro])) / GB
    available = _available()
    fits = [n for n in range(1, settings.batch // devices + 1) if needed(n) <= available]
    speed, name = _speed(compute, config)
    passes = (2 if settings.lora else 3) + repeated
    forward = operations(
        Weights(products - head.weight.numel(), head.weight.numel()),
        config,
        {"unique": mean, "scored": _scored(job, rows), "squares": mean * mean},
    )
    steps, reference = settings.steps(len(lengths)), isinstance(job, DPOJob) * len(lengths) * forward
    work = steps * settings.batch * forward * passes
    return Cost(
        parameters=parameters,
        trained=trained,
        rows=len(lengths),
        steps=steps,
        tokens_per_row=mean,
        memory_gb=sum(fixed.values()) + activations,
        memory_parts_gb={
            name: round(part, 6) for name, part in (fixed | {"activations": activations}).items()
        },
        available_gb=available,
        micro_batch_that_fits=max(fits, default=0),
        device=name,
        tflops=speed / 1e12,
        rows_per_s=devices * speed / (forward * passes),
        hours=(work + reference) / (devices * speed) / 3600,
    )


def _computed(job: Job, rows: Any) -> list[int]:
    if isinstance(job, DPOJob):
        parts = (rows[name] for name in ("prompt_ids", "chosen_ids", "rejected_ids"))
        shared = job.settings.share_prompts
        return [len(p) * (1 if shared else 2) + len(c) + len(r) for p, c, r in zip(*parts, strict=True)]
    if isinstance(job, RewardJob):
        return list(rows["length"])
    if isinstance(job, RLHFJob):  # what is sampled is not known; the longest it may be
        return [length + job.settings.max_tokens for length in rows["length"]]
    return [len(ids) for ids in rows["input_ids"]]


def _scored(job: Job, rows: Any) -> float:
    """Tokens of a row, on average, whose logits are needed."""
    if isinstance(job, DPOJob):
        return sum(map(len, (*rows["chosen_ids"], *rows["rejected_ids"]))) / len(rows)
    if isinstance(job, RewardJob):
        return 0.0
    if isinstance(job, RLHFJob):
        return float(job.settings.max_tokens)
    return sum(label != -100 for labels in rows["labels"] for label in labels) / len(rows)


def _fixed(settings: Any, parameters: int, trained: int) -> dict[str, float]:
    """Gigabytes that do not grow with the batch."""
    wide = 4 if settings.dtype == "float32" else 2
    of_trained = 4 if settings.lora else wide  # copies and their gradients together, where there are masters
    states = {"adamw": 8, "adamw_8bit_stochastic": 2, "paged_adamw": 8, "rmsprop": of_trained}
    return {
        "weights": (parameters * wide + (trained * 4 if settings.lora else 0)) / GB,
        "gradients": trained * of_trained / GB,
        "optimizer": trained * states[settings.optimizer] / GB,
    }


def _activations(config: Any, width: int, repeated: float) -> float:
    """Bytes per token: what each block keeps for the way back. `repeated`: share of the blocks that are computed again:
    they keep their input alone, and one of them has all of it at a time."""
    heads = config.num_attention_heads
    keys = config.hidden_size * (getattr(config, "num_key_value_heads", None) or heads) // heads
    block = (6 * config.hidden_size + 2 * keys + 4 * config.intermediate_size) * width
    if not repeated:
        return config.num_hidden_layers * block
    again = repeated * config.num_hidden_layers
    return again * config.hidden_size * width + (config.num_hidden_layers - again) * block + block


def _available() -> float:
    import torch

    if torch.cuda.is_available():
        return torch.cuda.get_device_properties(0).total_memory / GB
    return os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_AVPHYS_PAGES") / GB


def peak(compute: str, config: Any) -> tuple[float, str]:
    """Operations per second of large matrix products here, and of what. A CPU is measured, for a fifth of a second."""
    import torch

    if torch.cuda.is_available():
        name = torch.cuda.get_device_name(0)
        tflops = next((tflops for known, tflops in PEAKS.items() if known in name), 100)
        return tflops * 1e12 * (1 if compute == "bfloat16" else 0.5), name
    kind = torch.bfloat16 if compute == "bfloat16" else torch.float32
    rows = torch.ones(256, config.hidden_size, dtype=kind)
    weight = torch.ones(config.hidden_size, config.intermediate_size, dtype=kind)
    torch.mm(rows, weight)
    best, whole = float("inf"), time.perf_counter()
    while (began := time.perf_counter()) - whole < 0.2:
        torch.mm(rows, weight)
        best = min(best, time.perf_counter() - began)
    operations = 2 * 256 * config.hidden_size * config.intermediate_size
    return operations / best, f"CPU, {torch.get_num_threads()} threads"


def _speed(compute: str, config: Any) -> tuple[float, str]:
    """Operations per second that training is expected to reach, and on what."""
    most, name = peak(compute, config)
    return most * (REACHED_ON_CPU if name.startswith("CPU") else REACHED), name
