"""What this machine has for a run: `zephyr doctor` without a recipe. Looks, changes nothing, and says no secret."""

import asyncio
import os
import re
import sys
from collections.abc import Iterator
from importlib.metadata import version
from pathlib import Path
from typing import Any, Literal, NamedTuple

import httpx

from flows.run import LEAST_FREE, free
from serving.errors import WrongModel
from serving.gpus import detect
from serving.settings import usable_cores
from serving.vllm import find_vllm

KEYS = ("HF_TOKEN",)
"""Variables with keys, beside those that recipes name."""


class Check(NamedTuple):
    """One thing that was looked at."""

    what: str
    level: Literal["ok", "note", "error"]
    found: str
    fix: str = ""


def examine(out: Path) -> dict[str, Any]:
    """`ok`: nothing that every run needs is missing. `out`: where runs go."""
    checks = [*_python(), *_disk(out), *_gpus(), *_vllm(), *asyncio.run(_prefect()), *_keys()]
    return {
        "ok": not any(check.level == "error" for check in checks),
        "checks": [check._asdict() for check in checks],
    }


def environment_text(found: dict[str, Any]) -> str:
    return "\n".join(
        f"{check['level']:<6}{check['what']:<12}{check['found']}"
        + (f"; {check['fix']}" if check["fix"] else "")
        for check in found["checks"]
    )


def _python() -> Iterator[Check]:
    old = sys.version_info < (3, 11)
    running = ".".join(map(str, sys.version_info[:3]))
    yield Check("Python", "error" if old else "ok", running, "3.11 or newer is needed" if old else "")
    yield Check("torch", "ok", version("torch"))
    yield Check("cores", "ok", str(usable_cores()))


def _disk(out: Path) -> Iterator[Check]:
    left, enough = free(out), free(out) >= LEAST_FREE
    yield Check(
        "disk",
        "ok" if enough else "error",
        f"{left / 1e9:.1f} GB free for {out}",
        "" if enough else f"a run wants {LEAST_FREE / 1e9:.1f} GB; make room or choose another --out",
    )


def _gpus() -> Iterator[Check]:
    machine = detect()
    if machine is None:
        yield Check("GPUs", "note", "none", "models of kind llamacpp and endpoint need none")
    else:
        yield Check("GPUs", "ok", f"{machine.gpus} of {machine.gpu_memory:.0f} GiB")
        import torch  # takes seconds, and without GPUs there is nothing to ask it

        built = f"torch {torch.__version__}, CUDA {torch.version.cuda or 'none'}"
        works = torch.cuda.is_available()
        fix = "" if works else "training would run on the CPU; install the build of torch for this driver"
        yield Check("CUDA", "ok" if works else "error", built, fix)


def _vllm() -> Iterator[Check]:
    try:
        yield Check("vLLM", "ok", " ".join(find_vllm(None)))
    except WrongModel as error:
        yield Check("vLLM", "note", "not found", str(error).partition("Install it ")[2])


async def _prefect() -> list[Check]:
    from prefect.client.orchestration import get_client
    from prefect.settings import PREFECT_API_URL

    checks = [Check("Prefect", "ok", version("prefect"))]
    if not (url := PREFECT_API_URL.value()):
        return [
            *checks,
            Check("server", "note", "none is named; each run starts one for itself", "deployments need one"),
        ]
    try:
        async with get_client() as client:
            reply = await client.request("GET", "/health")
            reply.raise_for_status()
            pools = {pool.name for pool in await client.read_work_pools()}
            limits = await client.read_global_concurrency_limits(limit=200)
            deployments = await client.read_deployments(limit=200)
    except httpx.HTTPError as error:
        return [*checks, Check("server", "error", f"{url}: {error!r}", "start it, or unset PREFECT_API_URL")]
    checks.append(Check("server", "ok", url))
    missing = {"zephyr-cpu", "zephyr-gpu"} - pools
    checks.append(
        Check(
            "pools",
            "note" if missing else "ok",
            f"without {', '.join(sorted(missing))}" if missing else ", ".join(sorted(pools)),
            "`zephyr setup` makes them" if missing else "",
        )
    )
    held = [
        f"{each.name} {each.active_slots} of {each.limit} held"
        for each in limits
        if each.name.startswith("gpu:")
    ]
    checks.append(Check("GPU limits", "ok" if held else "note", ", ".join(held) or "none"))
    count = len(deployments)
    fix = "" if count else "`prefect deploy --all` makes those of prefect.yaml"
    checks.append(Check("deployments", "ok" if count else "note", str(count), fix))
    return checks


def _keys() -> Iterator[Check]:
    named = {
        name
        for path in sorted(Path("recipes").glob("*.yaml"))
        for name in re.findall(r"key_env: *\"?(\w+)", path.read_text())
    }
    for name in sorted({*KEYS, *named}):
        there = bool(os.environ.get(name))
        yield Check(name, "ok" if there else "note", "set" if there else "not set")
