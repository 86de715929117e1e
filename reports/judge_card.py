"""A judge's card as one HTML file, readable offline and on paper. Start at `render_card`."""

from typing import TYPE_CHECKING, Any

from markupsafe import Markup

from reports.draw import INK, MUTED, color, rows, svg
from reports.page import fill

if TYPE_CHECKING:
    from matplotlib.figure import Figure

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
    found = {name: own["decided"] for name, own in named.items() if own["decided"]}

    def paint(figure: "Figure") -> None:
        axes = figure.subplots()
        axes.axvline(50, color=MUTED, linewidth=1, linestyle="--")
        for i, rate in enumerate(found.values()):
            look = color(0) if i == 0 else MUTED
            axes.plot([100 * rate["low"], 100 * rate["high"]], [i, i], color=look, linewidth=2.5, alpha=0.5)
            axes.plot(100 * rate["value"], i, "o", color=look, markersize=7)
        rows(axes, list(found))
        axes.set_xlim(-3, 103)
        axes.set_xlabel("right winner, %")

    return svg("accuracy", 7.0, 0.9 + 0.34 * max(1, len(found)), paint)


def reliability_figure(bins: list[dict[str, Any]]) -> Markup:
    """How often the judge is right over how sure it is; a calibrated judge lies on the line."""

    def paint(figure: "Figure") -> None:
        axes = figure.subplots()
        axes.plot([50, 100], [50, 100], color=MUTED, linewidth=1, linestyle="--")
        most = max(one["right"]["n"] for one in bins)
        for one in bins:
            x, right = 100 * one["confidence"], one["right"]
            axes.plot([x, x], [100 * right["low"], 100 * right["high"]], color=color(0), alpha=0.4)
            size = 3 + 7 * (right["n"] / most) ** 0.5
            axes.plot(x, 100 * right["value"], "o", color=color(0), markersize=size, markeredgecolor=INK)
        axes.set_xlim(48, 102)
        axes.set_ylim(-3, 103)
        axes.grid()
        axes.set_xlabel("how sure the judge is of its winner, %")
        axes.set_ylabel("how often it is right, %")

    return svg("reliability", 5.0, 3.6, paint)


def margins_figure(margins: list[dict[str, Any]]) -> Markup:
    """What a minimum margin leaves, and how good it is."""

    def paint(figure: "Figure") -> None:
        axes = figure.subplots()
        for i, (name, says) in enumerate((("usable", "pairs left"), ("right", "right, of those left"))):
            points = [(one["margin"], one[name]) for one in margins if one[name]]
            xs = [x for x, _ in points]
            axes.plot(xs, [100 * r["value"] for _, r in points], "-o", color=color(i), label=says)
            lows, highs = ([100 * r[end] for _, r in points] for end in ("low", "high"))
            axes.fill_between(xs, lows, highs, color=color(i), alpha=0.15, linewidth=0)
        axes.set_ylim(-3, 103)
        axes.grid()
        axes.set_xlabel("minimum margin, on the scale 0 to 1")
        axes.set_ylabel("%")
        axes.legend(loc="upper left", bbox_to_anchor=(1.0, 1.0))

    return svg("margins", 7.0, 3.2, paint)
