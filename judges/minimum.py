"""A recipe's floor for its judge: a stored card of this very judge must reach it, or nothing is asked."""

from pathlib import Path

from pydantic import Field, ValidationError

from judges.card import Card
from records.base import Strict


class CardError(ValueError):
    """A stored card is missing, of another judge or gold file, or below the recipe's minimum. Nothing was started."""


class JudgeMinimum(Strict):
    """What a judge must have shown on labels of people before its own are used; a flow refuses one below it."""

    card: Path
    """The card.json that `zephyr judge-card` wrote for this judge."""
    accuracy: float = Field(default=0.5, ge=0, le=1)
    """Least share of pairs with the right winner, where people have one; ties and failures count as wrong."""
    kappa: float = Field(default=0.0, ge=-1, le=1)
    """Least Cohen's kappa on the same pairs."""
    gold: Path | None = None
    """The gold file the card must be of; None takes any."""
    pairs: int = Field(default=50, ge=1)
    """Fewest such pairs the card must have."""


def read_card(path: Path) -> Card:
    """Raises: CardError, where there is none or it cannot be read."""
    try:
        return Card.model_validate_json(path.read_text(encoding="utf-8"))
    except FileNotFoundError as error:
        raise CardError(f"there is no card {str(path)!r}; zephyr judge-card writes one") from error
    except (OSError, ValidationError) as error:
        raise CardError(
            f"{path} is no card of this version; write it again with zephyr judge-card"
        ) from error


def hold_to(minimum: JudgeMinimum, judge: str, gold_digest: str | None) -> Card:
    """The card, if it is of this judge and good enough.

    Raises:
        CardError: it is missing, of another judge or gold file, too small, or below the minimum.
    """
    card = read_card(minimum.card)
    if card.judge != judge:
        raise CardError(
            f"{minimum.card} is of another judge ({card.judge}, this one is {judge}): a model, prompt or setting "
            "has changed since; write it again with zephyr judge-card"
        )
    if gold_digest is not None and card.gold.digest != gold_digest:
        raise CardError(
            f"{minimum.card} was measured on another {card.gold.name!r} than {str(minimum.gold)!r}"
        )
    decided, agreed = card.agreement.decided, card.agreement.kappa_decided
    if decided is None or decided.n < minimum.pairs:
        found = decided.n if decided else 0
        raise CardError(f"{minimum.card} has {found} pairs with a winner, pairs={minimum.pairs} are wanted")
    short = [
        f"{what} {'–' if got is None else got} is below {least}"
        for what, got, least in (
            ("accuracy", decided, minimum.accuracy),
            ("kappa", agreed, minimum.kappa),
        )
        if got is None or got.value < least
    ]
    if short:
        raise CardError(f"the judge is not good enough on {card.gold.name!r}: {'; '.join(short)}")
    return card
