"""A recipe to a deployment. It is read and checked here, as a whole; Prefect then checks it against its schema."""

from pathlib import Path
from typing import Any

import httpx
from prefect.client.orchestration import get_client
from prefect.exceptions import ObjectNotFound, PrefectHTTPStatusError
from prefect.settings import PREFECT_API_URL
from prefect.utilities.urls import url_for

from flows.recipe import Recipe, RecipeError


async def submit(
    recipe: Recipe, deployment: str, out: Path | None = None, store: str | None = None
) -> dict[str, Any]:
    """Make a run of `deployment` with this recipe; says which.

    Raises:
        RecipeError: no server is named, there is no such deployment, or it does not take these parameters.
    """
    if not PREFECT_API_URL.value():
        raise RecipeError("no Prefect server is named: set PREFECT_API_URL=http://HOST:4200/api")
    parameters: dict[str, Any] = {"recipe": recipe.model_dump(mode="json")}
    parameters |= {"out": str(out.absolute())} if out else {}
    parameters |= {"store": store} if store else {}
    async with get_client() as client:
        try:
            found = await client.read_deployment_by_name(deployment)
            run = await client.create_flow_run_from_deployment(found.id, parameters=parameters)
        except ObjectNotFound as error:
            there = [
                f"{await _flow(client, each.flow_id)}/{each.name}" for each in await client.read_deployments()
            ]
            raise RecipeError(
                f"--to {deployment}: no such deployment; there are {', '.join(sorted(there)) or 'none'}"
            ) from error
        except PrefectHTTPStatusError as error:
            raise RecipeError(f"{deployment} refuses the recipe: {error.response.text}") from error
        except httpx.TransportError as error:
            raise RecipeError(f"the Prefect server at {PREFECT_API_URL.value()} does not answer") from error
    return {"flow_run": str(run.id), "name": run.name, "deployment": deployment, "url": url_for(run)}


async def _flow(client: Any, id: Any) -> str:
    return (await client.read_flow(id)).name
