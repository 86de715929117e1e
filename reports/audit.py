"""The audit of a published dataset as one HTML file, readable offline."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from reports.page import fill


def write_audit(found: Mapping[str, Any], to: Path) -> Path:
    """Draw what `zephyr audit --json` gives. All text of the dataset is escaped; the page loads and runs nothing."""
    page = fill("audit.html.jinja", audit=found)
    to.parent.mkdir(parents=True, exist_ok=True)
    part = to.with_name(f".{to.name}.part")
    part.write_text(page, encoding="utf-8")
    part.replace(to)
    return to
