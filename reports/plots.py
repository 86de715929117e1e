"""The report's figures: what to draw. How it looks is in `reports.draw`."""

import random
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, TypeVar

from markupsafe import Markup

from reports.data import Interval, LengthPoint, Training
from reports.draw import INK, MUTED, color, marker, rows, svg

if TYPE_CHECKING:
    from matplotlib.figure import Figure

T = TypeVar("T")
WIDTH = 9.0
"""Inches."""
MOST_POINTS = 1200
"""More make the page slow, not clearer."""
BINS = 60
"""Points of a line over time."""


def scores_figure(scores: Mapping[str, Sequence[float]]) -> Markup:
    """A row per model: every score as a dot, quartiles as a box."""
    names = [name for name, values in scores.items() if values]

    def paint(figure: "Figure") -> None:
        axes = figure.subplots()
        boxes = axes.boxplot(
            [list(scores[name]) for name in names],
            positions=list(range(len(names))),
            orientation="horizontal",
            widths=0.5,
            showfliers=False,
            patch_artist=True,
            medianprops={"color": INK, "linewidth": 1.8},
            whiskerprops={"color": MUTED},
            capprops={"color": MUTED},
            boxprops={"linewidth": 0.8, "edgecolor": INK},
        )
        for i, name in enumerate(names):
            boxes["boxes"][i].set(facecolor=color(i), alpha=0.35)
            dice = random.Random(name)
            shown = _sample(scores[name], MOST_POINTS // len(names))
            heights = [i + dice.uniform(-0.32, 0.32) for _ in shown]
            axes.plot(shown, heights, ".", color=color(i), markersize=3, alpha=0.45, zorder=1)
        rows(axes, names)
        axes.set_xlabel("score, points")

    return svg("scores", WIDTH, 0.9 + 0.42 * len(names), paint)


def win_rates_figure(rates: Mapping[str, Interval]) -> Markup:
    """A dot and its interval per model, best at the top."""
    names = sorted(rates, key=lambda name: -rates[name].value)

    def paint(figure: "Figure") -> None:
        axes = figure.subplots()
        axes.axvline(50, color=MUTED, linewidth=1, linestyle="--")
        for i, name in enumerate(names):
            rate = rates[name]
            if rate.low is not None and rate.high is not None:
                axes.plot([100 * rate.low, 100 * rate.high], [i, i], color=color(0), linewidth=2.5, alpha=0.5)
            axes.plot(100 * rate.value, i, "o", color=color(0), markersize=7)
        rows(axes, names)
        axes.set_xlim(-3, 103)
        axes.set_xlabel("chosen in its pairs, %")

    return svg("wins", WIDTH, 0.9 + 0.34 * len(names), paint)


def lengths_figure(points: Sequence[LengthPoint], order: Sequence[str]) -> Markup:
    """Score over length, a dot per completion. `order` gives the models their colours, as in the scores."""
    found = {point.model for point in points}
    names = [*(name for name in order if name in found), *sorted(found - set(order))]

    def paint(figure: "Figure") -> None:
        from matplotlib.ticker import LogLocator, NullLocator

        axes = figure.subplots()
        for name in names:
            i = [*order, *names].index(name)
            mine = _sample([point for point in points if point.model == name], MOST_POINTS // len(names))
            axes.plot(
                [point.length for point in mine],
                [point.score for point in mine],
                marker(i),
                color=color(i),
                markersize=4,
                alpha=0.6,
                markeredgewidth=0,
                label=name.replace("$", r"\$"),
            )
        axes.grid()
        axes.set_xlabel("length of the answer, characters")
        axes.set_ylabel("score, points")
        if min(point.length for point in points) > 0:
            axes.set_xscale("log")
            axes.xaxis.set_major_locator(LogLocator(subs=(1, 2, 5)))
            axes.xaxis.set_major_formatter("{x:g}")
            axes.xaxis.set_minor_locator(NullLocator())
        axes.legend(loc="upper left", bbox_to_anchor=(1.0, 1.0), markerscale=1.4)

    return svg("lengths", WIDTH, 3.2, paint)


def margins_figure(margins: Sequence[float]) -> Markup:
    """How many pairs have which margin."""

    def paint(figure: "Figure") -> None:
        axes = figure.subplots()
        bins = min(40, max(8, round(len(margins) ** 0.5)))
        axes.hist(margins, bins=bins, color=color(0), alpha=0.75, rwidth=0.92)
        axes.grid(axis="y")
        axes.set_xlabel("margin, points")
        axes.set_ylabel("pairs")
        axes.set_xlim(left=min(0.0, *margins))
        axes.locator_params(axis="y", integer=True)

    return svg("margins", WIDTH, 2.6, paint)


def training_figure(name: str, training: Training) -> Markup:
    """A panel per metric; what is measured on held-out rows is drawn over it."""
    panels: dict[str, dict[str, Sequence[tuple[float, float]]]] = {}
    for curve in training.curves:
        if curve.points:
            kind = "held out" if curve.metric.startswith("eval_") else "train"
            panels.setdefault(curve.metric.removeprefix("eval_"), {})[kind] = curve.points
    columns = 2 if len(panels) == 4 else min(3, len(panels))
    lines = -(-len(panels) // columns)

    def paint(figure: "Figure") -> None:
        grid = figure.subplots(lines, columns, squeeze=False)
        for axes in grid.flat[len(panels) :]:
            axes.set_visible(False)
        for axes, (metric, kinds) in zip(grid.flat, panels.items(), strict=False):
            for kind, points in kinds.items():
                looks = {"color": color(1), "marker": "o"} if kind == "held out" else {"color": color(0)}
                axes.plot(*zip(*points, strict=True), label=kind, linewidth=1.6, markersize=5, **looks)
            axes.set_title(metric)
            axes.grid()
            axes.locator_params(axis="both", nbins=5)
            axes.ticklabel_format(axis="y", scilimits=(-3, 4))
            if "held out" in kinds:
                axes.legend(fontsize=8)
        for axes in grid[-1]:
            axes.set_xlabel("optimizer step")

    return svg(name, {1: 4.6, 2: 7.0, 3: WIDTH}[columns], 2.2 * lines + 0.3, paint)


def load_figure(name: str, series: Sequence[tuple[float, ...]]) -> Markup:
    """What ran, waited and was allowed at one model over time, and beside it tokens per second.

    Tokens are counted when an answer is complete, so they are shown as means over `BINS` parts of the time.
    """
    times, running, waiting, limit, tokens_in, tokens_out = zip(*binned(series), strict=True)
    unit, per = ("minutes", 60.0) if times[-1] > 180 else ("seconds", 1.0)
    times = [each / per for each in times]

    def paint(figure: "Figure") -> None:
        left, right = figure.subplots(1, 2)
        left.fill_between(times, running, color=color(0), alpha=0.25, linewidth=0)
        left.plot(times, running, color=color(0), linewidth=1.6, label="running")
        left.plot(times, waiting, color=color(1), linewidth=1.4, linestyle="--", label="waiting")
        left.plot(times, limit, color=MUTED, linewidth=1.2, linestyle=":", label="limit")
        left.set_ylim(0, 1.15 * min(max(limit), 3 * max(*running, *waiting, 1.0)))
        left.set_title("requests")
        right.plot(times, tokens_in, color=color(2), linewidth=1.4, linestyle="--", label="in")
        right.plot(times, tokens_out, color=color(3), linewidth=1.6, label="out")
        right.set_ylim(bottom=0)
        right.set_title("tokens per second")
        for axes in (left, right):
            axes.grid()
            axes.set_xlim(0, max(times[-1], 1e-9))
            axes.set_xlabel(unit)
            axes.locator_params(axis="both", nbins=5)
            axes.legend(loc="upper left", bbox_to_anchor=(1.0, 1.0), fontsize=8)

    return svg(name, WIDTH, 2.3, paint)


def binned(series: Sequence[tuple[float, ...]]) -> list[tuple[float, ...]]:
    """Means over equal parts of the time, `BINS` at most; a part without a point is left out."""
    last = series[-1][0] or 1.0
    found: dict[int, list[tuple[float, ...]]] = {}
    for point in series:
        found.setdefault(min(BINS - 1, int(BINS * point[0] / last)), []).append(point)
    return [tuple(sum(one) / len(one) for one in zip(*own, strict=True)) for own in found.values()]


def _sample(values: Sequence[T], most: int) -> Sequence[T]:
    """At most `most` of them, evenly over the list."""
    return values if len(values) <= most else [values[i * len(values) // most] for i in range(most)]
