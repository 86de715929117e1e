"""A run's report: one HTML file, readable offline and on paper. Start at `write_report`."""

from functools import lru_cache
from pathlib import Path
from typing import TYPE_CHECKING, Any

from markupsafe import Markup

from reports import plots
from reports.data import Answer, EndpointRow, ReportData
from reports.draw import allowed, chart, script
from reports.plots import quartiles

if TYPE_CHECKING:
    from jinja2 import Environment

HERE = Path(__file__).parent


def write_report(run: Path) -> Path:
    """Draw `run/report.json` as `run/report.html`.

    Raises:
        FileNotFoundError, ValueError: see `ReportData.load`.
    """
    page = run / "report.html"
    part = page.with_suffix(".part")
    part.write_text(render(ReportData.load(run)), encoding="utf-8")
    part.replace(page)
    return page


def render(data: ReportData) -> str:
    """The page. All text that came from a model or a dataset is escaped; the page loads nothing and runs one script."""
    specs = figures_of(data)
    code = script() if specs else Markup("")
    return fill(
        "report.html.jinja",
        data=data,
        specs=specs,
        chart=chart,
        script=code,
        allowed=allowed(code),
        figures_missing=bool(specs) and not code,
        quartiles=quartiles,
        statuses=sorted({status for counts in data.judgements.values() for status in counts} - {"ok"}),
        judged_by={"model that wrote the answer": data.judgements} | data.judgements_by,
        widest=max((step.rows_in for step in data.funnel), default=0),
        gained=gained,
        load_in_words=load_in_words,
    )


def fill(template: str, **values: object) -> str:
    """A page of this folder. Values are escaped, unless they are `Markup`."""
    style = Markup((HERE / "report.css").read_text(encoding="utf-8"))
    return _environment().get_template(template).render(style=style, **values)


@lru_cache(maxsize=1)
def _environment() -> "Environment":
    from jinja2 import Environment, FileSystemLoader, StrictUndefined

    environment = Environment(
        loader=FileSystemLoader(HERE),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters |= {"number": number, "seconds": seconds, "percent": percent, "shorten": shorten}
    return environment


def figures_of(data: ReportData) -> dict[str, Any]:
    """Every figure that there are figures for, by its name on the page."""
    found: dict[str, Any] = {}
    if any(data.scores.values()):
        found["scores"] = plots.scores_figure(data.scores)
    if data.win_rates:
        found["wins"] = plots.win_rates_figure(data.win_rates)
    if data.lengths:
        found["lengths"] = plots.lengths_figure(data.lengths, list(data.scores))
    if data.margins:
        found["margins"] = plots.margins_figure(data.margins)
    for i, stage in enumerate(data.training):
        if any(curve.points for curve in stage.curves):
            found[f"training{i}"] = plots.training_figure(stage)
    for i, row in enumerate(data.endpoints):
        if len(row.series) > 1:
            found[f"load{i}"] = plots.load_figure(row.series)
    return found


def number(value: float | None) -> str:
    """1234567 -> 1 234 567 (narrow spaces); 0.123456 -> 0.1235; None -> –."""
    if value is None:
        return "–"
    if float(value).is_integer():
        return f"{value:,.0f}".replace(",", "\u202f")
    return f"{value:.4g}" if abs(value) < 1000 else f"{value:,.0f}".replace(",", "\u202f")


def seconds(value: float) -> str:
    """3723 -> 1 h 2 min; 62 -> 1 min 2 s; 1.234 -> 1.2 s."""
    if value < 60:
        return f"{value:.1f} s"
    minutes, rest = divmod(round(value), 60)
    return f"{minutes} min {rest} s" if minutes < 60 else f"{minutes // 60} h {minutes % 60} min"


def percent(value: float | None) -> str:
    return "–" if value is None else f"{100 * value:.1f}\u202f%"


def shorten(text: str, most: int = 160) -> str:
    """A text in one line of at most so many characters."""
    line = " ".join(text.split())
    return line if len(line) <= most else f"{line[: most - 1]}…"


def gained(before: Answer, after: Answer) -> str:
    """`up`, `down`, `same`, or nothing when one has no score."""
    if before.score is None or after.score is None:
        return ""
    return "same" if before.score == after.score else "up" if after.score > before.score else "down"


def load_in_words(row: EndpointRow) -> str:
    """What the figure of one model shows."""
    times, running, waiting, limit, tokens_in, tokens_out = zip(*row.series, strict=True)
    count = len(row.series)
    return (
        f"Over {seconds(times[-1])}: {sum(running) / count:.1f} requests running on the mean, {max(running):.0f} at "
        f"most; {sum(waiting) / count:.1f} waiting at the model, {max(waiting):.0f} at most; a limit of "
        f"{min(limit):.0f} to {max(limit):.0f}; at most {max(tokens_in):,.0f} tokens per second in and "
        f"{max(tokens_out):,.0f} out."
    )
