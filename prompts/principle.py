"""System principles: who answers under which, drawn by prompt id so order and restarts change nothing."""

import re
from collections.abc import Mapping
from functools import cache
from math import isfinite
from typing import Any, NamedTuple

import yaml

from prompts.load import ROOT, PromptError, load_prompt
from records.ids import chance
from records.schema import Prompt


class Principle(NamedTuple):
    name: str
    text: str
    """The system prompt."""


def draw_principle(
    principle: str | Mapping[str, float] | None,
    prompt_id: str,
    seed: int,
    *who: object,
    source: str | None = None,
) -> Principle | None:
    """The principle one prompt is asked under, or None where there is none to draw.

    `principle` is one name, several with their odds, which need not sum to 1, or a table with odds for each `source`
    of prompts, as `ultrafeedback/readme`. Where a principle's file has several wordings, one of them is drawn too.
    `who` (a sampler's name) lets several models draw apart, as UltraFeedback's did; without it, equal seeds draw alike.
    """
    if principle is None:
        return None
    if isinstance(principle, str) and is_table(principle):
        principle = odds_of(principle, source)
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


def principle_texts(principle: str | Mapping[str, float]) -> dict[str, Any]:
    """Every text a draw can give, by name, and a table's odds: part of what is asked, so part of fingerprints."""
    if isinstance(principle, str) and is_table(principle):
        table = _table(principle)
        names = sorted({name for odds in table.values() for name in odds})
        return {name: wordings(name) for name in names} | {"odds": table}
    return {
        name: wordings(name) for name in ([principle] if isinstance(principle, str) else sorted(principle))
    }


def origin_of(prompt: Prompt) -> str:
    """Where a prompt comes from: as its row says in a column kept as `source`, else the source it was read from."""
    return str(prompt.meta.get("source", prompt.source))


@cache
def is_table(principle: str) -> bool:
    """Whether the name is that of a table: FILE/VARIANT of prompts/principles/FILE.yaml."""
    file, _, variant = principle.partition("/")
    return bool(variant) and (ROOT / "principles" / f"{file}.yaml").is_file()


def odds_of(table: str, source: str | None) -> dict[str, float]:
    """Principle -> probability for prompts of one source.

    Raises:
        PromptError: no such table, or the table has no such source.
    """
    known = _table(table)
    if source not in known:
        raise PromptError(
            f"principle {table!r} has no odds for prompts of the source {source!r}; it has {', '.join(known)}. A "
            "prompt's source is its row's, as prompts: meta: {source: COLUMN} keeps it"
        )
    return known[source]


def table_sources(table: str) -> list[str]:
    """The sources of prompts that a table has odds for."""
    return list(_table(table))


@cache
def _table(name: str) -> dict[str, dict[str, float]]:
    file, _, variant = name.partition("/")
    tables = yaml.safe_load((ROOT / "principles" / f"{file}.yaml").read_text(encoding="utf-8"))
    if variant not in tables:
        raise PromptError(f"principle {name!r}: {file}.yaml has no {variant!r}; it has {', '.join(tables)}")
    return tables[variant]


def _checked(odds: Mapping[str, float]) -> Mapping[str, float]:
    for name, weight in odds.items():
        wordings(name)  # a wrong name fails on the first prompt, not on the first that draws it
        if not (isfinite(weight) and weight > 0):
            raise PromptError(f"principle {name!r} has odds {weight!r}, wanted a number above 0")
    if not odds:
        raise PromptError("principle={} names nothing to draw; wanted a name, names with odds, or null")
    return odds
