"""`Strict`, the one base class of every record and every setting."""

from pydantic import BaseModel, ConfigDict


class Strict(BaseModel):
    """Frozen, refuses unknown fields, and its attribute docstrings become form help."""

    model_config = ConfigDict(extra="forbid", frozen=True, use_attribute_docstrings=True)
