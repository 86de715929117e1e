"""Figures as inline SVG whose colours the page's CSS decides, so that one drawing serves light and dark.

matplotlib draws in placeholder colours; `svg` puts `currentColor` and CSS variables in their place.
"""

import io
import re
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from markupsafe import Markup

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

INK, MUTED, GRID = "#010101", "#020202", "#030303"
SERIES = tuple(f"#0a0a{i:02x}" for i in range(1, 9))
"""Eight colours, one per model."""
MARKERS = "osD^vPX*"
"""So that models differ without colour too."""
_CSS = {INK: "currentColor", MUTED: "var(--muted)", GRID: "var(--line)"} | {
    color: f"var(--c{i})" for i, color in enumerate(SERIES, start=1)
}
_STYLE: dict[Any, Any] = {
    "svg.fonttype": "none",  # text stays text: selectable, in the page's font
    "svg.hashsalt": "zephyr",  # the same figure is the same bytes
    "font.family": "sans-serif",
    "font.sans-serif": ["DejaVu Sans"],
    "font.size": 9.5,
    "text.color": INK,
    "axes.labelcolor": INK,
    "axes.edgecolor": MUTED,
    "axes.titlesize": 10,
    "axes.titleweight": "bold",
    "axes.titlelocation": "left",
    "axes.linewidth": 0.6,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.axisbelow": True,
    "xtick.color": MUTED,
    "ytick.color": MUTED,
    "xtick.labelcolor": INK,
    "ytick.labelcolor": INK,
    "grid.color": GRID,
    "grid.linewidth": 0.6,
    "legend.frameon": False,
}


def svg(name: str, width: float, height: float, paint: Callable[["Figure"], None]) -> Markup:
    """One figure, `width` by `height` inches. `name` keeps its ids apart from those of other figures."""
    import matplotlib
    from matplotlib.figure import Figure

    with matplotlib.rc_context(_STYLE):
        figure = Figure(figsize=(width, height), layout="constrained")
        paint(figure)
        out = io.StringIO()
        nothing = dict.fromkeys(("Creator", "Date", "Format", "Type"))
        figure.savefig(out, format="svg", transparent=True, metadata=nothing)
    text = out.getvalue()
    text = text[text.index("<svg") :]
    for placeholder, color in _CSS.items():
        text = text.replace(placeholder, color)
    text = re.sub(r'(\bid="|url\(#|href="#)', rf"\g<1>{name}-", text)
    text = re.sub(r"'DejaVu Sans'(, sans-serif)?", "inherit", text)
    text = re.sub(r' xmlns(:xlink)?="[^"]*"', "", text)
    text = re.sub(r'<svg [^>]*viewBox="([^"]*)"[^>]*>', _opening(width), text, count=1)
    return Markup(text)


def _opening(width: float) -> str:
    return rf'<svg viewBox="\1" style="max-width: {width * 96:.0f}px" aria-hidden="true" focusable="false">'


def color(index: int) -> str:
    return SERIES[index % len(SERIES)]


def marker(index: int) -> str:
    return MARKERS[index % len(MARKERS)]


def rows(axes: "Axes", names: list[str]) -> None:
    """Label horizontal rows 0, 1, … with `names`, the first at the top."""
    axes.set_yticks(range(len(names)), [_short(name) for name in names])
    axes.set_ylim(len(names) - 0.5, -0.5)
    axes.tick_params(axis="y", length=0)
    axes.spines["left"].set_visible(False)
    axes.grid(axis="x")


def _short(name: str) -> str:
    """A name that leaves room for the figure; `$` would start a formula."""
    return (name if len(name) <= 28 else f"{name[:27]}…").replace("$", r"\$")
