"""Parameters that a flow does not have are refused at submission.

Prefect holds a run's parameters to the flow's schema, and leaves that open: a misspelled name would be taken, and
refused when the run begins. There is no setting for it, so its schema gets the one word that JSON Schema has for it,
where Prefect makes it and where it sends it.
"""

from typing import Any

from prefect.client.schemas.actions import DeploymentCreate, DeploymentUpdate
from prefect.utilities import callables


class Closed(callables.ParameterSchema):
    """The schema of a flow's parameters."""

    additionalProperties: bool

    def __init__(self, **fields: Any) -> None:
        closed: dict[str, Any] = {"additionalProperties": False} | fields
        super().__init__(**closed)


def close_schemas() -> None:
    """From now on, in this process; `prefect deploy` loads the flows and with them this."""
    callables.ParameterSchema = Closed  # type: ignore[misc]
    for sent in (DeploymentCreate, DeploymentUpdate):
        sent.model_fields["parameter_openapi_schema"].annotation = Closed | None  # type: ignore[assignment]
        sent.model_rebuild(force=True)
