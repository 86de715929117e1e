"""Prompts in, preference dataset out. Start at `build_preferences`, at the bottom.

Generating and judging have no barrier between them: a sampler's shard is judged as soon as it is answered, while other
shards and samplers are still being asked, and judge requests go first at every model.
"""

import asyncio
import time
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from prefect import flow, task
from prefect.cache_policies import NO_CACHE

from flows.artifacts import progress_artifact, publish_summary
from flows.dataset import build_dataset
from flows.facts import Facts
from flows.progress import display
from flows.recipe import Recipe
from flows.run import Run, completions_of, judgement_key, shards, store_prompts
from flows.stage import fill
from judges.base import Judge, Verdict
from judges.jury import Member
from pairs.splits import split_of
from prompts.principle import draw_principle
from prompts.sources import load_prompts
from records.ids import fingerprint, seed_of
from records.schema import Completion, Dropped, Judgement, Message, Prompt
from records.store import Receipt, Row, Stage
from serving.chat import Chat, Request
from serving.engine import Engine
from serving.errors import RequestFailed
from serving.models import open_models
from serving.settings import Adapter, Model, Sampler

GENERATE, JUDGE = 1, 0
"""Priorities at a model: open rows are finished before new ones are begun."""


Step = Callable[..., None]
"""Told of finished rows."""


class StageFailed(Exception):
    """More rows failed than the recipe allows. Everything that was answered is kept."""


# The store's receipts decide what is done: they are checked against the files, which a cached task result is not.
# A task run therefore always runs, and returns at once when its shard is sealed.
SHARD = {"cache_policy": NO_CACHE, "persist_result": False}


@task(name="generate-shard", task_run_name="generate-{sampler.name}-{index:05d}", **SHARD)
async def generate_shard(
    run: Run, sampler: Sampler, stage: Stage, index: int, prompts: list[Prompt], chat: Chat, step: Step
) -> Receipt:
    """One sampler's answers to one shard of prompts; row i belongs to prompt i."""
    keys = [prompt.id for prompt in prompts]
    if (receipt := stage.sealed(index, keys)) is not None:
        step(len(keys))
        return receipt
    by_id = {prompt.id: prompt for prompt in prompts}
    shard = stage.open(index, keys)
    step(shard.taken_over)

    async def answer(key: str) -> Row:
        return await generate(by_id[key], sampler, stage.fingerprint, run.recipe.seed, chat)

    return await fill(shard, answer, step)


async def generate(prompt: Prompt, sampler: Sampler, asked: str, seed: int, chat: Chat) -> Row:
    """One sampler's n answers to one prompt."""
    principle = draw_principle(sampler.principle, prompt.id, seed, asked)
    messages = with_principle(prompt, principle.text if principle else None)
    request = Request(
        messages=tuple(message.model_dump() for message in messages),
        temperature=sampler.temperature,
        top_p=sampler.top_p,
        max_tokens=sampler.max_tokens,
        n=sampler.n,
        seed=seed_of(sampler.seed, asked, prompt.id),
        stop=sampler.stop,
    )
    try:
        reply = await chat(request)
    except RequestFailed as why:
        return Row(prompt.id, [], _dropped(prompt.id, "completions", why))
    usages = _shares(reply.usage.model_dump(), len(reply.choices))
    return Row(
        prompt.id,
        [
            Completion(
                id=fingerprint(asked, prompt.id, sample),
                prompt_id=prompt.id,
                model=sampler.name,
                sample=sample,
                text=choice.text.strip(),
                finish_reason=choice.finish_reason,
                usage=usage,  # type: ignore[arg-type]
                principle=principle.name if principle else None,
                seed=request.seed,
                fingerprint=asked,
            ).model_dump(mode="json")
            for sample, (choice, usage) in enumerate(zip(reply.choices, usages, strict=True))
        ],
    )


def with_principle(prompt: Prompt, principle: str | None) -> tuple[Message, ...]:
    """The conversation a model is asked: a principle goes before the prompt's own system turn, in one turn."""
    if principle is None:
        return prompt.messages
    first, rest = prompt.messages[0], prompt.messages[1:]
    if first.role != "system":
        return (Message(role="system", content=principle), *prompt.messages)
    return (Message(role="system", content=f"{principle}\n\n{first.content}"), *rest)


@task(name="judge-shard", task_run_name="judge-{member.name}-{sampler}-{index:05d}", **SHARD)
async def judge_shard(
    member: Member,
    sampler: str,
    stage: Stage,
    index: int,
    prompts: list[Prompt],
    completions: list[list[Completion]],
    chat: Chat | None,
    step: Step,
) -> Receipt:
    """One judge's verdicts on one sampler's shard; a row for each completion, in order."""
    cases = {
        judgement_key(completion): (prompt, completion)
        for prompt, own in zip(prompts, completions, strict=True)
        for completion in own
    }
    keys = list(cases)
    if (receipt := stage.sealed(index, keys)) is not None:
        step(len(keys))
        return receipt
    shard = stage.open(index, keys)
    step(shard.taken_over)
    judge = member.build(chat)

    async def verdicts(key: str) -> Row:
        return await judge_one(key, *cases[key], judge, member.name, stage.fingerprint)

    return await fill(shard, verdicts, step)


async def judge_one(
    key: str, prompt: Prompt, completion: Completion, judge: Judge, name: str, asked: str
) -> Row:
    try:
        (verdicts,) = await judge(prompt, [completion])
    except RequestFailed as why:
        return Row(key, [], _dropped(completion.id, "judgements", why))
    return Row(key, [_judgement(v, key, completion, name, asked).model_dump(mode="json") for v in verdicts])


def _judgement(verdict: Verdict, key: str, completion: Completion, judge: str, asked: str) -> Judgement:
    return Judgement(
        id=fingerprint(asked, key, verdict.aspect),
        prompt_id=completion.prompt_id,
        completion_id=completion.id,
        judge=judge,
        fingerprint=asked,
        **{name: getattr(verdict, name) for name in verdict.__slots__},
    )


@dataclass
class Answers:
    """One sampler's part of a run: receipts in shard order."""

    sampler: Sampler
    stage: Stage
    receipts: dict[int, Receipt] = field(default_factory=dict)
    judged: dict[str, dict[int, Receipt]] = field(default_factory=dict)
    """Judge -> shard -> receipt."""
    judge_stages: dict[str, Stage] = field(default_factory=dict)


async def answer_and_judge(
    run: Run,
    samplers: tuple[Sampler, ...],
    prompts: list[Prompt],
    engine: Engine,
    *,
    judged: bool = True,
    identities: dict[str, dict[str, Any]] | None = None,
) -> list[Answers]:
    """Every sampler's answers to every prompt, and every judge's verdicts on them. Resumes what is there.

    Raises:
        StageFailed: more of a sampler's or judge's rows failed than `max_failed`.
    """
    recipe, members = run.recipe, run.recipe.jury.members if judged else ()
    gate = asyncio.Semaphore(recipe.shards_in_flight)
    results = []
    for sampler in samplers:
        stage = run.completions_stage(sampler, (identities or {}).get(sampler.name))
        own = Answers(sampler, stage)
        own.judge_stages = {m.name: run.judgements_stage(m, stage.fingerprint) for m in members}
        results.append(own)

    generating = {s.name: display().add(f"generate {s.name}", len(prompts)) for s in samplers}
    answers = len(prompts) * sum(sampler.n for sampler in samplers)
    judging = {m.name: display().add(f"judge {m.name}", answers) for m in members}

    async def one(own: Answers, index: int, chunk: list[Prompt]) -> None:
        async with gate:
            chat, step = engine.chat(own.sampler.model, GENERATE), generating[own.sampler.name]
            receipt = await generate_shard(run, own.sampler, own.stage, index, chunk, chat, step)
            own.receipts[index] = receipt
            completions = completions_of(own.stage, receipt, own.sampler.name)

            async def judge(member: Member) -> None:
                asks = engine.chat(member.model, JUDGE) if member.kind == "rating" else None
                stage, step = own.judge_stages[member.name], judging[member.name]
                own.judged.setdefault(member.name, {})[index] = await judge_shard(
                    member, own.sampler.name, stage, index, chunk, completions, asks, step
                )

            await _together(judge(member) for member in members)

    async with progress_artifact():
        await _together(
            one(own, index, chunk) for index, chunk in shards(prompts, recipe.shard_size) for own in results
        )
    for own in results:
        _check(f"sampler {own.sampler.name}", own.receipts.values(), recipe.max_failed)
        for name, receipts in own.judged.items():
            _check(f"judge {name} on {own.sampler.name}", receipts.values(), recipe.max_failed)
    return results


async def _together(coroutines: Any) -> None:
    """Run all; the first error cancels the others and is raised as itself."""
    tasks = [asyncio.ensure_future(c) for c in coroutines]
    try:
        await asyncio.gather(*tasks)
    finally:
        for each in tasks:
            each.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)


def _check(who: str, receipts: Any, max_failed: float) -> None:
    receipts = list(receipts)
    rows = sum(receipt.rows for receipt in receipts)
    failed = sum((Counter(receipt.dropped) for receipt in receipts), Counter[str]())
    if rows and sum(failed.values()) > max_failed * rows:
        reasons = ", ".join(f"{count} {reason}" for reason, count in sorted(failed.items()))
        raise StageFailed(
            f"{who}: {sum(failed.values())} of {rows} rows failed ({reasons}), max_failed={max_failed} allows "
            f"{int(max_failed * rows)}; the answers are kept, run the same command to ask only the failed ones again"
        )


def _dropped(key: str, stage: str, why: RequestFailed) -> dict[str, str]:
    return Dropped(id=key, stage=stage, reason=why.reason, detail=why.detail).model_dump()  # type: ignore[arg-type]


def _shares(usage: dict[str, int], n: int) -> list[dict[str, int]]:
    """A request's usage split over its n answers, so that sums over rows stay true."""
    return [{name: value // n + (i < value % n) for name, value in usage.items()} for i in range(n)]


def gather_prompts(run: Run) -> tuple[list[Prompt], list[Dropped]]:
    """The recipe's prompts, each once and with its split, sealed in the run's folder."""
    found: dict[str, Prompt] = {}
    dropped: list[Dropped] = []
    for source in run.recipe.prompts:
        prompts, lost = load_prompts(source)
        dropped += lost
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


def models_of(recipe: Recipe, *, judged: bool = True) -> dict[str, Model]:
    """The models that samplers, and judges, of a recipe ask."""
    used = {sampler.model for sampler in recipe.samplers}
    if judged:
        used |= {member.model for member in recipe.jury.members if member.kind == "rating"}
    used |= {model.on for name in used if isinstance(model := recipe.models[name], Adapter)}
    return {name: model for name, model in recipe.models.items() if name in used}


async def collect(
    run: Run, facts: Facts, *, judged: bool = True
) -> tuple[list[Prompt], list[Dropped], list[Answers]]:
    """Prompts, answers and, if asked for, judgements of a run, with the stages' counts in the summary."""
    prompts, dropped = gather_prompts(run)
    began = time.monotonic()
    async with open_models(models_of(run.recipe, judged=judged), run.servers, display().say) as engine:
        answers = await answer_and_judge(run, run.recipe.samplers, prompts, engine, judged=judged)
    seconds, asked = time.monotonic() - began, engine.usage.requests
    completions = [receipt for own in answers for receipt in own.receipts.values()]
    judgements = [r for own in answers for receipts in own.judged.values() for r in receipts.values()]
    facts.put("prompts", {"rows": len(prompts), "dropped": dict(Counter(drop.reason for drop in dropped))})
    facts.receipts("generate", completions)
    if judged:
        facts.receipts("judge", judgements)
    facts.spent("generate and judge" if judged else "generate", seconds, asked)
    return prompts, dropped, answers


@flow(name="generate-responses", flow_run_name="generate-{recipe.name}")
async def generate_responses(
    recipe: Recipe, out: Path | None = None, store: str | None = None
) -> dict[str, Any]:
    """Every sampler's answers to every prompt. Prompt -> Completion."""
    with Run.opened(recipe, out, store) as run:
        facts = Facts.of(run)
        await collect(run, facts, judged=False)
        return facts.content


@flow(name="judge-responses", flow_run_name="judge-{recipe.name}")
async def judge_responses(
    recipe: Recipe, out: Path | None = None, store: str | None = None
) -> dict[str, Any]:
    """Every judge's verdict on every completion; asks for completions not there yet. Completion -> Judgement."""
    with Run.opened(recipe, out, store) as run:
        facts = Facts.of(run)
        await collect(run, facts)
        return facts.content


@flow(name="reject-sample", flow_run_name="reject-{recipe.name}")
async def reject_sampling(
    recipe: Recipe, out: Path | None = None, store: str | None = None
) -> dict[str, Any]:
    """The judge's best answer of each prompt, as rows for SFT. Prompt -> Completion -> Judgement -> SFT row."""
    with Run.opened(recipe, out, store) as run:
        facts = Facts.of(run)
        prompts, dropped, answers = await collect(run, facts)
        build_dataset(run, prompts, dropped, answers, facts, pairs_too=False)
        await publish_summary(facts)
        return facts.content


@flow(name="build-preferences", flow_run_name="preferences-{recipe.name}")
async def build_preferences(
    recipe: Recipe, out: Path | None = None, store: str | None = None
) -> dict[str, Any]:
    """Build one preference dataset: Prompt -> Completion -> Judgement -> Pair."""
    with Run.opened(recipe, out, store) as run:
        facts = Facts.of(run)
        prompts, dropped, answers = await collect(run, facts)
        build_dataset(run, prompts, dropped, answers, facts)
        await publish_summary(facts)
        return facts.content
