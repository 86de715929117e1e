"""Figures from Vega-Lite specifications: drawn here once as SVG, and by the page's script again so that they answer.

The SVG is in the page, so a figure is there on paper and without scripts. Colours are CSS variables of the page, in
both, so that one drawing serves light and dark. Vega comes with vl-convert, whose JavaScript goes into the page.
"""

import hashlib
import json
import re
from base64 import b64encode
from collections.abc import Mapping
from functools import lru_cache
from typing import Any

from markupsafe import Markup

INK, MUTED, LINE = "var(--ink)", "var(--muted)", "var(--line)"
COLORS = [f"var(--c{i})" for i in range(1, 9)]
SHAPES = ["circle", "square", "diamond", "triangle-up", "cross", "triangle-down", "triangle-right", "stroke"]
"""So that models differ without colour too."""
WIDTH = 720
"""Pixels of the plot, without its axes."""
_CONFIG: dict[str, Any] = {
    "background": None,
    "font": "sans-serif",
    "view": {"stroke": None},
    "axis": {
        "labelColor": INK, "titleColor": INK, "gridColor": LINE, "domainColor": MUTED, "tickColor": MUTED,
        "labelFontSize": 11, "titleFontSize": 11, "titleFontWeight": "normal", "labelLimit": 200,
    },
    "axisY": {"domain": False, "ticks": False},
    "legend": {"labelColor": INK, "titleColor": INK, "labelFontSize": 11, "labelLimit": 200, "title": None},
    "title": {"color": INK, "anchor": "start", "fontSize": 12},
    "header": {"labelColor": INK, "titleColor": INK},
    "concat": {"spacing": 28},
    "range": {"category": COLORS},
}  # fmt: skip
_START = """
for (const chart of document.querySelectorAll(".chart[data-spec]")) {
  const spec = JSON.parse(document.getElementById(chart.dataset.spec).textContent);
  vegaEmbed(chart, spec, {mode: "vega-lite", renderer: "svg", actions: false, ast: true, tooltip: {theme: "page"}})
    .then(() => { chart.dataset.answers = "yes"; });
}
const reach = () => { // by keyboard, what is wider than the window
  for (const box of document.querySelectorAll(".wide")) {
    if (box.scrollWidth <= box.clientWidth) continue;
    box.tabIndex = 0;
    box.setAttribute("role", "group");
    box.ariaLabel = box.querySelector("caption")?.textContent.slice(0, 80) || "Wider than the window";
  }
};
reach();
addEventListener("resize", reach);
document.addEventListener("toggle", reach, true);
"""


def chart(name: str, spec: Mapping[str, Any], says: str = "") -> Markup:
    """One figure that answers. `name` keeps its ids apart from other figures'; `says`: it in words.

    Empty where vl-convert is not installed: a run must not fail at its end for want of its figures.
    """
    drawing = svg(name, spec)
    if not drawing:
        return drawing
    data = json.dumps(_whole(spec), ensure_ascii=False).replace("<", "\\u003c")
    return Markup(
        '<div class="wide"><div class="chart" role="img" aria-label="{}" data-spec="{}-spec">{}</div></div>\n'
        '<script type="application/json" id="{}-spec">{}</script>'
    ).format(says, name, drawing, name, Markup(data))


def svg(name: str, spec: Mapping[str, Any]) -> Markup:
    """One figure as it stands, for pages without scripts."""
    try:
        import vl_convert  # pyright: ignore[reportMissingImports]
    except ImportError:
        return Markup("")
    text = vl_convert.vegalite_to_svg(_whole(spec))
    ids: dict[str, str] = {}  # Vega counts on from one figure to the next
    text = re.sub(
        r'(\bid="|url\(#|href="#)([\w-]+)',
        lambda found: found[1] + ids.setdefault(found[2], f"{name}-{len(ids)}"),
        text,
    )
    text = re.sub(r' xmlns(:xlink)?="[^"]*"', "", text)
    text = re.sub(r' (role|aria-[a-z]+)="[^"]*"', "", text)  # the figure is described as a whole
    return Markup(text.replace("<svg ", '<svg aria-hidden="true" focusable="false" ', 1))


def drawn() -> bool:
    """Whether figures can be drawn here."""
    return bool(svg("probe", {"data": {"values": [{}]}, "mark": "point"}))


@lru_cache(maxsize=1)
def script() -> Markup:
    """What makes figures answer: Vega with its embedding, and the start of it; empty where there is none."""
    try:
        import vl_convert  # pyright: ignore[reportMissingImports]
    except ImportError:
        return Markup("")
    code = vl_convert.javascript_bundle(_START)
    # a browser reads \r as \n, and then the script is not the one whose digest the page names
    return Markup(code.replace("\r", "\\r").replace("</script", "<\\/script"))


def allowed(script: str) -> Markup:
    """What a page's policy names so that this script runs and no other; none where there is none."""
    if not script:
        return Markup("'none'")
    return Markup(f"'sha256-{b64encode(hashlib.sha256(script.encode()).digest()).decode()}'")


def _whole(spec: Mapping[str, Any]) -> dict[str, Any]:
    return {"config": _CONFIG, **spec}
