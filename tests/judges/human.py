"""Human-labelled files beside the checkout; nothing of them is part of the project."""

import json
from pathlib import Path
from typing import Any

import pytest

DATA = Path(__file__).parent.parent.parent.parent / "shared" / "data"


def human_file(name: str) -> Path:
    path = DATA / name
    if not path.exists():
        pytest.skip(f"no {name} in shared/data beside the checkout")
    return path


def human_rows(name: str) -> list[dict[str, Any]]:
    text = human_file(name).read_text(encoding="utf-8")
    if text.startswith("["):
        return json.loads(text)
    return [json.loads(line) for line in text.split("\n") if line.strip()]
