"""A judge's card as one HTML file, readable offline and on paper. Start at `render_card`."""

from typing import Any

from markupsafe import Markup

from reports.draw import COLORS, INK, MUTED, svg
from reports.page import fill
from reports.plots import dots_figure, name, number, values

PREFERENCES = {
    "longer": "the longer answer",
    "lists": "the answer with a list",
    "first": "the answer that stands first",
    "own": "the answer of the judge's own model",
}


def render_card(card: dict[str, Any]) -> str:
    """The page of a card.json's content. All text is escaped; the page loads and runs nothing."""
    figures = {"accuracy": accuracy_figure(card)}
    if card["calibration"] and card["calibration"]["bins"]:
        figures["reliability"] = reliability_figure(card["calibration"]["bins"])
    if card["margins"]:
        figures["margins"] = margins_figure(card["margins"])
    preferences = [(says, card[name]) for name, says in PREFERENCES.items() if card[name]]
    return fill(
        "judge_card.html.jinja",
        card=card,
        figures=figures,
        preferences=preferences,
        statuses=sorted({status for counts in card["statuses"].values() for status in counts}),
        figure_of=figure_of,
        signed=signed,
    )


def figure_of(estimate: dict[str, Any] | None, n: bool = False) -> str:
    """Value and interval, and `n` where no column says it: `0.612 (0.570 to 0.652), n 412`."""
    if estimate is None:
        return "–"
    value, low, high = (f"{estimate[name]:.3f}".replace("-", "−") for name in ("value", "low", "high"))
    return f"{value} ({low} to {high})" + (f", n {estimate['n']}" if n else "")


def signed(estimate: dict[str, Any] | None) -> str:
    """The same of a difference: `+0.12 (−0.01 to +0.25)`."""
    if estimate is None:
        return "–"
    value, low, high = (f"{estimate[name]:+.3f}".replace("-", "−") for name in ("value", "low", "high"))
    return f"{value} ({low} to {high})"


def accuracy_figure(card: dict[str, Any]) -> Markup:
    """Judge and baselines: the right winner, where people have one."""
    named = {"judge": card["agreement"], **card["baselines"]}
    found = {who: own["decided"] for who, own in named.items() if own["decided"]}
    rows = [
        {
            "who": who,
            "n": rate["n"],
            **{end: 100 * rate[end] for end in ("low", "high")},
            "right": 100 * rate["value"],
        }
        for who, rate in found.items()
    ]
    return svg("accuracy", dots_figure(rows, list(found), "who", "right", "right winner, %"))


def reliability_figure(bins: list[dict[str, Any]]) -> Markup:
    """How often the judge is right over how sure it is; a calibrated judge lies on the line."""
    rows = [
        {"sure": 100 * one["confidence"], "n": one["right"]["n"]}
        | {end: 100 * one["right"][end] for end in ("value", "low", "high")}
        for one in bins
    ]
    x = number("sure", "how sure the judge is of its winner, %", scale={"domain": [48, 102]})
    y = "how often it is right, %"
    spec = {
        "width": 380,
        "height": 280,
        "data": values(rows),
        "layer": [
            {
                "data": values([{"sure": 50, "value": 50}, {"sure": 100, "value": 100}]),
                "mark": {"type": "line", "color": MUTED, "strokeDash": [4, 4], "strokeWidth": 1},
                "encoding": {"x": x, "y": number("value", y, scale={"domain": [0, 100]})},
            },
            {
                "mark": {"type": "rule", "color": COLORS[0], "opacity": 0.5},
                "encoding": {"x": x, "y": number("low", y), "y2": {"field": "high"}},
            },
            {
                "mark": {"type": "circle", "color": COLORS[0], "opacity": 1, "stroke": INK},
                "encoding": {
                    "x": x,
                    "y": number("value", y),
                    "size": number("n", scale={"range": [15, 220]}, legend=None),
                },
            },
        ],
    }
    return svg("reliability", spec)


def margins_figure(margins: list[dict[str, Any]]) -> Markup:
    """What a minimum margin leaves, and how good it is."""
    rows = [
        {"margin": one["margin"], "of": says}
        | {end: 100 * one[which][end] for end in ("value", "low", "high")}
        for which, says in (("usable", "pairs left"), ("right", "right, of those left"))
        for one in margins
        if one[which]
    ]
    band = {
        "mark": {"type": "area", "opacity": 0.15},
        "encoding": {"y": number("low", "%"), "y2": {"field": "high"}},
    }
    line = {
        "mark": {"type": "line", "point": True},
        "encoding": {"y": number("value", "%", scale={"domain": [0, 100]})},
    }
    kinds = ["pairs left", "right, of those left"]
    across = {
        "x": number("margin", "minimum margin, on the scale 0 to 1"),
        "color": name("of", kinds, scale={"domain": kinds, "range": COLORS[:2]}),
    }
    return svg(
        "margins",
        {"width": 440, "height": 220, "data": values(rows), "encoding": across, "layer": [band, line]},
    )
