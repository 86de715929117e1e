"""What every judge is: settings with a `kind`, `build`, and an object that turns a completion into verdicts."""

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any, Protocol

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

    Returns one verdict per completion on one of the judge's aspects, in their order. Raises what `Chat` raises.
    """

    async def __call__(
        self, prompt: Prompt, completions: Sequence[Completion], aspect: str
    ) -> list[Verdict]: ...


class Builds(Protocol):
    """A judge's settings."""

    @property
    def name(self) -> str: ...

    @property
    def aspects(self) -> tuple[str, ...]: ...

    def asked(self) -> dict[str, Any]:
        """Everything that decides its verdicts besides the model's identity and the aspect, texts included."""
        ...

    def question(self, aspect: str) -> str:
        """The text that asks about one aspect; in each judgement's key, so a new aspect costs only its own calls."""
        ...

    def build(self, chat: Chat | None) -> Judge: ...
