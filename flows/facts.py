"""What is known of a run, written as it becomes known: `summary.json`, whole after every stage."""

import json
import os
import platform
import sys
from collections import Counter
from dataclasses import dataclass, field
from importlib.metadata import PackageNotFoundError, version
from typing import Any

from flows.run import Run
from records.schema import Usage
from records.store import Receipt

PACKAGES = (
    "prefect",
    "trl",
    "transformers",
    "torch",
    "datasets",
    "peft",
    "openai",
    "pandas",
    "pyarrow",
    "xllamacpp",
)


def versions() -> dict[str, str]:
    """Of everything that could change a result."""
    found = {"python": platform.python_version()}
    for name in PACKAGES:
        try:
            found[name] = version(name)
        except PackageNotFoundError:
            continue
    return found


@dataclass
class Facts:
    """The summary of a run, kept on disk. A part that is put again replaces the old one; the others stay."""

    run: Run
    content: dict[str, Any] = field(default_factory=dict)

    @classmethod
    def of(cls, run: Run) -> "Facts":
        facts = cls(run, run.read_json("summary.json"))
        facts.content |= {
            "recipe": run.recipe.name,
            "fingerprint": run.recipe.fingerprint,
            "versions": versions(),
        }
        return facts

    @property
    def versions(self) -> dict[str, str]:
        return self.content["versions"]

    def put(self, part: str, value: Any) -> None:
        self.content[part] = value
        self.save()

    def receipts(self, stage: str, receipts: list[Receipt]) -> None:
        """One stage's counts, from what lies on disk: the same however often the run was interrupted."""
        usage = sum((receipt.usage for receipt in receipts), Usage())
        dropped: Counter[str] = Counter()
        for receipt in receipts:
            dropped.update(receipt.dropped)
        self.content.setdefault("stages", {})[stage] = {
            "rows": sum(receipt.rows for receipt in receipts),
            "answers": sum(receipt.answers for receipt in receipts),
            "dropped": dict(dropped),
            **usage.model_dump(),
        }
        self.save()

    def spent(self, stage: str, seconds: float, asked: int) -> None:
        """Time and requests of this run; time is added up over the runs that asked something."""
        times = self.content.setdefault("seconds", {})
        if asked or stage not in times:
            times[stage] = round(times.get(stage, 0.0) + seconds, 1)
        self.content.setdefault("asked_this_run", {})[stage] = asked
        self.save()

    def save(self) -> None:
        self.run.write("summary.json", json.dumps(self.content, indent=2, ensure_ascii=False) + "\n")


def machine() -> dict[str, Any]:
    """Where figures come from."""
    return {"cpus": os.cpu_count(), "platform": platform.platform(), "python": sys.version.split()[0]}
