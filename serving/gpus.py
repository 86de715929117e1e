"""The GPUs of this machine: which there are, what a model takes of them, and its weights read before it starts."""

import os
import shutil
import subprocess
from collections.abc import Mapping
from pathlib import Path
from typing import NamedTuple

from serving.placement import VLLM_SHARE, Machine, Need
from serving.settings import Model, Vllm

PARALLEL = (
    ("tensor-parallel-size", "tp"),
    ("pipeline-parallel-size", "pp"),
    ("data-parallel-size", "dp"),
)
"""Flags that multiply a server's GPUs."""
BLOCK = 16 * 2**20


class Place(NamedTuple):
    """Where a server runs."""

    share: float
    """Of each GPU's memory."""
    env: dict[str, str]


def detect() -> Machine | None:
    """This machine's NVIDIA GPUs, of those that CUDA_VISIBLE_DEVICES leaves; the smallest memory counts for all.

    None: there is none, or nvidia-smi does not say.
    """
    if (smi := shutil.which("nvidia-smi")) is None:
        return None
    query = [smi, "--query-gpu=memory.total", "--format=csv,noheader,nounits"]
    try:
        said = subprocess.run(query, capture_output=True, text=True, timeout=60, check=True).stdout
        sizes = [float(line) / 1024 for line in said.split("\n") if line.strip()]
    except (OSError, ValueError, subprocess.SubprocessError):
        return None
    visible = visible_gpus(len(sizes))
    return Machine(gpus=len(visible), gpu_memory=round(min(sizes), 2)) if sizes and visible else None


def visible_gpus(count: int) -> list[str]:
    """What CUDA calls the first `count` GPUs this process may use."""
    named = os.environ.get("CUDA_VISIBLE_DEVICES")
    return (
        [str(i) for i in range(count)] if named is None else [gpu for gpu in named.split(",") if gpu][:count]
    )


def needs_of(models: Mapping[str, Model], machine: Machine) -> dict[str, Need]:
    """What each vLLM model takes; the others take nothing of a GPU that we decide."""
    return {name: need_of(model, machine) for name, model in models.items() if isinstance(model, Vllm)}


def need_of(model: Vllm, machine: Machine) -> Need:
    gpus = 1
    for names in PARALLEL:
        gpus *= int(model.arg(*names) or 1)
    share = float(model.arg("gpu-memory-utilization") or VLLM_SHARE)
    return Need(gpus, model.gpu_memory or round(share * machine.gpu_memory, 3))


def place_of(need: Need, gpus: tuple[int, ...], machine: Machine) -> Place:
    """How a server is told which GPUs are its own, and how much of each."""
    names = visible_gpus(machine.gpus)
    named = ",".join(names[gpu] if gpu < len(names) else str(gpu) for gpu in gpus)
    return Place(round(need.memory / machine.gpu_memory, 4), {"CUDA_VISIBLE_DEVICES": named})


def read_ahead(weights: Path) -> int:
    """Read a folder's weights once, so that the page cache has them; returns the bytes read.

    Nothing is read where less than twice as much memory is free: it would push out what is in use.
    """
    files = [path for path in weights.rglob("*") if path.suffix in (".safetensors", ".bin", ".gguf")]
    size = sum(path.stat().st_size for path in files)
    if 2 * size > _free_memory():
        return 0
    for path in files:
        with path.open("rb", buffering=0) as file:
            while file.read(BLOCK):
                pass
    return size


def _free_memory() -> int:
    """Bytes the host can give without swapping; 0 where it does not say."""
    try:
        lines = Path("/proc/meminfo").read_text().splitlines()
    except OSError:
        return 0
    return next((int(line.split()[1]) * 1024 for line in lines if line.startswith("MemAvailable")), 0)
