"""Under which terms everything stands that a run's rows were made from."""

from flows.recipe import Recipe


def licences(recipe: Recipe) -> dict[str, str | None]:
    """Each source of prompts and each model that answered or judged -> its licence as stated; None: nobody said."""
    judging = [member.asks for member in recipe.jury.members if member.asks] if recipe.judge else []
    models = dict.fromkeys([sampler.model for sampler in recipe.samplers] + judging)
    return {f"prompts of {source.label}": source.license for source in recipe.prompts} | {
        f"answers and verdicts of {recipe.models[name].model}": recipe.models[name].license for name in models
    }
