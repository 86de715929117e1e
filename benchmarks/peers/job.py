"""What a driver is asked to do and what it hands back. Standard library only: every peer's environment imports it."""

import json
import re
import sys
from collections.abc import Iterable
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

BLOCK = re.compile(r"#### Output for Text (\d+)\s+Rating: (\d)\b")


@dataclass(frozen=True)
class Job:
    """Every prompt answered by every model and, where there is a judge, all answers of a prompt rated in one call."""

    prompts: list[str]
    models: dict[str, str]
    """Address by name, up to and including /v1."""
    judge: str | None
    judge_text: str
    """The judge's prompt, with {{instruction}}, {{texts}} and {{count}}; peers with a judge of their own use theirs."""
    changed: bool
    """The judge is asked in other words than before."""
    tuned: bool
    """The best documented configuration; else what a user gets who sets address, model and longest answer."""
    in_flight: int
    """Requests at one endpoint, for those that can be told."""
    timeout: float
    max_tokens: int
    folder: str
    """Where the client keeps its state: the same one is given again to go on."""
    out: str

    @classmethod
    def read(cls) -> "Job":
        """The job whose file is the only argument."""
        return cls(**json.loads(Path(sys.argv[1]).read_text()))

    def write(self, path: Path) -> None:
        path.write_text(json.dumps(asdict(self)))

    def judging(self, i: int, texts: list[str]) -> str:
        """The judge's prompt for the answers to one prompt."""
        shown = "\n\n".join(f"#### Text {n}\n{text}" for n, text in enumerate(texts, 1))
        text = self.judge_text.replace("{{count}}", str(len(texts))).replace("{{texts}}", shown)
        return text.replace("{{instruction}}", self.prompts[i])

    def hand_back(self, rows: Iterable[dict[str, Any]]) -> None:
        """Rows as `{"i": prompt, "answers": {model: text}, "ratings": {model: 1 to 5}}`, any order; None: failed."""
        with Path(self.out).open("w") as file:
            for row in rows:
                file.write(json.dumps(row) + "\n")


def ratings_in(text: str, names: list[str]) -> dict[str, int | None]:
    """What the judge's answer says of each; nothing of any where the blocks are not one for each."""
    found = {int(n): int(rating) for n, rating in BLOCK.findall(text or "")}
    if sorted(found) != list(range(1, len(names) + 1)):
        return dict.fromkeys(names)
    return {name: found[n] for n, name in enumerate(names, 1)}
