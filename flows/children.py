"""Child runs: a flow asks a deployment, on whatever machine has a worker for it, and sees to it until it is done.

A child is known by its tags, so a parent that was stopped or killed finds those that still run and asks for no others.
"""

import asyncio
import logging
import os
from collections.abc import Sequence
from typing import Any

import httpx
from prefect._internal.control_listener import get_intent
from prefect.client.orchestration import PrefectClient, get_client
from prefect.client.schemas.filters import FlowRunFilter
from prefect.client.schemas.objects import FlowRun, State
from prefect.deployments import arun_deployment
from prefect.exceptions import ObjectNotFound, PrefectHTTPStatusError
from prefect.states import Cancelling

from flows.recipe import RecipeError

LOOK = 3.0
"""Seconds between two looks at a child's state."""
PATIENCE = 600.0
"""Seconds without an answer of the server after which the parent gives up; children go on without it."""
ALIVE = ("SCHEDULED", "PENDING", "RUNNING", "PAUSED", "CANCELLING")

log = logging.getLogger(__name__)


class ChildFailed(Exception):
    """A child run did not complete. What it finished is kept."""


async def run_child(
    deployment: str, parameters: dict[str, Any], name: str, tags: Sequence[str], attempts: int = 1
) -> None:
    """Have `deployment` run to its end. One that failed, crashed or was lost is asked for again, `attempts` in all.

    `tags`: tell this child from all others.

    Raises:
        ChildFailed: no attempt completed, or someone cancelled it.
        RecipeError: there is no such deployment, or it refuses the parameters.
    """
    ends: list[str] = []
    async with get_client() as client:
        while len(ends) < attempts:
            child = await _living(client, tags) or await _asked(deployment, parameters, name, tags)
            try:
                state = await _end(client, child)
            except BaseException:
                if _for_good():
                    await asyncio.shield(client.set_flow_run_state(child.id, Cancelling(), force=True))
                raise
            if state.is_completed():
                return
            ends.append(f"{state.name}: {state.message or 'no reason given'}")
            if state.is_cancelled():
                break
            log.warning("%s: attempt %d of %d ended %s", name, len(ends), attempts, ends[-1])
    raise ChildFailed(
        f"{deployment} {name}: {len(ends)} attempts did not complete ({'; '.join(ends)}); what they finished is kept, "
        "run the same again to go on"
    )


async def _living(client: PrefectClient, tags: Sequence[str]) -> FlowRun | None:
    """The child of an earlier run of the parent that has not ended."""
    found = await client.read_flow_runs(
        flow_run_filter=FlowRunFilter.model_validate(
            {"tags": {"all_": list(tags)}, "state": {"type": {"any_": ALIVE}}}
        )
    )
    return found[0] if found else None


async def _asked(deployment: str, parameters: dict[str, Any], name: str, tags: Sequence[str]) -> FlowRun:
    try:
        return await arun_deployment(
            deployment, parameters=parameters, flow_run_name=name, tags=list(tags), timeout=0
        )
    except ObjectNotFound as error:
        raise RecipeError(
            f"there is no deployment {deployment!r}; `prefect deploy --all` makes those of prefect.yaml"
        ) from error
    except PrefectHTTPStatusError as error:
        raise RecipeError(f"deployment {deployment!r} refuses its parameters: {error}") from error


async def _end(client: PrefectClient, child: FlowRun) -> State[Any]:
    """Its last state. A server that does not answer is asked again for a while."""
    silent = 0.0
    while True:
        try:
            state = (await client.read_flow_run(child.id)).state
            silent = 0.0
            if state is not None and state.is_final():
                return state
        except (httpx.TransportError, PrefectHTTPStatusError) as error:
            silent += LOOK
            if silent > PATIENCE:
                raise ChildFailed(
                    f"the Prefect server does not answer ({error!r}); {child.name} goes on"
                ) from error
        await asyncio.sleep(LOOK)


def _for_good() -> bool:
    """Whether who stops this run means its children too: a person does, a worker that is shut down does not."""
    return get_intent() == "cancel" or "PREFECT__FLOW_RUN_ID" not in os.environ
