"""A verdict of one token: what is asked for, and the shares of the labels in what came back.

Shares come from the log-probabilities of the first token, or, for endpoints without them, from several answers.
"""

import math
import re
from collections.abc import Sequence
from typing import NamedTuple

from judges.base import Unread
from prompts.load import CONTROL
from serving.chat import Choice, Reply, Request

SLACK = 0.01
"""Rounding: probabilities sum to this much more than 1, at most."""


class Shares(NamedTuple):
    """Label -> probability, summing to 1, and what the model gave to anything else before normalising."""

    shares: dict[str, float]
    off_scale: float | None
    """None: no probabilities came, one label was written."""


def ask_label(
    messages: tuple[dict[str, str], ...],
    labels: Sequence[str],
    *,
    samples: int,
    prefix: str,
    top_logprobs: int,
    constrained: bool = False,
) -> Request:
    """One token with its alternatives, or `samples` answers that are labels and nothing else."""
    if samples:
        return Request(
            messages, 1.0, top_p=1.0, max_tokens=4, n=samples, prefix=prefix, choices=tuple(labels)
        )
    return Request(
        messages,
        0.0,
        top_p=1.0,
        max_tokens=1,
        prefix=prefix,
        choices=tuple(labels) if constrained else (),
        labels=tuple(labels),
        top_logprobs=top_logprobs,
    )


def read_label(reply: Reply, labels: Sequence[str], *, samples: int, min_mass: float) -> Shares:
    """The shares in the reply to `ask_label`.

    Raises:
        Unread: refused, no log-probabilities, or too little of them on the labels.
    """
    if samples or len(reply.choices) > 1:  # drawn instead, by an endpoint without log-probabilities
        return sample_shares(reply, labels)
    choice = next(iter(reply.choices))
    return token_shares(choice, labels, min_mass)


def token_shares(choice: Choice, labels: Sequence[str], min_mass: float) -> Shares:
    """The first token's distribution. Spellings of a label (`4`, ` 4`) are added up."""
    if choice.refusal or choice.finish_reason == "content_filter":
        raise Unread(choice.refusal or "content filter", "refused")
    if not choice.tokens or not choice.tokens[0].alternatives:
        if choice.finish_reason == "length" and not choice.text.strip():
            raise Unread(
                "cut off before the first token; a model that thinks needs more than one", "truncated"
            )
        raise Unread(
            "the endpoint returned no log-probabilities; set `samples` on this judge, or dialect: auto on the model"
        )
    alternatives = choice.tokens[0].alternatives
    weights: dict[str, float] = dict.fromkeys(labels, 0.0)
    for token, logprob in alternatives.items():
        if (label := token.strip()) in weights:
            weights[label] += math.exp(min(logprob, 1.0))
    return normal(weights, min_mass)


def sample_shares(reply: Reply, labels: Sequence[str]) -> Shares:
    """The shares of several answers. Each must be one label and nothing else but what is put around it."""
    weights: dict[str, float] = dict.fromkeys(labels, 0.0)
    refused = [
        choice for choice in reply.choices if choice.refusal or choice.finish_reason == "content_filter"
    ]
    if len(refused) * 2 > len(reply.choices):
        raise Unread(f"{len(refused)} of {len(reply.choices)} refused", "refused")
    for choice in reply.choices:
        if choice not in refused and (label := _bare(choice.text)) in weights:
            weights[label] += 1 / len(reply.choices)
    if not any(weights.values()) and all(choice.finish_reason == "length" for choice in reply.choices):
        raise Unread("all answers were cut off before a label", "truncated")
    return normal(weights, min_mass=0.5)


def _bare(text: str) -> str:
    """A label without quotes, brackets, emphasis, a closing stop or a chat marker."""
    return re.sub(CONTROL, "", text).strip().strip("*_`\"'“”‘’()[]").rstrip(".").strip()


def spoken(reply: Reply) -> str:
    """What the model said, for people."""
    return " | ".join(choice.text.strip() for choice in reply.choices)


def normal(weights: dict[str, float], min_mass: float) -> Shares:
    """Shares of labels' probabilities.

    Raises:
        Unread: they have less than `min_mass` together, or more than there is.
    """
    mass = sum(weights.values())
    if mass > 1 + SLACK:
        raise Unread("the endpoint gave the labels a probability of more than 1 together")
    off_scale = max(0.0, 1.0 - mass)
    if not mass or mass < min_mass:
        names = list(weights)
        said = f"the labels {names[0]} to {names[-1]} have {mass:.2f} of the probability together"
        raise Unread(f"{said}, {min_mass} is wanted", "off_scale", off_scale)
    return Shares({label: weight / mass for label, weight in weights.items()}, off_scale)
