"""What goes wrong at a simulated endpoint, drawn by hash of the request and of how often it came."""

from collections import Counter
from dataclasses import dataclass, field
from typing import Literal

from benchmarks.replies import luck

Fault = Literal["429", "503", "500", "reset", "hang", "cut", "empty", "malformed", "abort"]
REFUSALS: tuple[Fault, ...] = ("429", "503", "hang")
"""Said at the door; the others come after the work was done."""
KINDS: tuple[Fault, ...] = (*REFUSALS, "500", "reset", "cut", "empty", "malformed", "abort")


@dataclass
class Faults:
    """A share of all requests fails, each time in one way; the same request may fail again."""

    share: float = 0.0
    kinds: tuple[Fault, ...] = KINDS
    seen: Counter[int] = field(default_factory=Counter)
    """Requests that failed before, by hash: how often they came."""
    planted: Counter[str] = field(default_factory=Counter)

    def draw(self, body: bytes) -> Fault | None:
        if not self.share:
            return None
        key = hash(body)
        chance = luck("fault", body, self.seen.get(key, 0))
        if chance >= self.share:
            return None
        self.seen[key] += 1
        kind = self.kinds[int(chance / self.share * len(self.kinds))]
        self.planted[kind] += 1
        return kind
