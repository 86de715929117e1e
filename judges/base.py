"""What every judge is: settings with a `kind`, `build`, and an object that turns a completion into verdicts."""

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Protocol

from records.schema import Completion, Prompt, Status, Usage
from serving.chat import Chat


@dataclass(frozen=True, slots=True)
class Verdict:
    """What a judge said of one completion on one aspect. Only status `ok` has a score."""

    aspect: str
    status: Status
    low: float
    high: float
    score: float | None = None
    distribution: dict[str, float] | None = None
    off_scale: float | None = None
    spread: float | None = None
    raw: str = ""
    detail: str = ""
    position: int | None = None
    usage: Usage = field(default_factory=Usage)


class Judge(Protocol):
    """A judge sees a prompt and completions and, through `Chat`, one model. No server, disk or flow.

    Returns one list of verdicts per completion, in the completions' order. Raises what `Chat` raises.
    """

    async def __call__(self, prompt: Prompt, completions: Sequence[Completion]) -> list[list[Verdict]]: ...


class Builds(Protocol):
    """A judge's settings."""

    @property
    def name(self) -> str: ...

    def asked(self) -> dict[str, object]:
        """Everything that decides its verdicts besides the model's identity, texts included."""
        ...

    def build(self, chat: Chat | None) -> Judge: ...
