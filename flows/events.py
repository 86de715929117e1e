"""What a run tells the Prefect server as it happens, for automations: examples are in deploy/automations/.

    zephyr.dataset.published    recipe, out, pairs, digest       pairs are written; out is the folder of runs
    zephyr.model.trained        recipe, out, stage, folder, weights
    zephyr.judge.failing        judge, statuses, max_unjudged    half of what the recipe allows could not be read
    zephyr.budget.reached       message                          rows were left unasked for want of money

The resource is `zephyr.run.<name>`; the flow run, its deployment and its work pool are related to it. `recipe` is the
path of the recipe as run, which a deployment takes as its parameter.
"""

from typing import Any

from prefect.events import emit_event

from flows.run import Run


def tell(event: str, run: Run, **payload: Any) -> None:
    emit_event(
        event=f"zephyr.{event}",
        resource={
            "prefect.resource.id": f"zephyr.run.{run.recipe.name}",
            "prefect.resource.name": run.recipe.name,
        },
        payload=payload
        | {"recipe": str((run.folder / "recipe.yaml").absolute()), "out": str(run.folder.parent.absolute())},
    )
