"""What a recipe starts from: its prompts, each once and with its split, and the models it asks. No Prefect here."""

from flows.recipe import Recipe
from flows.run import Run, shards
from judges.rules import RuleError, Rules, read_constraints
from pairs.splits import split_of
from prompts.load import PromptError
from prompts.sources import load_prompts
from records.arrow import plain_prompt
from records.schema import Dropped, Prompt
from records.store import Row, Stage
from serving.settings import Adapter, Model


def gather_prompts(run: Run) -> tuple[list[Prompt], list[Dropped]]:
    """The recipe's prompts, each once and with its split, sealed in the run's folder.

    Raises:
        PromptError: a source cannot be read, or a prompt's constraint cannot be checked; nothing was asked.
    """
    found: dict[str, Prompt] = {}
    dropped: list[Dropped] = []
    for source in run.recipe.prompts:
        prompts, lost = load_prompts(source)
        dropped += lost
        check_constraints(run.recipe, source.label, prompts)
        for prompt in prompts:
            if prompt.id in found:
                dropped.append(
                    Dropped(id=prompt.id, stage="prompts", reason="duplicate", detail=source.label)
                )
                continue
            split = split_of(prompt, run.recipe.splits)
            found[prompt.id] = prompt.model_copy(update={"meta": prompt.meta | {"split": split}})
    prompts = list(found.values())
    store_prompts(run.prompts_stage(), prompts, run.recipe.shard_size)
    return prompts, dropped


def check_constraints(recipe: Recipe, source: str, prompts: list[Prompt]) -> None:
    """Whether the judge `rules`, where there is one, can read all that it will check.

    Raises:
        PromptError: it cannot; names the source, the prompt and the constraint.
    """
    for rules in (member for member in recipe.jury.members if isinstance(member, Rules)):
        for prompt in prompts:
            try:
                read_constraints(prompt, rules.reference)
            except RuleError as error:
                raise PromptError(f"{source}: {error}") from error


def models_of(recipe: Recipe, *, judged: bool = True) -> dict[str, Model]:
    """The models that samplers, and judges, of a recipe ask."""
    used = {sampler.model for sampler in recipe.samplers}
    if judged:
        used |= {member.asks for member in recipe.jury.members if member.asks}
    used |= {model.served_by for name in used if isinstance(model := recipe.models[name], Adapter)}
    return {name: model for name, model in recipe.models.items() if name in used}


def store_prompts(stage: Stage, prompts: list[Prompt], size: int) -> None:
    """Seal the prompts before anything is asked, so that a run can be read without its source."""
    for index, chunk in shards(prompts, size):
        keys = [prompt.id for prompt in chunk]
        if stage.sealed(index, keys) is not None:
            continue
        shard = stage.open(index, keys)
        missing = set(shard.missing)
        for prompt in chunk:
            if prompt.id in missing:
                shard.put(Row(prompt.id, [plain_prompt(prompt)]))
        shard.seal()
