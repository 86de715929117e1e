"""The report's figures as Vega-Lite specifications: what to draw. How it looks is in `reports.draw`."""

import random
from collections.abc import Mapping, Sequence
from typing import Any, TypeVar

from reports.data import Interval, LengthPoint, Training
from reports.draw import COLORS, INK, MUTED, SHAPES, WIDTH

T = TypeVar("T")
Spec = dict[str, Any]
MOST_POINTS = 1200
"""More make the page slow, not clearer."""
BINS = 60
"""Points of a line over time."""


def values(rows: list[dict[str, Any]]) -> Spec:
    return {"values": rows}


def number(field: str, title: str | None = None, **more: Any) -> Spec:
    return {"field": field, "type": "quantitative", "title": title, **more}


def name(field: str, order: Sequence[str] | None = None, **more: Any) -> Spec:
    """A name, in the order that is given and not by the alphabet."""
    return {"field": field, "type": "nominal", "title": None, "sort": order, **more}


def quartiles(scores: Sequence[float]) -> tuple[float, float, float, float, float]:
    """Lower whisker, quarters and upper whisker; a whisker ends at the last value within 1.5 boxes of its box."""
    import numpy as np

    low, middle, high = (float(q) for q in np.quantile(list(scores), (0.25, 0.5, 0.75)))
    reach = 1.5 * (high - low)
    inside = [score for score in scores if low - reach <= score <= high + reach]
    return min(inside), low, middle, high, max(inside)


def scores_figure(scores: Mapping[str, Sequence[float]]) -> Spec:
    """A row per model: every score as a dot, quartiles as a box."""
    names = [model for model, own in scores.items() if own]
    boxes, dots = [], []
    for model in names:
        fields = ("lowest", "quarter", "median", "three quarters", "highest")
        boxes.append({"model": model, **dict(zip(fields, quartiles(scores[model]), strict=True))})
        dice = random.Random(model)
        shown = _sample(scores[model], MOST_POINTS // len(names))
        dots += [{"model": model, "score": score, "at": round(dice.uniform(-1, 1), 3)} for score in shown]
    y = name("model", names, axis={"labelPadding": 8})
    color = name("model", names, legend=None, scale={"domain": names, "range": COLORS})
    axis = number("lowest", "score, points", scale={"zero": False}, axis={"tickCount": 8})
    told = [name("model"), *(number(field) for field in boxes[0] if field != "model")]
    return {
        "width": WIDTH,
        "height": {"step": 44},
        "layer": [
            {
                "data": values(dots),
                "mark": {"type": "circle", "size": 12, "opacity": 0.5},
                "encoding": {
                    "x": number("score", "score, points", scale={"zero": False}),
                    "y": y,
                    "yOffset": {"field": "at", "type": "quantitative", "scale": {"domain": [-1.4, 1.4]}},
                    "color": color,
                    "tooltip": [name("model"), number("score", format=".3f")],
                },
            },
            {
                "data": values(boxes),
                "mark": {"type": "rule", "color": MUTED},
                "encoding": {"x": axis, "x2": {"field": "highest"}, "y": y},
            },
            {
                "data": values(boxes),
                "mark": {"type": "bar", "size": 20, "fillOpacity": 0.35, "stroke": INK, "strokeWidth": 0.8},
                "encoding": {
                    "x": number("quarter", "score, points"),
                    "x2": {"field": "three quarters"},
                    "y": y,
                    "color": color,
                    "tooltip": [
                        one | {"format": ".3f"} if one["type"] == "quantitative" else one for one in told
                    ],
                },
            },
            {
                "data": values(boxes),
                "mark": {"type": "tick", "color": INK, "thickness": 2, "size": 20},
                "encoding": {"x": number("median", "score, points"), "y": y},
            },
        ],
    }


def win_rates_figure(rates: Mapping[str, Interval]) -> Spec:
    """A dot and its interval per model, best at the top."""
    names = sorted(rates, key=lambda model: -rates[model].value)
    rows = [
        {
            "model": model,
            "chosen": 100 * rates[model].value,
            "low": 100 * (rates[model].low or 0),
            "n": rates[model].n,
        }
        | {"high": 100 * (1 if (high := rates[model].high) is None else high)}
        for model in names
    ]
    return dots_figure(rows, names, "model", "chosen", "chosen in its pairs, %")


def dots_figure(rows: list[dict[str, Any]], names: list[str], who: str, what: str, title: str) -> Spec:
    """A dot between `low` and `high` for each, in per cent, beside a line at 50."""
    y = name(who, names, axis={"labelPadding": 8, "grid": False})
    scale, ticks = {"domain": [0, 100]}, {"tickCount": 5}
    told = [name(who), *(number(field, format=".1f") for field in (what, "low", "high")), number("n")]
    return {
        "width": WIDTH,
        "height": {"step": 28},
        "layer": [
            {
                "data": values([{"half": 50}]),
                "mark": {"type": "rule", "color": MUTED, "strokeDash": [4, 4]},
                "encoding": {"x": number("half", title)},
            },
            {
                "data": values(rows),
                "mark": {"type": "rule", "color": COLORS[0], "strokeWidth": 3, "opacity": 0.5},
                "encoding": {
                    "x": number("low", title, scale=scale, axis=ticks),
                    "x2": {"field": "high"},
                    "y": y,
                    "tooltip": told,
                },
            },
            {
                "data": values(rows),
                "mark": {"type": "circle", "color": COLORS[0], "size": 70, "opacity": 1},
                "encoding": {"x": number(what, title, scale=scale), "y": y, "tooltip": told},
            },
        ],
    }


def lengths_figure(points: Sequence[LengthPoint], order: Sequence[str]) -> Spec:
    """Score over length, a dot per completion. `order` gives the models their colours, as in the scores."""
    found = {point.model for point in points}
    names = [*(model for model in order if model in found), *sorted(found - set(order))]
    every = [*order, *(model for model in names if model not in order)]
    places = [every.index(model) for model in names]
    rows = [
        {"model": model, "characters": point.length, "score": round(point.score, 4)}
        for model in names
        for point in _sample([point for point in points if point.model == model], MOST_POINTS // len(names))
    ]
    log = min(point.length for point in points) > 0
    return {
        "width": WIDTH - 120,
        "height": 260,
        "data": values(rows),
        "params": [{"name": "only", "select": {"type": "point", "fields": ["model"]}, "bind": "legend"}],
        "mark": {"type": "point", "filled": True, "size": 26},
        "encoding": {
            "x": number(
                "characters",
                "length of the answer, characters",
                scale={"type": "log", "nice": True} if log else {},
                axis={"tickCount": 6, "format": ",d", "labelOverlap": True},
            ),
            "y": number("score", "score, points", scale={"zero": False}),
            "color": name("model", names, scale={"domain": names, "range": [COLORS[i % 8] for i in places]}),
            "shape": name("model", names, scale={"domain": names, "range": [SHAPES[i % 8] for i in places]}),
            "opacity": {"condition": {"param": "only", "value": 0.6}, "value": 0.04},
            "tooltip": [name("model"), number("characters"), number("score", format=".3f")],
        },
    }


def margins_figure(margins: Sequence[float]) -> Spec:
    """How many pairs have which margin."""
    import numpy as np

    count = min(40, max(8, round(len(margins) ** 0.5)))
    pairs, edges = np.histogram(list(margins), bins=count, range=(min(0.0, *margins), max(margins) or 1.0))
    rows = [
        {"pairs": int(n), "from": round(float(low), 4), "to": round(float(high), 4)}
        for n, low, high in zip(pairs, edges[:-1], edges[1:], strict=True)
    ]
    return {
        "width": WIDTH,
        "height": 180,
        "data": values(rows),
        "mark": {"type": "bar", "color": COLORS[0], "opacity": 0.8, "stroke": "var(--paper)"},
        "encoding": {
            "x": number("from", "margin, points", scale={"nice": False}),
            "x2": {"field": "to"},
            "y": number("pairs", "pairs", axis={"tickMinStep": 1}),
            "tooltip": [number(field) for field in ("pairs", "from", "to")],
        },
    }


def training_figure(training: Training) -> Spec:
    """A panel per metric; what is measured on held-out rows is drawn over it."""
    panels: dict[str, list[dict[str, Any]]] = {}
    for curve in training.curves:
        of = "held out" if curve.metric.startswith("eval_") else "train"
        rows = [
            {"step": step, "value": value, "of": of}
            for step, value in _sample(curve.points, MOST_POINTS // 3)
        ]
        panels.setdefault(curve.metric.removeprefix("eval_"), []).extend(rows)
    found = {metric: rows for metric, rows in panels.items() if rows}
    columns = 2 if len(found) in (2, 4) else min(3, len(found))
    return {
        "columns": columns,
        "concat": [
            lines_panel(metric, rows, "step", "optimizer step", {1: 340, 2: 260, 3: 170}[columns])
            for metric, rows in found.items()
        ],
    }


def lines_panel(
    title: str, rows: list[dict[str, Any]], across: str, says: str, width: int, **scale: Any
) -> Spec:
    """A line for each `of`, with a dot that answers at each of its points."""
    kinds = list(dict.fromkeys(row["of"] for row in rows))
    color = name("of", kinds, scale={"domain": kinds, "range": COLORS[: len(kinds)]})
    if len(kinds) == 1:
        color["legend"] = None
    return {
        "title": title,
        "width": width,
        "height": 140,
        "data": values(rows),
        "encoding": {
            "x": number(across, says, axis={"tickCount": 4, "labelOverlap": True}, scale={"nice": False}),
            "y": number("value", axis={"tickCount": 5, "format": "~g"}, scale={"zero": False, **scale}),
            "color": color,
            "strokeDash": name(
                "of", kinds, legend=None, scale={"domain": kinds, "range": [[1, 0], [5, 3], [2, 2]]}
            ),
            "tooltip": [name("of"), number(across, format=",.4~g"), number("value", format=".4~g")],
        },
        "layer": [
            {"mark": {"type": "line", "strokeWidth": 1.6, "clip": True}},
            {
                "mark": {
                    "type": "point",
                    "filled": True,
                    "size": 50,
                    "opacity": 0 if len(rows) > 40 else 0.8,
                    "clip": True,
                }
            },
        ],
        "resolve": {"legend": {"color": "independent"}},
    }


def load_figure(series: Sequence[tuple[float, ...]]) -> Spec:
    """What ran, waited and was allowed at one model over time, and beside it tokens per second.

    Tokens are counted when an answer is complete, so they are shown as means over `BINS` parts of the time.
    """
    points = binned(series)
    unit, per = ("minutes", 60.0) if points[-1][0] > 180 else ("seconds", 1.0)

    def rows(**columns: int) -> list[dict[str, Any]]:
        return [
            {unit: round(point[0] / per, 3), "of": of, "value": round(point[column], 2)}
            for of, column in columns.items()
            for point in points
        ]

    most = 1.15 * min(max(p[3] for p in points), 3 * max(*(max(p[1:3]) for p in points), 1.0))
    return {
        "columns": 2,
        "concat": [
            lines_panel("requests", rows(running=1, waiting=2, limit=3), unit, unit, 210, domain=[0, most]),
            lines_panel("tokens per second", rows(**{"in": 4, "out": 5}), unit, unit, 210, zero=True),
        ],
        "resolve": {
            "scale": {"color": "independent", "strokeDash": "independent"},
            "legend": {"color": "independent"},
        },
    }


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
