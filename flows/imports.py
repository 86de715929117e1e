"""A published preference dataset as a run: its prompts, answers and ratings as records. Asks no model.

runs/<name>/prompts.jsonl     the prompts, each once
            import.yaml       the recipe to go on from: `zephyr pairs` makes pairs anew, and a sampler or judge that
                              is added to it costs its own calls and nothing else; runs leave it as it is
            completions/ judgements/

The ratings keep what was published, word for word; which of them count, and as what, says `judges.published`.
"""

import json
import re
from collections import Counter
from collections.abc import Iterator
from itertools import islice
from pathlib import Path
from typing import Any

import yaml
from pydantic import ValidationError

from flows.answers import Case, row_of
from flows.inputs import gather_prompts
from flows.recipe import Recipe, RecipeError
from flows.recipe_file import explain
from flows.run import Run
from judges.published import PublishedRatings, verdict
from prompts.annotations import ASPECTS, OVERALL, shifted
from prompts.published import Entry, Published, open_published
from records.base import Strict
from records.ids import fingerprint
from records.lock import exclusive
from records.schema import Completion, Dropped, Prompt
from records.store import Row
from serving.settings import Imported

RECIPE, PROMPTS = "import.yaml", "prompts.jsonl"
EVERY = (*ASPECTS, OVERALL)
"""Aspects that are stored, whichever of them the recipe counts."""
SCALES = ((1.0, 5.0), (1.0, 10.0), (0.0, 1.0), (0.0, 10.0))


class Seen(Strict):
    """What must be known of a dataset before its first row is stored."""

    rows: int
    answers: int
    """Of one prompt, at most."""
    aspects: bool
    """Whether any answer has a rating of an aspect."""
    low: float | None
    high: float | None
    """Of the overall scores."""
    splits: tuple[str, ...]
    meta: tuple[str, ...]


def import_dataset(
    name: str, as_name: str, out: Path | None = None, revision: str | None = None
) -> dict[str, Any]:
    """Bring a dataset into `runs/<as_name>`; what is there already stays.

    Raises:
        PromptError: the dataset cannot be read.
        RecipeError: `as_name` cannot name a run, or names a run of something else.
    """
    dataset = open_published(name, revision)
    recipe_file = (out or Path("runs")) / as_name / RECIPE
    seen = look(dataset)
    recipe = recipe_of(dataset, as_name, seen, recipe_file.with_name(PROMPTS))
    model = next(iter(recipe.models.values()))
    if recipe_file.exists() and f"digest: {getattr(model, 'digest', '')}" not in recipe_file.read_text():
        raise RecipeError(f"{recipe_file} is the recipe of another run; give another name to --as")
    with exclusive(recipe_file.parent):
        run = Run.at(recipe, out)
        counts = _store(run, dataset, seen)
        if not recipe_file.exists():
            run.write(RECIPE, yaml.safe_dump(_brief(recipe), sort_keys=False, allow_unicode=True))
        prompts, lost = gather_prompts(run)
    assert not lost, "what is dropped was not stored"
    return {
        "recipe": str(recipe_file),
        "rows": seen.rows,
        "prompts": len(prompts),
        **counts,
        "next": f"zephyr pairs {recipe_file}" + (f" --out {out}" if out else ""),
    }


def look(dataset: Published) -> Seen:
    """One pass over the rows."""
    rows = most = 0
    aspects, low, high, meta = False, None, None, set()
    for entry in dataset.entries():
        rows, most = rows + 1, max(most, len(entry.answers))
        meta |= entry.meta.keys()
        for answer in entry.answers:
            aspects = aspects or any(answer.annotations[a].value is not None for a in _rated(answer))
            value = answer.annotations[OVERALL].value
            if value is not None:
                low, high = (
                    min(value, value if low is None else low),
                    max(value, value if high is None else high),
                )
    return Seen(
        rows=rows,
        answers=most,
        aspects=aspects,
        low=low,
        high=high,
        splits=tuple(dataset.splits),
        meta=tuple(sorted(meta)),
    )


def _rated(answer: Any) -> list[str]:
    return [aspect for aspect in ASPECTS if aspect in answer.annotations]


def scale_of(seen: Seen, layout: str) -> tuple[float, float]:
    """UltraFeedback's 1 to 10; of pairs, the narrowest usual scale that holds every score."""
    if layout == "answers" or seen.low is None or seen.high is None:
        return 1.0, 10.0
    fitting = [scale for scale in SCALES if scale[0] <= seen.low and seen.high <= scale[1]]
    return fitting[0] if fitting else (seen.low, max(seen.high, seen.low + 1))


def recipe_of(dataset: Published, as_name: str, seen: Seen, prompts: Path) -> Recipe:
    """The recipe that stands for the import."""
    label = re.sub(r"[^a-z0-9._-]+", "-", dataset.label.lower()).strip("-._")[:60] or "dataset"
    meta = {key: key for key in ("origin", *seen.meta)}
    try:
        return Recipe.model_validate(
            {
                "name": as_name,
                "description": f"Imported from {dataset.name}.",
                "prompts": [
                    {"file": str(prompts.resolve()), "messages": "messages", "name": label, "meta": meta}
                ],
                "models": {
                    label: {
                        "kind": "imported",
                        "model": dataset.name,
                        "revision": dataset.revision,
                        "digest": dataset.digest,
                    }
                },
                "samplers": [{"name": label, "model": label, "n": max(2, seen.answers)}],
                "judge": {
                    "kind": "published",
                    "aspects": ASPECTS if seen.aspects else (OVERALL,),
                    "digest": dataset.digest,
                    "scale": scale_of(seen, dataset.layout),
                },
                "pairs": {
                    "policy": "best_vs_random_lower" if dataset.layout == "answers" else "best_vs_worst"
                },
            }
        )
    except ValidationError as error:
        raise RecipeError(f"--as {as_name!r}:\n{explain(error)}") from error


def _brief(recipe: Recipe) -> dict[str, Any]:
    """Only what differs from the defaults, for people to go on from."""
    fields = recipe.model_dump(mode="json", exclude_defaults=True)
    for name, model in recipe.models.items():
        fields["models"][name] |= {"kind": model.kind}
    return fields | {"judge": fields["judge"] | {"kind": "published"}}


def _store(run: Run, dataset: Published, seen: Seen) -> dict[str, Any]:
    """Every prompt once, with its answers and their ratings, shard by shard."""
    dropped: Counter[str] = Counter()
    answers: Counter[str] = Counter()
    statuses: dict[str, Counter[str]] = {aspect: Counter() for aspect in EVERY}
    split_given = any(split.startswith("test") for split in seen.splits)
    part = run.folder / f".{PROMPTS}.part"
    with part.open("w", encoding="utf-8") as file:
        entries = _once(dataset, dropped)
        for index, chunk in enumerate(iter(lambda: list(islice(entries, run.recipe.shard_size)), [])):
            for entry in chunk:
                row = {
                    "messages": [message.model_dump() for message in entry.messages],
                    "origin": entry.source,
                }
                if split_given:
                    row["split"] = "test" if entry.split.startswith("test") else "train"
                file.write(json.dumps(row | entry.meta, ensure_ascii=False, default=str) + "\n")
                answers.update(answer.model for answer in entry.answers)
            _store_shard(run, index, chunk, statuses)
    part.replace(run.folder / PROMPTS)
    return {
        "dropped": dict(dropped),
        "answers": dict(answers.most_common()),
        "ratings": {
            aspect: dict(counts) for aspect, counts in statuses.items() if set(counts) != {"missing"}
        },
    }


def _once(dataset: Published, dropped: Counter[str]) -> Iterator[Entry]:
    """Rows whose prompt can be asked and was not there before."""
    found: set[str] = set()
    for entry in dataset.entries():
        if not entry.messages or entry.messages[-1].role != "user" or not entry.text.strip():
            dropped["empty_prompt"] += 1
        elif entry.prompt_id in found:
            dropped["duplicate"] += 1
        else:
            found.add(entry.prompt_id)
            yield entry


def _store_shard(run: Run, index: int, chunk: list[Entry], statuses: dict[str, Counter[str]]) -> None:
    (sampler,), (member,) = run.recipe.samplers, run.recipe.jury.members
    assert isinstance(member, PublishedRatings)
    assert isinstance(run.recipe.models[sampler.model], Imported)
    stage = run.completions_stage(sampler)
    judged = run.judgements_stage(member, [stage.fingerprint])
    completions, judgements = [], []
    for entry in chunk:
        own = [
            Completion(
                id=fingerprint(stage.fingerprint, entry.prompt_id, i),
                prompt_id=entry.prompt_id,
                model=answer.model,
                sample=i,
                text=answer.text,
                finish_reason="unknown",
                principle=answer.principle,
                principle_text=answer.principle_text,
                fingerprint=stage.fingerprint,
            )
            for i, answer in enumerate(entry.answers)
        ]
        none = Dropped(id=entry.prompt_id, stage="completions", reason="empty_answer", detail=entry.where)
        rows = [completion.model_dump(mode="json") for completion in own]
        completions.append(Row(entry.prompt_id, rows, None if own else none.model_dump()))
        prompt = Prompt(id=entry.prompt_id, messages=entry.messages, source=entry.source)
        for aspect in EVERY:
            group = [answer.annotations[aspect] for answer in entry.answers if aspect in answer.annotations]
            shift = shifted(group) if aspect != OVERALL else ""
            for completion, answer in zip(own, entry.answers, strict=True):
                said = verdict(aspect, answer.annotations, member.scale, answer.critique, shift)
                case = Case(prompt, (completion,), aspect)
                judgements.append(row_of(case.key(member), case, [said], member.name, judged.fingerprint))
                statuses[aspect][said.status] += 1
    for kept, rows in ((stage, completions), (judged, judgements)):
        by_key = {row.key: row for row in rows}
        if kept.sealed(index, list(by_key)) is None:
            shard = kept.open(index, list(by_key))
            for key in shard.missing:
                shard.put(by_key[key])
            shard.seal()


def import_text(found: dict[str, Any]) -> str:
    """What came in, as people read it."""
    lost = ", ".join(f"{count} {reason}" for reason, count in found["dropped"].items()) or "nothing"
    answers = found["answers"]
    lines = [
        f"prompts   {found['prompts']:>9,} of {found['rows']:,} rows, dropped: {lost}",
        f"answers   {sum(answers.values()):>9,} of {len(answers)} models: "
        + ", ".join(f"{model} {count:,}" for model, count in list(answers.items())[:20]),
    ]
    for aspect, counts in found["ratings"].items():
        rest = ", ".join(f"{count:,} {status}" for status, count in counts.items() if status != "ok")
        lines.append(
            f"ratings   {counts.get('ok', 0):>9,} {aspect}" + (f"; without a score: {rest}" if rest else "")
        )
    return "\n".join([*lines, f"recipe    {found['recipe']}", f"next      {found['next']}"])
