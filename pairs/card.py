"""The dataset's README: YAML the Hub and `datasets` read, and a text written from the run."""

from collections.abc import Mapping
from itertools import pairwise
from pathlib import Path
from typing import Any

from pydantic import Field

from pairs.policies import PairSettings
from pairs.preflight import Preflight
from records.base import Strict

TEMPLATE = Path(__file__).with_name("card.md.jinja")


class CardModel(Strict):
    """A sampler or a judge model, as the card names it."""

    name: str
    model: str
    revision: str | None = None
    license: str = ""
    settings: dict[str, Any] = Field(default_factory=dict)
    """Sampling, or what the judge was asked: kind, aspects, scale. Never an address."""


class FunnelStep(Strict):
    """One stage: what came in, what went on."""

    stage: str
    rows_in: int
    rows_out: int
    dropped: dict[str, int] = Field(default_factory=dict)
    """By reason."""


class Card(Strict):
    """What the card says that the rows do not."""

    name: str
    """Of the run or the dataset: the card's title."""
    recipe: str
    """File name or name of the recipe."""
    description: str = ""
    license: str = "other"
    """An identifier of the Hub's list, `other` where several apply."""
    language: tuple[str, ...] = ("en",)
    tags: tuple[str, ...] = ("preference", "dpo", "ai-feedback", "synthetic")
    sources: dict[str, str] = Field(default_factory=dict)
    """Where the prompts come from -> licence or note."""
    samplers: tuple[CardModel, ...] = ()
    judges: tuple[CardModel, ...] = ()
    judge_card: dict[str, str] = Field(default_factory=dict)
    """What the judge showed on labels of people, where the recipe asks for a card."""
    pairs: PairSettings | None = None
    cleaning: dict[str, int] = Field(default_factory=dict)
    """What prompts were searched for before anything was asked -> how many were left out for it."""
    funnel: tuple[FunnelStep, ...] = ()
    preflight: Preflight | None = None
    command: str = ""
    """Makes the dataset again, from `recipe_yaml`."""
    recipe_yaml: str = ""
    """Without addresses and keys."""
    versions: dict[str, str] = Field(default_factory=dict)


def render_card(
    card: Card, digest: str, rows: Mapping[str, int], files: Mapping[str, Mapping[str, str]]
) -> str:
    """README.md of a dataset folder. files: config -> split -> path in the folder."""
    import yaml
    from jinja2 import Environment, StrictUndefined

    header = {
        "pretty_name": card.name,
        "license": card.license,
        "language": list(card.language),
        "task_categories": ["text-generation"],
        "tags": list(card.tags),
        "size_categories": [size_category(sum(rows.values()))],
        "configs": [
            {"config_name": config}
            | ({"default": True} if config == "default" else {})
            | {"data_files": [{"split": split, "path": path} for split, path in splits.items()]}
            for config, splits in files.items()
        ],
    }
    environment = Environment(
        undefined=StrictUndefined, trim_blocks=True, lstrip_blocks=True, autoescape=False
    )
    environment.filters["cell"] = cell
    template = environment.from_string(TEMPLATE.read_text(encoding="utf-8"))
    text = template.render(card=card, digest=digest, rows=rows, configs=list(files))
    front = yaml.safe_dump(header, sort_keys=False, allow_unicode=True)
    return f"---\n{front}---\n\n{text.strip()}\n"


def cell(value: Any) -> str:
    """`value` as text that stays inside one cell of a Markdown table."""
    if value is None:
        return "–"
    if isinstance(value, Mapping):
        return ", ".join(f"{key} {cell(inner)}" for key, inner in value.items()) or "–"
    if isinstance(value, float):
        value = f"{value:g}"
    return " ".join(str(value).split()).replace("|", "\\|").replace("<", "&lt;")


def size_category(rows: int) -> str:
    """The Hub's name for this many rows."""
    edges = {
        "1K": 1_000,
        "10K": 10_000,
        "100K": 100_000,
        "1M": 1_000_000,
        "10M": 10_000_000,
        "100M": 100_000_000,
    }
    if rows < 1_000:
        return "n<1K"
    return next((f"{low}<n<{high}" for low, high in pairwise(edges) if rows < edges[high]), "n>100M")
