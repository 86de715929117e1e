"""System principles: who answers under which, drawn by prompt id so order and restarts change nothing."""

import re
from collections.abc import Mapping
from functools import cache
from math import isfinite
from typing import Literal, NamedTuple

import yaml

from prompts.load import ROOT, PromptError, load_prompt
from records.ids import chance


class Principle(NamedTuple):
    name: str
    text: str
    """The system prompt."""


def draw_principle(
    principle: str | Mapping[str, float] | None, prompt_id: str, seed: int, *who: object
) -> Principle | None:
    """The principle one prompt is asked under, or None where there is none to draw.

    `principle` is one name or several with their odds, which need not sum to 1. Where a principle's file has
    several wordings, one of them is drawn too. `who` (a sampler's name) lets several models draw apart, as
    UltraFeedback's did; without it, equal seeds draw alike.
    """
    if principle is None:
        return None
    luck = chance(seed, "principle", *who, prompt_id)
    if isinstance(principle, str):
        name = principle
    else:
        names, odds = zip(*sorted(_checked(principle).items()), strict=True)
        name = luck.choices(names, odds)[0]
    return Principle(name, luck.choice(wordings(name)))


@cache
def wordings(name: str) -> tuple[str, ...]:
    """Every wording of a principle, in the file's order. A file separates them with a line `---`.

    `name` is a file of prompts/principles, or a path that ends in `.md`.
    """
    template = load_prompt(name if name.endswith(".md") else f"principles/{name}")
    if template.slots:
        raise PromptError(f"principle {name!r} has slots {list(template.slots)}; a principle is fixed text")
    texts = tuple(text.strip() for text in re.split(r"^---[ \t]*$", template.text, flags=re.MULTILINE))
    if not all(texts):
        raise PromptError(f"principle {name!r} has an empty wording before or after one of its lines ---")
    return texts


def principle_texts(principle: str | Mapping[str, float]) -> dict[str, tuple[str, ...]]:
    """Every text a draw can give, by name: part of what is asked, so part of fingerprints."""
    return {
        name: wordings(name) for name in ([principle] if isinstance(principle, str) else sorted(principle))
    }


def ultrafeedback_odds(source: str, variant: Literal["readme", "code"] = "readme") -> dict[str, float]:
    """Principle -> probability for one of UltraFeedback's sources, as its README or its code has it."""
    table = yaml.safe_load((ROOT / "principles" / "ultrafeedback.yaml").read_text(encoding="utf-8"))[variant]
    if source not in table:
        raise PromptError(f"UltraFeedback has no source {source!r}; its sources are {', '.join(table)}")
    return table[source]


def _checked(odds: Mapping[str, float]) -> Mapping[str, float]:
    for name, weight in odds.items():
        wordings(name)  # a wrong name fails on the first prompt, not on the first that draws it
        if not (isfinite(weight) and weight > 0):
            raise PromptError(f"principle {name!r} has odds {weight!r}, wanted a number above 0")
    if not odds:
        raise PromptError("principle={} names nothing to draw; wanted a name, names with odds, or null")
    return odds
