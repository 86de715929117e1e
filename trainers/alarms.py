"""What in the figures of a finished, or running, training says that it went wrong although the loss fell."""

import math
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from trainers.settings import DPOSettings, Training

DROP = -1.0
"""Nats per token by which chosen answers may become less likely than under the reference. Some of it is usual: the
handbook's Zephyr ends at about -0.35. Our choice."""
LEARNED = 0.95
"""Held-out accuracy within an epoch above which the pairs give themselves away: a leak, or length, or layout."""
BY_LENGTH = 0.15
"""Accuracy that may be lost where length says nothing. Our choice."""
ENOUGH = 20
"""Pairs before a share says anything."""
STUCK = 1e-3
"""Nats around ln 2 that a loss which does not move stays within."""


def live(metrics: Mapping[str, float | None]) -> str | None:
    """What must be said while training runs; from one line of the log."""
    change = metrics.get("logps/chosen_change")
    if change is not None and change < DROP:
        return (
            f"chosen_drop: the chosen answers' log-probability fell by {-change:.2f} nats a token below the "
            f"reference's; lower learning_rate, raise beta, or add a loss: {{sigmoid: 1, sft: 0.2}}"
        )
    return None


def alarms(
    settings: Training,
    history: Sequence[Mapping[str, Any]],
    after: Mapping[str, float],
    counts: Mapping[str, int],
) -> list[str]:
    """Each as `name: what was seen; what to do`. `history`: lines of progress. `after`: held-out figures, with `counts`
    the pairs behind each."""
    return list(_alarms(settings, history, after, counts))


def _alarms(
    settings: Training,
    history: Sequence[Mapping[str, Any]],
    after: Mapping[str, float],
    counts: Mapping[str, int],
) -> Iterator[str]:
    if not isinstance(settings, DPOSettings) or not history:
        return
    last = [line["metrics"] for line in history[-3:]]
    falls = [m["logps/chosen_change"] for m in last if m.get("logps/chosen_change") is not None]
    if falls and (said := live({"logps/chosen_change": sum(falls) / len(falls)})):
        yield said
    losses = [line["loss"] for line in history if line["loss"] is not None]
    moving = losses[len(losses) // 10 :]
    if set(settings.losses) == {"sigmoid"} and len(moving) >= 5:
        unit = settings.losses["sigmoid"]
        if all(abs(loss / unit - math.log(2)) < STUCK for loss in moving):
            yield "loss_stuck: the loss stayed at ln 2; raise learning_rate, and see that adapters are trained"
    accuracy = after.get("rewards/accuracies")
    enough = counts.get("lengths/chosen", 0) >= ENOUGH
    epochs = settings.epochs if settings.epochs is not None else math.inf
    if accuracy is not None and enough and epochs <= 1 and accuracy > LEARNED:
        yield (
            f"too_easy: {accuracy:.0%} of held-out pairs are right within an epoch; look for a leak, or for "
            "what else tells chosen from rejected, with zephyr audit"
        )
    matched = after.get("rewards/accuracies_length_matched")
    if (
        accuracy is not None
        and matched is not None
        and counts.get("rewards/accuracies_length_matched", 0) >= ENOUGH
        and accuracy - matched > BY_LENGTH
    ):
        yield (
            f"by_length: {accuracy:.0%} of held-out pairs are right, but {matched:.0%} of those whose answers are "
            "about as long; set pairs.length_control"
        )


def by_model(after: Mapping[str, float], counts: Mapping[str, int]) -> dict[str, dict[str, dict[str, float]]]:
    """Model -> `chosen` and `rejected` -> held-out `pairs` where it wrote that answer, and their `accuracy`."""
    found: dict[str, dict[str, dict[str, float]]] = {}
    for name, value in after.items():
        kind, _, model = name.partition("/")
        if kind in ("accuracy_chosen", "accuracy_rejected") and name in counts:
            side = kind.removeprefix("accuracy_")
            found.setdefault(model, {})[side] = {"pairs": counts[name], "accuracy": value}
    return dict(sorted(found.items()))
