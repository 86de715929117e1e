"""What a page must have so that everybody can use it: the essentials by our own script, and axe-core where it is.

axe-core is fetched by `make axe` and found through `ZEPHYR_AXE` or in `.cache/`; it is not part of the repository.
"""

import os
from pathlib import Path

from tests.browser import Page

AXE = Path(os.environ.get("ZEPHYR_AXE", Path(__file__).parent.parent / ".cache/axe.min.js"))

ESSENTIALS = r"""
(() => {
  const found = [];
  const all = (what) => [...document.querySelectorAll(what)];
  const seen = (node) => node.checkVisibility({visibilityProperty: true, contentVisibilityAuto: true});
  if (!document.documentElement.lang) found.push("no language");
  if (!document.title.trim()) found.push("no title");
  if (all("main, [role=main]").length !== 1) found.push("not one main landmark");
  if (all("h1").length !== 1) found.push("not one h1");
  let last = 0;
  for (const h of all("h1, h2, h3, h4, h5, h6")) {
    const level = +h.tagName[1];
    if (level > last + 1) found.push(`h${level} after h${last}: ${h.textContent.slice(0, 40)}`);
    last = level;
  }
  const ids = all("[id]").map((n) => n.id);
  for (const id of new Set(ids)) if (ids.filter((i) => i === id).length > 1) found.push(`id ${id} twice`);
  for (const node of all("input:not([type=hidden]), select, textarea"))
    if (!node.labels.length && !node.ariaLabel) found.push(`no label: ${node.outerHTML.slice(0, 80)}`);
  for (const node of all("a[href], button, summary"))
    if (!(node.ariaLabel || node.textContent.trim())) found.push(`no name: ${node.outerHTML.slice(0, 80)}`);
  for (const node of all("table")) if (!node.querySelector("th[scope]")) found.push("a table without headings");
  for (const node of all("img, [role=img]"))
    if (!(node.alt || node.ariaLabel)) found.push(`no description: ${node.outerHTML.slice(0, 80)}`);
  for (const node of all("body *:not(svg, svg *, script)"))
    if (seen(node) && /auto|scroll/.test(getComputedStyle(node).overflowY + getComputedStyle(node).overflowX) &&
        (node.scrollHeight > node.clientHeight + 1 || node.scrollWidth > node.clientWidth + 1) && node.tabIndex < 0 &&
        !node.querySelector("a, button, [tabindex]"))
      found.push(`scrolls, and not by keyboard: ${node.outerHTML.slice(0, 80)}`);

  const canvas = document.createElement("canvas").getContext("2d", {willReadFrequently: true});
  const known = new Map();
  const rgba = (color) => known.get(color) ?? known.set(color, drawn(color)).get(color);
  const drawn = (color) => {
    canvas.clearRect(0, 0, 1, 1); canvas.fillStyle = color; canvas.fillRect(0, 0, 1, 1);
    return [...canvas.getImageData(0, 0, 1, 1).data];
  };
  const light = ([r, g, b]) => [r, g, b].map((c) => c / 255)
    .map((c) => c <= 0.04045 ? c / 12.92 : ((c + 0.055) / 1.055) ** 2.4)
    .reduce((sum, c, i) => sum + c * [0.2126, 0.7152, 0.0722][i], 0);
  const behind = (node) => {
    for (; node; node = node.parentElement) {
      const color = rgba(getComputedStyle(node).backgroundColor);
      if (color[3] === 255) return color;
    }
    return [255, 255, 255, 255];
  };
  const walk = document.createTreeWalker(document.body, NodeFilter.SHOW_TEXT);
  while (walk.nextNode()) {
    const node = walk.currentNode.parentElement;
    if (!walk.currentNode.data.trim() || !seen(node) || node.closest("script, style")) continue;
    const style = getComputedStyle(node);
    const ink = rgba(node.closest("svg") ? style.fill : style.color);
    const [a, b] = [light(ink), light(behind(node))].sort((x, y) => y - x);
    const big = parseFloat(style.fontSize) >= 24 || (parseFloat(style.fontSize) >= 18.66 && +style.fontWeight >= 700);
    const ratio = (a + 0.05) / (b + 0.05);
    const text = walk.currentNode.data.trim().slice(0, 40);
    if (ratio < (big ? 3 : 4.5)) found.push(`contrast ${ratio.toFixed(1)}: ${text}`);
  }
  return [...new Set(found)];
})()
"""
OPEN = "document.querySelectorAll('details').forEach((one) => { one.open = true; })"
RUN_AXE = """axe.run(document, {runOnly: ['wcag2a', 'wcag2aa', 'wcag21a', 'wcag21aa', 'wcag22aa', 'best-practice']})
  .then((found) => found.violations.map((one) => `${one.id}: ${one.help}: ${one.nodes[0].html.slice(0, 120)}`))"""
FOCUSED = """(() => { const node = document.activeElement;
  if (node === document.body || node.tabbed) return '';
  node.tabbed = true;
  return (node.id || node.textContent || node.outerHTML).trim().slice(0, 60); })()"""


def barriers(page: Page) -> list[str]:
    """What stands in somebody's way on the page that is open, by the essentials; everything that folds is unfolded."""
    page.run(OPEN)
    return page.run(ESSENTIALS)


def axe_barriers(page: Page) -> list[str]:
    """The same by axe-core, at WCAG 2.2 level AA and its best practices."""
    page.run(OPEN)
    page.run(AXE.read_text(encoding="utf-8") + "; 0")
    return page.run(RUN_AXE)


def tabbed(page: Page, most: int = 300) -> list[str]:
    """What the Tab key reaches, in its order, from the top of the page until it comes round."""
    found: list[str] = []
    for _ in range(most):
        page.press("Tab")
        focused = page.run(FOCUSED)
        if not focused:
            break
        found.append(focused)
    return found
