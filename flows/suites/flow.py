"""Suites -> answers of every model -> judgements -> figures before and after training: start at `benchmark`, below.

    <run>/benchmark/<suite>/<model>.jsonl   every answer with its judgement
                   /harness/                what lm-evaluation-harness wrote

Questions, baselines and references are read before anything is asked. Models are served one after the other and the
judges last, so one GPU or one laptop is enough.
"""

import json
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from functools import partial
from pathlib import Path
from typing import Any

from flows.artifacts import publish_summary
from flows.conduct import GENERATE
from flows.evaluate import Contender, contenders
from flows.facts import Facts
from flows.failures import check_budget
from flows.flow import Given, flow
from flows.gpus import hold
from flows.load import figures as load_figures
from flows.load import metered
from flows.progress import display
from flows.recipe import RecipeError
from flows.report import draw
from flows.run import Run
from flows.stage import together
from flows.suites import compared, harness, ifeval, mt_bench
from flows.suites.asking import Judging, Sitter, Stages
from flows.suites.read import Exam, read
from flows.suites.result import Answered, Result
from flows.suites.settings import AlpacaEval, ArenaHard, Harness, IFEval, MTBench
from flows.suites.templates import check_template
from records.store import Receipt
from serving.chat import Chat, Reply, Request
from serving.engine import Engine
from serving.models import Once, open_models
from serving.placement import GENERATE as ANSWER
from serving.placement import JUDGE, Part
from serving.settings import Adapter, Model


async def sit(exam: Exam, system: str | None, who: Sitter) -> None:
    """One model's answers to one suite."""
    suite, name = exam.suite, exam.name
    if isinstance(suite, MTBench):
        exam.sheets[who.name] = await mt_bench.sit(name, suite, exam.questions, system, who)
    elif isinstance(suite, IFEval):
        exam.sheets[who.name] = await ifeval.sit(name, suite, exam.prompts, system, who)
    elif isinstance(suite, AlpacaEval | ArenaHard):
        exam.sheets[who.name] = await compared.sit(name, suite, exam.questions, system, who)


async def judge(exam: Exam, judging: Judging) -> None:
    """Every model's answers in one suite, judged; those that are not there stay as they are."""
    suite = exam.suite
    cases = []
    for answered in exam.sheets.values():
        if isinstance(suite, MTBench):
            cases += mt_bench.to_judge(suite, answered)
        elif isinstance(suite, AlpacaEval | ArenaHard):
            cases += compared.to_judge(suite, answered, exam.baseline)
    if not cases:
        return
    judged = {
        id(case.answer): one for case, one in zip(cases, await judging.judged(exam.name, cases), strict=True)
    }
    exam.sheets = {
        model: [judged.get(id(one), one) for one in answered] for model, answered in exam.sheets.items()
    }


def result(exam: Exam) -> Result:
    suite = exam.suite
    if isinstance(suite, MTBench):
        return mt_bench.result(exam.questions, exam.sheets)
    if isinstance(suite, IFEval):
        return ifeval.result(exam.sheets)
    if isinstance(suite, Harness):
        return harness.result(exam.scores)
    return compared.result(suite, exam.questions, exam.sheets, exam.baseline, exam.places, exam.calibration)


def sitters_of(run: Run) -> list[Contender]:
    """The base, what was trained from it, and the further models; the first is what the others are compared with."""
    assert run.recipe.benchmark is not None
    base = run.recipe.benchmark.base
    found = contenders(run, base) if base else []
    for name in run.recipe.benchmark.models:
        if name in {one.name for one in found}:
            raise RecipeError(
                f"benchmark.models: {name!r} is what the base or a trained stage is called; rename it"
            )
        model = run.recipe.models[name]
        found.append(Contender(name, model, model.identity))
    return found


@asynccontextmanager
async def opened(run: Run, name: str, model: Model, part: Part, again: bool) -> AsyncIterator[Engine]:
    """One model, with the server of its base where it is an adapter, alone on the GPUs. `again`: not the first."""
    base = {model.served_by: run.recipe.models[model.served_by]} if isinstance(model, Adapter) else {}
    turn = [next(iter(base), name)]
    async with (
        open_models(
            {**base, name: model}, run.servers, display().say, run.recipe.machine, run.purse(), hold=hold
        ) as engine,
        metered(engine, run.folder, "benchmark", again=again),
    ):
        await engine.turns.begin(turn if part == ANSWER else [], turn if part == JUDGE else [])
        yield engine


async def check(who: Contender, system: str | None, engine: Engine, templates: dict[str, str]) -> None:
    """Before the first question to a model."""
    templates[who.name] = await check_template(who.name, who.model, engine, system)


def after(first: Once, chat: Chat) -> Chat:
    """Asks when `first` was done."""

    async def ask(request: Request) -> Reply:
        await first()
        return await chat(request)

    return ask


def write_answers(run: Run, exam: Exam) -> None:
    """What each model answered and what the judge said of it, for people and other programs."""
    for model, answered in exam.sheets.items():
        folder = run.folder / "benchmark" / exam.name
        folder.mkdir(parents=True, exist_ok=True)
        lines = [json.dumps(line(model, one), ensure_ascii=False) for one in answered]
        part = folder / f".{model}.jsonl.part"
        part.write_text("\n".join(lines) + "\n", encoding="utf-8")
        part.replace(folder / f"{model}.jsonl")


def line(model: str, one: Answered) -> dict[str, Any]:
    answer, judgement = one.completion, one.judgement
    return {
        "question_id": one.question.id,
        "category": one.question.category,
        "turn": one.turn + 1,
        "model": model,
        "prompt": one.prompt.text,
        "answer": answer.text if answer else None,
        "finish_reason": answer.finish_reason if answer else None,
        "status": judgement.status if judgement else None,
        "score": one.score,
        "judgement": judgement.raw if judgement else "",
        "detail": judgement.detail if judgement else "",
    }


@flow(name="benchmark", flow_run_name="benchmark-{recipe.name}")
async def benchmark(recipe: Given, out: Path | None = None, store: str | None = None) -> dict[str, Any]:
    """Questions -> answers of every model -> judgements -> figures with intervals, and gains over the first model.

    Raises:
        RecipeError, PromptError: the recipe has no suites, or a file of theirs cannot be read; nothing was asked.
        StageFailed: too many answers or judgements failed; what was answered is kept.
    """
    settings = recipe.benchmark
    if settings is None:
        raise RecipeError(
            f"recipe {recipe.name!r} has no `benchmark`; name suites and the models that sit them"
        )
    exams = [read(name, suite, recipe.seed) for name, suite in settings.suites.items()]
    with Run.opened(recipe, out, store) as run:
        facts, began, asked = Facts.of(run), time.monotonic(), 0
        templates: dict[str, str] = facts.content.get("benchmark", {}).get("templates", {})
        stages = Stages(run.store)
        receipts: dict[str, list[Receipt]] = {"answer suites": [], "judge suites": []}
        for who in sitters_of(run):
            async with opened(run, who.name, who.model, ANSWER, asked > 0) as engine:
                checked = Once(partial(check, who, settings.system, engine, templates))
                sitter = Sitter(
                    run, stages, who.name, who.identity, after(checked, engine.chat(who.name, GENERATE))
                )
                await together(sit(exam, settings.system, sitter) for exam in exams)
                for exam in exams:
                    if isinstance(exam.suite, Harness):
                        found = await harness.run(exam.name, exam.suite, who, run, engine, checked)
                        exam.scores[who.name] = found
                check_budget(engine, sitter.receipts)
                receipts["answer suites"] += sitter.receipts
                asked += engine.usage.requests
        for name in dict.fromkeys(judge.model for judge in settings.judges.values()):
            async with opened(run, name, recipe.models[name], JUDGE, asked > 0) as engine:
                judging = Judging(run, stages, engine)
                own = {suite for suite, judge in settings.judges.items() if judge.model == name}
                await together(judge(exam, judging) for exam in exams if exam.name in own)
                check_budget(engine, judging.receipts)
                receipts["judge suites"] += judging.receipts
                asked += engine.usage.requests
        for stage, own in receipts.items():
            facts.receipts(stage, own)
        suites = {exam.name: result(exam).model_dump(mode="json") for exam in exams}
        for exam in exams:
            write_answers(run, exam)
        facts.put("benchmark", {"suites": suites, "templates": templates})
        if asked:
            facts.put("endpoints", load_figures(run.folder))
        facts.spent("benchmark", time.monotonic() - began, asked)
        facts.put("report", str(draw(run)))
        await publish_summary(facts)
        return facts.content
