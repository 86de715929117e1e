"""All candidates of a recipe's prompts: answered and judged, and where more are worth it, answered and judged again.

Each round asks every sampler for its n answers once more, for the prompts that go on; `pairs.gain` says which. What
a round decides depends on the rounds before it alone, so a run that was stopped, or a recipe that allows more, goes
the same way again without asking and goes on from there.
"""

import time
from collections import Counter
from collections.abc import Collection
from dataclasses import asdict

from flows.answers import Answers
from flows.artifacts import progress_artifact
from flows.collect import answer_and_judge, judge_receipts
from flows.dataset import Judged, judged_prompts
from flows.facts import Facts
from flows.gpus import hold
from flows.inputs import Prompts, gather_prompts, models_of
from flows.load import figures, metered
from flows.processes import ask_in_processes
from flows.progress import display
from flows.ranges import Elsewhere, ask_elsewhere
from flows.readings import Readings
from flows.recipe import RecipeError
from flows.run import Run
from pairs.best_of_n import distinct, may_win
from pairs.candidates import score_of
from pairs.gain import expected_gain, pool_of
from records.schema import Dropped
from serving.engine import Engine
from serving.models import open_models
from serving.purse import Purse


async def collect(
    run: Run,
    facts: Facts,
    *,
    judged: bool = True,
    again: Collection[str] = (),
    elsewhere: Elsewhere | None = None,
) -> tuple[Prompts, list[Dropped], list[Answers]]:
    """Prompts, answers and, if asked for, judgements of a run, with the stages' counts in the summary.

    `again`: statuses whose judgements are asked anew. `elsewhere`: child runs ask, not this process.
    """
    if not run.recipe.samplers:
        raise RecipeError(f"recipe {run.recipe.name!r} has no samplers: it trains on data that exist already")
    prompts, dropped = gather_prompts(run)
    began = time.monotonic()
    stage, purse = "generate and judge" if judged else "generate", run.purse()
    if elsewhere is not None:
        async with progress_artifact():
            answers = await ask_elsewhere(run, prompts, elsewhere, judged=judged, again=again)
        asked = 0
    else:
        answers, asked = await _ask_here(run, prompts, stage, purse, judged=judged, again=again)
    seconds = time.monotonic() - began
    completions = [receipt for own in answers for receipt in own.receipts.values()]
    judgements = [r for member in run.recipe.jury.members for r in judge_receipts(answers, member.name)]
    facts.put("prompts", {"rows": len(prompts), "dropped": dict(Counter(drop.reason for drop in dropped))})
    facts.receipts("generate", completions)
    if judged:
        facts.receipts("judge", judgements)
        if known := Readings(run.folder, run.recipe.models).known:
            facts.put("dialects", known)
    if asked:
        facts.put("endpoints", figures(run.folder))
    facts.spent(stage, seconds, asked)
    if purse is not None:
        facts.put("budget", asdict(purse.spent))
    return prompts, dropped, answers


async def _ask_here(
    run: Run, prompts: Prompts, stage: str, purse: Purse | None, *, judged: bool, again: Collection[str]
) -> tuple[list[Answers], int]:
    """Everything that is missing, asked by this process and those it starts; and how many requests that took."""
    models, machine = models_of(run.recipe, judged=judged), run.recipe.machine
    others = 0
    if run.recipe.processes > 1:
        others = await ask_in_processes(run, judged=judged, again=again)
    async with (
        open_models(models, run.servers, display().say, machine, purse, hold=hold) as engine,
        metered(engine, run.folder, stage),
    ):
        answers = await in_rounds(run, prompts, engine, judged=judged, again=again)
    return answers, engine.usage.requests + others


async def in_rounds(
    run: Run, prompts: Prompts, engine: Engine, *, judged: bool = True, again: Collection[str] = ()
) -> list[Answers]:
    """Answers and judgements, with as many rounds for each prompt as the recipe's `best_of_n` finds worth it."""
    recipe = run.recipe
    answers = await answer_and_judge(run, recipe.samplers, prompts, engine, judged=judged, again=again)
    rounds: dict[str, int] = {}
    for number in range(2, recipe.rounds_at_most + 1) if judged else ():
        going = going_on(run, judged_prompts(run, prompts, answers))
        if not going:
            break
        display().say(f"round {number}: {len(going)} of {len(prompts)} prompts get more candidates")
        rounds = rounds | dict.fromkeys(going, number)
        answers = await answer_and_judge(
            run, recipe.samplers, prompts, engine, again=again, rounds=rounds, so_far=answers
        )
    return answers


def going_on(run: Run, cases: list[Judged]) -> list[str]:
    """Ids of the prompts for which a further round is worth it.

    A prompt that has stopped stays so: it has fewer candidates than those that went on.
    """
    recipe, settings = run.recipe, run.recipe.best_of_n
    most = max((case.rounds for case in cases), default=1)
    pools = [[c for c in case.candidates if may_win(c, recipe.pairs)] for case in cases]
    scores = [[score_of(c) for c in own] for own in pools]
    if settings.stop_gain is None:
        return [case.prompt.id for case in cases if case.rounds == most]
    pool, top = pool_of(scores), 1.0 if recipe.jury.standardise == "none" else None
    more = recipe.answers_per_prompt
    going: list[str] = []
    for case, candidates, own in zip(cases, pools, scores, strict=True):
        if case.rounds < most:
            continue
        few = len(distinct(candidates)) < settings.min_completions
        # of further answers, too, some will be cut off or without a score
        usable = more * len(own) / max(1, len(case.candidates))
        if few or expected_gain(own, usable, pool, top) >= settings.stop_gain:
            going.append(case.prompt.id)
    return going
