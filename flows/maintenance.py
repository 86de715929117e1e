"""Keeping runs' folders tidy, as a flow for a schedule: `zephyr gc` says what it does."""

from pathlib import Path
from typing import Any

from flows.artifacts import publish_garbage
from flows.flow import flow
from flows.garbage import collect_garbage


@flow(name="maintenance", flow_run_name="maintenance")
async def maintenance(
    out: Path | None = None, older_than_days: float = 14.0, delete: bool = False
) -> dict[str, Any]:
    """End servers without a run, and say, or delete, what nothing needs any more.

    Args:
        out: Folder of runs; runs/ of the checkout.
        older_than_days: What was changed since then stays.
        delete: Delete what was found; without it, it is only counted.
    """
    found = collect_garbage(out or Path("runs"), older_than_days, delete=delete)
    await publish_garbage(found)
    return found
