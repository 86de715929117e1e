"""What deployments need of a Prefect server, made once and brought up to date by every later call: `zephyr setup`.

Work pools from deploy/pools/, concurrency limits of this machine's GPUs, automations from deploy/automations/, and
secrets as blocks. What `prefect deploy` needs beside these is in prefect.yaml.
"""

import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import httpx
import yaml
from prefect.blocks.system import Secret
from prefect.client.orchestration import PrefectClient, get_client
from prefect.client.schemas.actions import WorkPoolCreate, WorkPoolUpdate
from prefect.events.schemas.automations import AutomationCore
from prefect.exceptions import ObjectNotFound
from prefect.settings import PREFECT_API_URL

from flows.gpus import gpu_limit, node
from flows.recipe import RecipeError
from serving.gpus import detect

DEPLOY = Path(__file__).parent.parent / "deploy"
POOLS = ("zephyr-cpu", "zephyr-gpu")
KINDS = ("process", "docker", "kubernetes", "slurm")
"""Templates in deploy/pools/."""
TYPES = {"slurm": "process"}
"""What Prefect calls the workers of a kind, where that is another name."""


async def set_up(
    kinds: Mapping[str, str] | None = None,
    gpus: Mapping[str, int] | None = None,
    secrets: Sequence[str] = (),
) -> dict[str, Any]:
    """Bring the server up to date; says of everything whether it was made, changed or there.

    `kinds`: pool -> kind of its workers; process. `gpus`: machine -> how many it has; None: this one, if it has any.
    `secrets`: environment variables whose values become blocks of type Secret, for pools whose workers have no
    environment of their own.

    Raises:
        RecipeError: no server is named, an unknown pool or kind, or a variable that is not set.
    """
    if not PREFECT_API_URL.value():
        raise RecipeError(
            "no Prefect server is named: a server that ends with its run keeps no deployments. Start one with `prefect "
            "server start` and set PREFECT_API_URL=http://127.0.0.1:4200/api"
        )
    wanted = dict.fromkeys(POOLS, "process") | dict(kinds or {})
    for pool, kind in wanted.items():
        if pool not in POOLS or kind not in KINDS:
            raise RecipeError(
                f"--pool {pool}={kind}: wanted one of {', '.join(POOLS)} = one of {', '.join(KINDS)}"
            )
    if missing := [name for name in secrets if not os.environ.get(name)]:
        raise RecipeError(f"--secret {', '.join(missing)}: not set in the environment, which gives its value")
    if gpus is None:
        machine = detect()
        gpus = {node(): machine.gpus} if machine else {}
    try:
        return {"server": PREFECT_API_URL.value(), "done": await _bring(wanted, gpus, secrets)}
    except httpx.TransportError as error:
        raise RecipeError(
            f"the Prefect server at {PREFECT_API_URL.value()} does not answer ({error!r})"
        ) from error


async def _bring(
    wanted: Mapping[str, str], gpus: Mapping[str, int], secrets: Sequence[str]
) -> dict[str, str]:
    done: dict[str, str] = {}
    async with get_client() as client:
        for pool, kind in wanted.items():
            done[f"work pool {pool} ({kind})"] = await _pool(client, pool, kind)
        for machine, count in gpus.items():
            done[f"limit {gpu_limit(machine)} = {count}"] = await _limit(client, gpu_limit(machine), count)
        for file in sorted((DEPLOY / "automations").glob("*.yaml")):
            automation = AutomationCore.model_validate(yaml.safe_load(file.read_text()))
            done[f"automation {automation.name}"] = await _automation(client, automation)
    for name in secrets:
        block = name.lower().replace("_", "-")
        await Secret(value=os.environ[name]).save(block, overwrite=True)  # type: ignore[misc]
        done[f"secret {block} from {name}"] = "written"
    return done


def template(kind: str) -> dict[str, Any]:
    """A pool's base job template: which settings its runs have, and where they go."""
    return yaml.safe_load((DEPLOY / "pools" / f"{kind}.yaml").read_text())


async def _pool(client: PrefectClient, name: str, kind: str) -> str:
    job = template(kind)
    try:
        there = await client.read_work_pool(name)
    except ObjectNotFound:
        await client.create_work_pool(
            WorkPoolCreate(name=name, type=TYPES.get(kind, kind), base_job_template=job)
        )
        return "made"
    if there.type != TYPES.get(kind, kind):
        raise RecipeError(
            f"work pool {name} is of kind {there.type}, wanted {kind}; `prefect work-pool delete {name}` it first"
        )
    if there.base_job_template == job:
        return "there"
    await client.update_work_pool(name, WorkPoolUpdate(base_job_template=job))
    return "changed"


async def _limit(client: PrefectClient, name: str, count: int) -> str:
    try:
        there = (await client.read_global_concurrency_limit_by_name(name)).limit
    except ObjectNotFound:
        there = None
    if there == count:
        return "there"
    await client.upsert_global_concurrency_limit_by_name(name, count)
    return "made" if there is None else f"changed from {there}"


async def _automation(client: PrefectClient, wanted: AutomationCore) -> str:
    """Switched on or off by hand, it stays so."""
    there = await client.read_automations_by_name(wanted.name)
    if not there:
        await client.create_automation(wanted)
        return "made"
    fields = {"trigger", "actions", "description", "actions_on_trigger", "actions_on_resolve"}
    same = wanted.model_dump(include=fields) == there[0].model_dump(include=fields)
    if same:
        return "there"
    await client.update_automation(there[0].id, wanted.model_copy(update={"enabled": there[0].enabled}))
    return "changed"
