"""`zephyr audit`: a published dataset, or the dataset of a run, looked through by `pairs.audit`. Asks no model."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from pydantic import ValidationError

from flows.imports import look, scale_of
from flows.recipe import RecipeError
from flows.recipe_file import explain
from pairs.audit import audit
from pairs.cleaning import Cleaning
from prompts.published import open_published
from reports.audit import write_audit


def audit_published(
    name: str,
    benchmarks: Sequence[str] = (),
    near: float = 0.7,
    html: Path | None = None,
    revision: str | None = None,
) -> dict[str, Any]:
    """`benchmarks`: names of known lists, or name=file. `near`: 0 does not look for near copies.

    Raises:
        PromptError: the dataset or a list cannot be read.
        RecipeError: a benchmark is neither known nor a file.
    """
    try:
        cleaning = Cleaning.model_validate(
            {"benchmarks": [_list(each) for each in benchmarks], "near_duplicates": near or None}
        )
    except ValidationError as error:
        raise RecipeError(f"--benchmark:\n{explain(error)}") from error
    of_run = Path(name) / "dataset"
    dataset = open_published(str(of_run) if of_run.is_dir() else name, revision)
    scale = scale_of(look(dataset), dataset.layout)
    found = audit(dataset.name, dataset.layout, scale, dataset.entries, cleaning).model_dump(mode="json")
    found |= {"digest": dataset.digest, "rows": sum(found["splits"].values()), "scale": scale}
    if html is not None:
        found["html"] = str(write_audit(found, html))
    return found


def _list(given: str) -> Any:
    name, equals, file = given.partition("=")
    return {"name": name, "file": file} if equals else name


def audit_text(found: dict[str, Any]) -> str:
    """The findings as people read them."""
    answers, splits = found["answers"], found["splits"]
    lines = [
        f"{found['dataset']}: {found['rows']:,} rows ({', '.join(f'{n} {c:,}' for n, c in splits.items())}), "
        f"{sum(answers.values()):,} answers of {len(answers)} models",
        "",
    ]
    for finding in found["findings"]:
        rows = "" if finding["rows"] == finding["count"] else f", in {finding['rows']:,} rows"
        lines.append(f"{finding['count']:>8,}  {finding['title']}{rows}")
        lines.append(f"          anew: {finding['effect']}")
        for example in finding["examples"][:2]:
            who = f" {example['model']}" if example["model"] else ""
            lines.append(
                f"          {example['where']}, {example['prompt_id'][:12]}{who}: {example['detail']}"
            )
    lines += ["", "looked for and not found: " + (", ".join(found["clean"]) or "nothing")]
    lines += [f"not looked for: {why}" for why in found["not_checked"]]
    if found["longer_wins"]:
        lines.append(f"the longer answer has the higher score: {_rate(found['longer_wins'])}")
    for model, rate in sorted(found["win_rates"].items(), key=lambda item: -item[1]["value"]):
        first = found["first_of_ties"].get(model)
        given = f"; list order gave it {first:,} ties at the top" if first else ""
        lines.append(f"  {model:<24} wins {_rate(rate)}{given}")
    if repaired := found["repaired"]:
        lines += [
            "",
            f"choosing anew, of {repaired['rows']:,} rows with a published choice:",
            f"{len(repaired['changed']):>8,}  another answer is the best by the scores that can be trusted",
            f"{len(repaired['by_chance']):>8,}  still among several best: drawn, no longer the first of the list",
            f"{len(repaired['without']):>8,}  no score that can be trusted",
            f"{repaired['changed_by_mean']:>8,}  another answer is the best by the mean of the aspects, "
            f"of {repaired['rows_by_mean']:,} that have it",
        ]
    if "html" in found:
        lines.append(f"report    {found['html']}")
    return "\n".join(lines)


def _rate(rate: dict[str, Any]) -> str:
    return f"{rate['value']:.1%} ({rate['low']:.1%} to {rate['high']:.1%}, n {rate['n']:,})"
