"""Whether a judge's verdict depends on which answer it is shown first."""

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass

from judges.agreement import Side
from records.base import Strict
from records.stats import Rate, share


class Orders(Strict):
    """Every pair asked in both orders: what changed."""

    n: int
    same_winner: int
    same_winner_right: int
    both_tie: int
    first_twice: int
    """Whatever stood first won both times."""
    second_twice: int
    tie_and_winner: int
    """A tie in one order, a winner in the other."""
    failed: int
    """No verdict in at least one order."""
    consistent: Rate | None
    """Same winner or tie twice, of those with two verdicts. A judge that always says tie has 1."""
    first_of_flips: Rate | None
    """Of the flips, those to what stood first; 0.5 is no preference."""


@dataclass(frozen=True, slots=True)
class Twice:
    """One pair in both orders; a verdict names the place, so a true winner is `first` once and `second` once."""

    prompt: str
    gold: Side
    """The place of the better one in the first order."""
    forward: Side | None
    backward: Side | None


def orders(asked: Sequence[Twice]) -> Orders:
    kinds = [_kind(pair) for pair in asked]
    count = Counter(kinds)
    judged = [(kind, pair.prompt) for kind, pair in zip(kinds, asked, strict=True) if kind != "failed"]
    flips = [(kind, prompt) for kind, prompt in judged if kind.endswith("_twice")]
    right = sum(
        kind == "same_winner" and pair.forward == pair.gold for kind, pair in zip(kinds, asked, strict=True)
    )
    return Orders(
        n=len(asked),
        **{name: count[name] for name in Orders.model_fields if name in _KINDS},
        same_winner_right=right,
        consistent=share([k in ("same_winner", "both_tie") for k, _ in judged], [p for _, p in judged]),
        first_of_flips=share([k == "first_twice" for k, _ in flips], [p for _, p in flips]),
    )


_KINDS = ("same_winner", "both_tie", "first_twice", "second_twice", "tie_and_winner", "failed")


def _kind(pair: Twice) -> str:
    if pair.forward is None or pair.backward is None:
        return "failed"
    if "tie" in (pair.forward, pair.backward):
        return "both_tie" if pair.forward == pair.backward else "tie_and_winner"
    return f"{pair.forward}_twice" if pair.forward == pair.backward else "same_winner"
