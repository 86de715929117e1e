"""The report in a real browser: its figures answer, it loads nothing, and nothing runs that is not its own."""

from collections.abc import Iterator
from pathlib import Path

import pytest

from reports.data import LengthPoint
from reports.page import render
from tests.accessible import AXE, axe_barriers, barriers
from tests.browser import Page, browser
from tests.reports.figures import READY, needs_vega
from tests.reports.realistic import realistic

ATTACK = "<img src=x onerror=\"document.title = 'broken in'\"><script>document.title = 'broken in'</script>"


@pytest.fixture(scope="module")
def page() -> Iterator[Page]:
    with browser() as opened:
        yield opened


@pytest.fixture(scope="module")
def content() -> str:
    return render(realistic())


def point_at_an_answer(page: Page) -> None:
    """Put the pointer on a dot of the scatter of scores over lengths, and wait for what it says."""
    chart = "document.querySelector('[data-spec=lengths-spec]')"
    page.run(f"{chart}.scrollIntoView({{behavior: 'instant'}})")
    box = f"{chart}.querySelector('.mark-symbol path').getBoundingClientRect()"
    x, y = page.run(
        f"(() => {{ const box = {box}; return [box.x + box.width / 2, box.y + box.height / 2]; }})()"
    )
    page.send("Input.dispatchMouseEvent", type="mouseMoved", x=x, y=y)
    page.until("document.querySelector('#vg-tooltip-element.visible') !== null")


def show(page: Page, folder: Path, content: str) -> None:
    file = folder / "report.html"
    file.write_text(content, encoding="utf-8")
    page.go(file.as_uri())
    page.until(READY)


@needs_vega
def test_figures_answer_and_take_the_readers_colours_and_everybody_can_use_them(
    page: Page, tmp_path: Path, content: str
):
    for dark, width in ((False, 1100), (True, 380)):
        page.look(dark=dark, width=width)
        show(page, tmp_path, content)
        assert barriers(page) == []
        assert page.run("document.documentElement.scrollWidth <= innerWidth"), "scrolls sideways"
        ink = page.run("getComputedStyle(document.querySelector('.chart svg text')).fill")
        assert ink == page.run("getComputedStyle(document.body).color")
    page.look()
    show(page, tmp_path, content)
    point_at_an_answer(page)
    assert "score" in page.run("document.querySelector('#vg-tooltip-element').innerText")
    assert page.console == [] and page.loaded() == []


@needs_vega
def test_what_a_model_wrote_does_not_run_in_a_figure_or_beside_it(page: Page, tmp_path: Path):
    data = realistic()
    points = tuple(LengthPoint(model=ATTACK, length=p.length, score=p.score) for p in data.lengths[:50])
    hostile = data.model_copy(update={"lengths": points, "scores": {ATTACK: (1.0, 2.0)}, "title": "Hostile"})
    page.look()
    show(page, tmp_path, render(hostile))
    point_at_an_answer(page)
    assert page.run("document.title") == "Hostile"
    assert page.run("document.querySelectorAll('img').length") == 0


@needs_vega
def test_on_paper_it_is_light_whole_and_without_a_menu(page: Page, tmp_path: Path, content: str):
    page.look(dark=True, paper=True)
    show(page, tmp_path, content)
    assert page.run("getComputedStyle(document.body).backgroundColor") in (
        "rgb(255, 255, 255)",
        "rgba(0, 0, 0, 0)",
    )
    assert page.run("getComputedStyle(document.querySelector('nav')).display") == "none"
    assert page.run("getComputedStyle(document.querySelector('.text')).maxHeight") == "none"
    assert page.run(
        "[...document.querySelectorAll('.chart svg')].every((one) => one.getBoundingClientRect().width > 0)"
    )


@needs_vega
@pytest.mark.skipif(
    not AXE.exists(), reason="no axe-core: make axe fetches it, or ZEPHYR_AXE says where it is"
)
def test_axe_finds_nothing(page: Page, tmp_path: Path, content: str):
    for dark in (False, True):
        page.look(dark=dark)
        show(page, tmp_path, content)
        assert axe_barriers(page) == []
