"""Recipes for deployments, as the fields that are submitted."""

import json
from pathlib import Path
from typing import Any

import yaml

from tests.deployments.place import ROOT


def smoke(**changes: Any) -> dict[str, Any]:
    """The recipe of the smoke deployment; a small model answers, judges and is trained for real."""
    fields = yaml.safe_load((ROOT / "recipes/smoke.yaml").read_text())
    for source in fields["prompts"]:
        source["file"] = str(ROOT / source["file"])
    return fields | changes


def asked_of(
    url: str, folder: Path, name: str, prompts: int, models: int = 4, **changes: Any
) -> dict[str, Any]:
    """Samplers and a judge at one simulated endpoint."""
    file = folder / f"{name}.jsonl"
    lines = (
        json.dumps({"prompt": f"Question {i} about {i % 97}?", "split": "train"}) for i in range(prompts)
    )
    file.write_text("\n".join(lines) + "\n")
    fields: dict[str, Any] = {
        "name": name,
        "prompts": [{"file": str(file)}],
        "models": {
            "simulated": {"kind": "endpoint", "model": "simulated", "base_url": url, "dialect": "vllm"}
        },
        "samplers": [
            {"name": f"model-{i}", "model": "simulated", "seed": i, "max_tokens": 512} for i in range(models)
        ],
        "judge": {"kind": "rating", "model": "simulated", "min_mass": 0.01},
        "pairs": {"policy": "best_vs_random"},
        "shard_size": 500,
        "max_unjudged": 1.0,
        "max_failed": 0.0,
    }
    fields["models"]["simulated"]["max_in_flight"] = 256
    return fields | changes


def served(folder: Path, name: str, seed: int) -> dict[str, Any]:
    """One model of kind vllm that takes the only GPU there is."""
    prompts = folder / f"{name}.jsonl"
    prompts.write_text(
        "".join(json.dumps({"prompt": f"Question {i}.", "split": "train"}) + "\n" for i in range(40))
    )
    return {
        "name": name,
        "seed": seed,
        "prompts": [{"file": str(prompts)}],
        "machine": {"gpus": 1, "gpu_memory": 80},
        "models": {"large": {"kind": "vllm", "model": str(folder / "weights"), "revision": "a"}},
        "samplers": [{"name": f"s{i}", "model": "large", "seed": i, "max_tokens": 512} for i in range(2)],
        "judge": {"kind": "rating", "model": "large", "min_mass": 0.01},
        "shard_size": 20,
        "max_unjudged": 1.0,
    }
