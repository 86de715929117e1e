"""`zephyr plan --probe`: the speeds of the endpoints that are up, measured before anything else is asked.

Nothing is started, so models of other kinds keep their estimates. What is asked comes out of the recipe's budget.
"""

import asyncio

from flows.inputs import models_of
from flows.run import Run
from records.lock import exclusive
from serving.costs import slots_of
from serving.errors import RequestFailed, ServingError
from serving.models import open_models
from serving.settings import Endpoint, Imported
from serving.speed import AT_A_TIME, FEW, Measured, measure

MOST = 60.0
"""Seconds for all of them together."""


async def speeds(run: Run) -> dict[str, Measured | str]:
    """What was measured at each model that is asked, or why nothing was.

    Raises:
        StoreError: another process works in the run's folder; then the server is not free to be measured either.
    """
    models = models_of(run.recipe)
    ends = {name: model for name, model in models.items() if isinstance(model, Endpoint)}
    found: dict[str, Measured | str] = {
        name: f"{model.kind} is not started for this"
        for name, model in models.items()
        if not isinstance(model, Endpoint | Imported)
    }
    with exclusive(run.folder):
        for name, model in ends.items():
            limited = model.requests_per_minute or model.tokens_per_minute
            try:
                async with (
                    asyncio.timeout(MOST / len(ends)),
                    open_models({name: model}, run.servers, purse=run.purse()) as engine,
                ):
                    at_a_time = FEW if limited else AT_A_TIME
                    lane, servers = engine.lanes[name], len(model.addresses)
                    found[name] = await measure(lane, slots_of(model), at_a_time, servers)
            except TimeoutError:
                found[name] = f"it took more than {MOST / len(ends):.0f} s"
            except (RequestFailed, ServingError) as error:
                found[name] = str(error)
    return found
