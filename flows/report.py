"""The report of a run, from what lies in its folder. Asks no model; can be drawn again at any time."""

import json
from pathlib import Path
from typing import Any

from flows.answers import stored
from flows.audit import answer_of, statuses
from flows.dataset import Judged, judged_prompts
from flows.facts import Facts
from flows.inputs import gather_prompts
from flows.load import read
from flows.plan import plan_text
from flows.recipe import RecipeError
from flows.recipe_file import load_recipe
from flows.run import Run
from flows.suites.table import suite_tables
from flows.train import trained
from pairs.policies import pair_all
from records.schema import Completion, Pair
from reports.data import (
    Answer,
    BeforeAfter,
    EndpointRow,
    EvaluationRow,
    ExamplePair,
    Interval,
    JudgeAgreement,
    LengthPoint,
    ReportData,
    RoundRow,
    Step,
    Training,
    UsageRow,
)
from reports.page import write_report
from serving.way import in_words

SHOWN = 6
"""Examples of pairs and of answers before and after."""
POINTS = 2000
"""Completions in the scatter of scores against length, at most."""


def write(folder: Path) -> Path:
    """Draw the report of the run in `folder` again.

    Raises:
        RecipeError: there is no run in it.
    """
    if not (folder / "recipe.yaml").exists():
        raise RecipeError(
            f"{folder} holds no run: no recipe.yaml is in it; wanted a folder such as runs/quickstart"
        )
    recipe = load_recipe(folder / "recipe.yaml")
    return draw(Run(recipe, folder, str(folder)))


def draw(run: Run) -> Path:
    """Fill `report.json` and draw `report.html`."""
    content = Facts.of(run).content
    prompts, _ = gather_prompts(run)
    cases = judged_prompts(run, prompts, stored(run))
    pairs = pair_all(((case.prompt, case.candidates) for case in cases), run.recipe.pairs).pairs
    _data(run, content, cases, pairs).save(run.folder)
    return write_report(run.folder)


def _data(run: Run, content: dict[str, Any], cases: list[Judged], pairs: list[Pair]) -> ReportData:
    preflight, dataset = content.get("preflight", {}), content.get("dataset", {})
    scored = [c for case in cases for c in case.candidates if c.score is not None]
    scores: dict[str, list[float]] = {sampler.name: [] for sampler in run.recipe.samplers}
    for each in scored:
        scores.setdefault(each.completion.model, []).append(each.score or 0.0)
    step = max(1, len(scored) // POINTS)
    values = {c.completion.id: c.score for case in cases for c in case.candidates}
    prompted = {case.prompt.id: case for case in cases}
    members = {member.name: member for member in run.recipe.judges}

    def answer(completion: Completion) -> Answer:
        case = prompted[completion.prompt_id]
        return answer_of(case, completion, values.get(completion.id), members)

    widest = sorted(pairs, key=lambda pair: (-pair.margin, pair.prompt.id))
    return ReportData(
        title=run.recipe.name,
        recipe=run.recipe.name,
        plan=content.get("plan") or plan_text(run),
        headline=_headline(content),
        messages=tuple(preflight.get("warnings", ())),
        funnel=tuple(Step(**step) for step in dataset.get("funnel", ())),
        scores={name: tuple(own) for name, own in scores.items()},
        win_rates={name: Interval(**rate) for name, rate in preflight.get("win_rates", {}).items()},
        lengths=tuple(
            LengthPoint(model=c.completion.model, length=len(c.completion.text), score=c.score or 0.0)
            for c in scored[::step]
        ),
        margins=tuple(pair.margin for pair in pairs),
        judgements=preflight.get("judgements", {}),
        judgements_by=statuses(cases),
        agreement=tuple(
            JudgeAgreement(judge=name, **counts) for name, counts in content.get("agreement", {}).items()
        ),
        dialects={name: in_words(way) for name, way in content.get("dialects", {}).items()},
        training=tuple(
            Training.from_metrics(stage, json.loads((folder / "metrics.json").read_text()))
            for stage, folder in trained(run).items()
            if (folder / "metrics.json").exists()
        ),
        rounds=tuple(
            RoundRow(
                round=row["round"],
                prompts=row["prompts"],
                pairs=row["pairs"].get("train", 0),
                score=Interval(**row["score"]) if row["score"] else None,
                best=Interval(**row["best"]) if row["best"] else None,
                loss_first=row["model"]["loss_first"],
                loss_last=row["model"]["loss_last"],
            )
            for row in content.get("rounds", ())
        ),
        evaluation=_evaluation(content.get("evaluation", {})),
        suites=tuple(suite_tables(content.get("benchmark", {}).get("suites", {}))),
        before_after=_before_after(run),
        pairs=tuple(
            ExamplePair(
                prompt=p.prompt.text,
                prompt_id=p.prompt.id,
                chosen=answer(p.chosen),
                rejected=answer(p.rejected),
            )
            for p in widest[:SHOWN]
        ),
        usage=tuple(
            UsageRow(
                stage=name,
                requests=stage["requests"],
                prompt_tokens=stage["prompt_tokens"],
                cached_tokens=stage["cached_tokens"],
                completion_tokens=stage["completion_tokens"],
            )
            for name, stage in content.get("stages", {}).items()
        )
        + tuple(
            UsageRow(stage=name, seconds=seconds) for name, seconds in content.get("seconds", {}).items()
        ),
        endpoints=tuple(
            EndpointRow(stage=stage, model=name, answered=own.pop("requests"), **own)
            for stage, models in read(run.folder).items()
            for name, own in models.items()
        ),
        versions=content["versions"],
        dataset_digest=dataset.get("digest", ""),
    )


def _headline(content: dict[str, Any]) -> dict[str, str]:
    found: dict[str, str] = {}
    if dataset := content.get("dataset"):
        found["pairs to train on"] = f"{dataset['pairs'].get('train', 0):,}"
    evaluation = content.get("evaluation")
    if evaluation and len(evaluation["models"]) > 1:
        last = list(evaluation["models"])[-1]
        base, trained = evaluation["models"]["base"], evaluation["models"][last]
        if base["kept"] and trained["kept"]:
            found["constraints kept, before"] = f"{base['kept']['value']:.0%}"
            found[f"constraints kept, after {last}"] = f"{trained['kept']['value']:.0%}"
        found[f"wins of {last} against base"] = f"{evaluation['against_base'][last]['win_rate']['value']:.0%}"
    return found


def _evaluation(evaluation: dict[str, Any]) -> tuple[EvaluationRow, ...]:
    rows = []
    for name, model in evaluation.get("models", {}).items():
        for metric, key in (("judge's score, 0 to 1", "score"), ("constraints kept", "kept")):
            if model.get(key):
                rows.append(EvaluationRow(model=name, metric=metric, **model[key]))
        rows.append(
            EvaluationRow(
                model=name, metric="words per answer", value=model["mean_words"], n=model["answers"]
            )
        )
    for name, other in evaluation.get("against_base", {}).items():
        metrics = {"gain in constraints kept": "kept_gain", "gain in score": "gain", "win rate": "win_rate"}
        for metric, key in metrics.items():
            if other.get(key):
                rows.append(EvaluationRow(model=f"{name} against base", metric=metric, **other[key]))
    return tuple(rows)


def _before_after(run: Run) -> tuple[BeforeAfter, ...]:
    """The first held-out prompts, not the best ones."""
    path = run.folder / "evaluation.json"
    if not path.exists():
        return ()
    found = []
    for example in json.loads(path.read_text()):
        names = list(example["answers"])
        if len(names) < 2 or names[0] != "base":
            continue
        before, after = (Answer(model=name, **example["answers"][name]) for name in (names[0], names[-1]))
        found.append(BeforeAfter(prompt=example["prompt"], before=before, after=after))
    return tuple(found[:SHOWN])
