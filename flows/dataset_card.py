"""What a dataset's card says of the run that made it. Addresses, keys and folders of this machine are not in it."""

from collections.abc import Sequence
from typing import Any

from flows.recipe import Recipe
from flows.shareable import plain, shareable
from judges.minimum import JudgeMinimum, read_card
from pairs.card import Card, CardModel, FunnelStep
from pairs.cleaning import cleaned
from pairs.preflight import Preflight
from records.schema import Dropped
from serving.settings import Imported

UNSTATED = "licence not stated"


def card_of(
    recipe: Recipe,
    steps: Sequence[FunnelStep],
    found: Preflight,
    versions: dict[str, str],
    dropped: Sequence[Dropped],
) -> Card:
    """The card of a dataset that was made so."""
    stated = {source.license for source in recipe.prompts}
    stated |= {recipe.models[sampler.model].license for sampler in recipe.samplers}
    one = next(iter(stated)) if len(stated) == 1 else None
    imported = next((m for m in recipe.models.values() if isinstance(m, Imported)), None)
    first = f"zephyr import {imported.model} --as {recipe.name}" if imported else ""
    last = f"zephyr pairs {'runs/' + recipe.name + '/import.yaml' if imported else 'recipe.yaml'}"
    return Card(
        name=recipe.name,
        recipe=f"{recipe.name}, fingerprint {recipe.fingerprint}",
        description=recipe.description,
        license=one or "other",
        sources={
            source.label: ", ".join(filter(None, [source.license or UNSTATED, source.revision]))
            for source in recipe.prompts
        },
        samplers=tuple(
            CardModel(
                name=sampler.name,
                model=recipe.models[sampler.model].model,
                revision=recipe.models[sampler.model].revision,
                license=recipe.models[sampler.model].license or UNSTATED,
                settings={}
                if isinstance(recipe.models[sampler.model], Imported)
                else sampler.model_dump(mode="json", exclude={"name", "model"}, exclude_none=True),
            )
            for sampler in recipe.samplers
        ),
        judges=tuple(
            CardModel(
                name=member.name,
                model=recipe.models[member.asks].model if member.asks else "none",
                license=(recipe.models[member.asks].license or UNSTATED) if member.asks else "",
                settings=member.model_dump(mode="json", exclude={"name", "model"}, exclude_none=True),
            )
            for member in recipe.jury.members
        ),
        judge_card=shown_by(recipe.judge_minimum) if recipe.judge_minimum else {},
        pairs=recipe.pairs,
        cleaning=cleaned(recipe.cleaning, dropped),
        funnel=tuple(steps),
        preflight=found,
        command="\n$ ".join(filter(None, [first, last])),
        recipe_yaml=shareable(recipe),
        versions=versions,
    )


def lineage(recipe: Recipe) -> dict[str, Any]:
    """Whose prompts and answers the rows are, and who judged them; for the model's card."""
    asked = {sampler.model: recipe.models[sampler.model] for sampler in recipe.samplers}
    judges = {m.name: recipe.models[m.asks].model if m.asks else "no model" for m in recipe.jury.members}
    found = {
        "prompts": [f"{source.label}, {source.license or UNSTATED}" for source in recipe.prompts],
        "answers": [f"{model.model}, {model.license or UNSTATED}" for model in asked.values()],
        "judges": [f"{name}: {model}" for name, model in judges.items()],
        "pairs": recipe.pairs.policy,
    }
    return plain(found)


def shown_by(minimum: JudgeMinimum) -> dict[str, str]:
    """What the judge showed on labels of people, by the card that the recipe asks for."""
    card = read_card(minimum.card)
    figures = {
        "right winner, where people have one": card.agreement.decided,
        "kappa on those": card.agreement.kappa_decided,
    }
    return {"labels of people": card.gold.name} | {
        name: str(value) for name, value in figures.items() if value
    }
