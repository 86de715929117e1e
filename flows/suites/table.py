"""The suites' figures as people read them: a row for each metric, a column for each model, the gain at the end."""

from collections.abc import Iterator, Mapping
from typing import Any

from reports.data import SuiteRow, SuiteTable


def benchmark_lines(found: Mapping[str, Any]) -> list[str]:
    """For a terminal. `found`: the summary's `benchmark`."""
    lines: list[str] = []
    for suite in suite_tables(found["suites"]):
        table = [(f"{suite.name}, {suite.questions} questions", *suite.columns)]
        table += [(row.metric, *row.values) for row in suite.rows]
        widths = [max(len(row[i]) for row in table) for i in range(len(table[0]))]
        lines += [
            "  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip()
            for row in table
        ]
        lines += [f"  {said}" for said in suite.remarks]
    return lines


def suite_tables(suites: Mapping[str, Any]) -> Iterator[SuiteTable]:
    """Each suite of the summary."""
    for name, suite in suites.items():
        models = list(next(iter(suite["metrics"].values()), {}))
        title = gain_title(suite)
        rows = []
        for metric, own in suite["metrics"].items():
            values = [figure(own.get(model), suite["scale"]) for model in models]
            rows.append(
                SuiteRow(metric=metric, values=(*values, *([gained(suite, metric)] if title else [])))
            )
        groups = [
            SuiteRow(metric=group, values=tuple(bare(own.get(model), suite["scale"]) for model in models))
            for group, own in suite["groups"].items()
        ]
        yield SuiteTable(
            name=name,
            questions=suite["questions"],
            columns=(*models, *([title] if title else [])),
            rows=tuple(rows),
            groups=tuple(groups),
            remarks=tuple(remarks(suite)),
        )


def bare(value: float | None, scale: str) -> str:
    return "–" if value is None else f"{100 * value:.1f} %" if scale == "share" else f"{value:.2f}"


def figure(value: Mapping[str, Any] | None, scale: str, signed: bool = False) -> str:
    """7.34 [7.10, 7.58], or in percent; a dash where there is none."""
    if value is None:
        return "–"
    times, digits = (100, 1) if scale == "share" else (1, 2)
    sign = "+" if signed else ""
    mid, low, high = (f"{times * value[key]:{sign}.{digits}f}" for key in ("value", "low", "high"))
    return f"{mid} [{low}, {high}]" + (" %" if scale == "share" else "")


def gain_title(suite: Mapping[str, Any]) -> str | None:
    """The last model's gain over the first; None for one model alone, and where nothing is compared."""
    gains = next(iter(suite["gains"].values()), {})
    first = next(iter(next(iter(suite["metrics"].values()), {})), "")
    return f"{list(gains)[-1]} - {first}" if gains else None


def gained(suite: Mapping[str, Any], metric: str) -> str:
    own = suite["gains"].get(metric) or {}
    return figure(list(own.values())[-1], suite["scale"], signed=True) if own else ""


def remarks(suite: Mapping[str, Any]) -> list[str]:
    """What the figures leave out or count as the worst, model by model, and what they are not."""
    found = []
    for model, counts in suite["counts"].items():
        parts = [
            f"{counts[key]} {said}"
            for key, said in (
                ("unanswered", "could not be asked and are left out"),
                ("empty", "are empty and count as the worst"),
                ("cut_off", "were cut off"),
            )
            if counts[key]
        ]
        parts += [f"{count} judgements left out: {status}" for status, count in counts["unread"].items()]
        if parts:
            found.append(
                f"{model}, of {counts['answers'] + counts['unanswered']} answers: {'; '.join(parts)}"
            )
    return [*found, *suite["notes"]]
