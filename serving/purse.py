"""What a whole run may spend: nothing is sent that could cost more than what is left.

A request is held at the most it can cost while it is under way, and settled at what it did cost. What has been spent
is written down before it is spent, a hundredth of the budget ahead, so a run that was killed has never spent more than
its file says.
"""

import asyncio
import json
import os
from dataclasses import astuple, dataclass
from pathlib import Path

from pydantic import Field

from records.base import Strict
from records.schema import Usage
from serving.chat import Request
from serving.errors import RequestFailed, ServingError

TEMPLATE = 64
"""Tokens that a chat template may add to a prompt's own."""
AHEAD = 0.01
"""Share of the budget that is written down as spent before it is."""


class BudgetSpent(ServingError):
    """The budget would be exceeded by what is still to be asked. All that was paid for is kept."""


class Budget(Strict):
    """What a run may spend at its models, with all runs of the same name that it goes on from."""

    calls: int | None = Field(default=None, ge=1)
    """Requests, repeated ones too."""
    tokens: int | None = Field(default=None, ge=1)
    """Of prompts and answers."""
    money: float | None = Field(default=None, gt=0)
    """In the currency of the endpoints' `price_in` and `price_out`; other kinds of models cost nothing."""
    partial: bool = False
    """When it is spent, go on with what is there instead of stopping: pairs, training, evaluation."""


@dataclass(frozen=True, slots=True)
class Cost:
    calls: float = 0
    tokens: float = 0
    money: float = 0.0

    def __add__(self, other: "Cost") -> "Cost":
        return Cost(*(a + b for a, b in zip(astuple(self), astuple(other), strict=True)))

    def __sub__(self, other: "Cost") -> "Cost":
        return Cost(*(a - b for a, b in zip(astuple(self), astuple(other), strict=True)))


@dataclass(frozen=True)
class Prices:
    """Of one model, per million tokens."""

    tokens_in: float = 0.0
    tokens_out: float = 0.0

    def most(self, request: Request) -> Cost:
        """What a request can cost: a token holds a byte at least."""
        read = sum(len(m["content"].encode()) + TEMPLATE for m in request.messages) + len(
            request.prefix.encode()
        )
        return self.of_tokens(read, request.max_tokens * request.n)

    def of(self, usage: Usage) -> Cost:
        return self.of_tokens(usage.prompt_tokens, usage.completion_tokens)

    def of_tokens(self, read: int, wrote: int) -> Cost:
        return Cost(1, read + wrote, (read * self.tokens_in + wrote * self.tokens_out) / 1e6)


class Purse:
    """A run's budget and what is left of it. `path` says what was spent, over all runs."""

    def __init__(self, budget: Budget, path: Path) -> None:
        self.budget, self.path = budget, path
        self.limit = Cost(
            *(v if v is not None else float("inf") for v in (budget.calls, budget.tokens, budget.money))
        )
        self.spent = Cost(**json.loads(path.read_text())) if path.exists() else Cost()
        self._held, self._written = Cost(), self.spent
        self._under_way = 0
        self._changed = asyncio.Event()
        self.empty = False

    async def hold(self, most: Cost) -> Cost:
        """Before a request is sent. Waits where what is under way may turn out to leave enough.

        Raises:
            RequestFailed: it may cost more than what is left.
        """
        while not self.empty and not self._fits(self.spent + self._held + most):
            if not self._under_way:
                self.empty = True
                break
            await self._changed.wait()
        if self.empty:
            raise RequestFailed("budget", f"it may cost more than is left of the budget: {self.shown()}")
        self._held, self._under_way = self._held + most, self._under_way + 1
        self._write_ahead()
        return most

    def settle(self, held: Cost, cost: Cost) -> None:
        """What a request did cost."""
        self._held, self._under_way = self._held - held, self._under_way - 1
        self.spent = self.spent + cost
        self._changed.set()
        self._changed = asyncio.Event()

    def close(self) -> None:
        """Write down what was spent; what is still under way counts as spent."""
        self._write(self.spent + self._held)

    def shown(self) -> str:
        """What was spent of what."""
        return ", ".join(
            f"{getattr(self.spent, name):,.6g} of {most:,.6g} {name}"
            for name in ("calls", "tokens", "money")
            if (most := getattr(self.budget, name)) is not None
        )

    def tightest(self) -> tuple[str, float]:
        """The limit that is nearest to being reached, and twice as much."""
        limits = {
            n: most for n in ("calls", "tokens", "money") if (most := getattr(self.budget, n)) is not None
        }
        name = max(limits, key=lambda name: getattr(self.spent, name) / limits[name])
        return name, 2 * limits[name]

    def _fits(self, cost: Cost) -> bool:
        return all(each <= most + 1e-9 for each, most in self._pairs(cost))

    def _pairs(self, cost: Cost) -> list[tuple[float, float]]:
        return list(zip(astuple(cost), astuple(self.limit), strict=True))

    def _write_ahead(self) -> None:
        needed = self.spent + self._held
        if any(n > w for n, w in zip(astuple(needed), astuple(self._written), strict=True)):
            share = [AHEAD * (most if most != float("inf") else n) for n, most in self._pairs(needed)]
            ahead = astuple(needed + Cost(int(share[0]), int(share[1]), share[2]))
            self._write(Cost(*map(min, ahead, astuple(self.limit))))

    def _write(self, cost: Cost) -> None:
        part = self.path.with_name(f".{self.path.name}.part")
        part.parent.mkdir(parents=True, exist_ok=True)
        with part.open("w") as file:
            json.dump({"calls": cost.calls, "tokens": cost.tokens, "money": round(cost.money, 9)}, file)
            file.flush()
            os.fsync(file.fileno())
        part.replace(self.path)
        self._written = cost
