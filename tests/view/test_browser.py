"""The viewer in a real browser: labels by keyboard, text that must not run, and whoever uses it without a mouse."""

from collections.abc import Iterator
from pathlib import Path

import pytest

from flows.run import Run
from tests.accessible import AXE, axe_barriers, barriers, tabbed
from tests.browser import Page, browser
from tests.view.stored_run import served, stored_run

LOOKS = {"light on a desktop": (False, 1100), "dark on a phone": (True, 380)}
PRESSABLE = """[...document.querySelectorAll(
  "a[href], button, input:not([type=hidden]), select, summary, [tabindex='0']"
)].filter((node) => node.checkVisibility()).length"""


@pytest.fixture(scope="module")
def page() -> Iterator[Page]:
    with browser() as opened:
        yield opened


@pytest.fixture(scope="module")
def site(run: Run, tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """The shared run beside another one."""
    other = stored_run(tmp_path_factory.mktemp("other"), 20, judge={"kind": "rating", "model": "fake"})
    with served(run, "nobody", other.folder) as (url, _):
        yield url


def paths(url: str, page: Page) -> list[str]:
    page.go(f"{url}/?words=number 0 in")
    prompt = page.run("document.querySelector('main td a').pathname")
    return ["/", "/label", "/people", "/diff", prompt]


def test_the_keyboard_alone_labels_each_disagreement_once(tmp_path: Path, page: Page):
    run = stored_run(tmp_path, 60, shard_size=25)
    with served(run) as (url, labels):
        page.go(f"{url}/label")
        for number, key in enumerate("12341211", start=1):
            assert page.run("document.querySelector('[role=status]').textContent").startswith(f"{number} of ")
            page.leave(lambda key=key: page.press(key))
        said = [row.answers[0]["raw"] for row in labels.rows.values()]
        assert said == ["first", "second", "tie", "unsure", "first", "second", "first", "first"]
        page.leave(lambda: page.press("b"))
        assert "You said: The first." in page.run("document.querySelector('[role=status]').textContent")
        page.leave(lambda: page.press("2"))
        assert [row.answers[0]["raw"] for row in labels.rows.values()][-1] == "second" and len(
            labels.rows
        ) == 8
        page.run("document.getElementById('keys').click()")
        page.press("1")
        assert len(labels.rows) == 8, "single keys are off"
        page.go(f"{url}/people")
        assert "7 labelled pairs" in page.run("document.querySelector('caption').textContent"), (
            "one could not tell"
        )
    assert page.console == []


def test_what_a_model_wrote_never_runs(page: Page, site: str):
    page.go(f"{site}/?words=onerror")
    page.go(site + page.run("document.querySelector('main td a').pathname"))
    page.run("document.querySelectorAll('details').forEach((one) => { one.open = true; })")
    shown = page.run("document.querySelector('main').innerText")
    assert "<script>document.title = 'broken in'</script><img src=x" in shown
    assert (
        page.run("document.title") != "broken in" and page.run("document.querySelectorAll('img').length") == 0
    )
    assert page.console == []


@pytest.mark.parametrize(("dark", "width"), LOOKS.values(), ids=LOOKS.keys())
def test_no_page_has_a_barrier(page: Page, site: str, dark: bool, width: int):
    page.look(dark=dark, width=width)
    for path in paths(site, page):
        page.go(site + path)
        assert barriers(page) == [], path
        assert page.run("document.documentElement.scrollWidth <= innerWidth"), f"{path} scrolls sideways"


@pytest.mark.skipif(
    not AXE.exists(), reason="no axe-core: make axe fetches it, or ZEPHYR_AXE says where it is"
)
def test_axe_finds_nothing(page: Page, site: str):
    for dark in (False, True):
        page.look(dark=dark)
        for path in paths(site, page):
            page.go(site + path)
            assert axe_barriers(page) == [], path


def test_everything_that_can_be_pressed_is_reached_by_the_tab_key(page: Page, site: str):
    page.look()
    for path in ("/?page=2", "/label", paths(site, page)[-1]):
        page.go(site + path)
        wanted = page.run(PRESSABLE)
        reached = tabbed(page)
        assert reached[0] == "Skip to the content" and len(reached) == wanted > 6, path


def test_a_page_that_has_a_barrier_is_found_out(page: Page):
    """The checks can fail."""
    page.go(
        "data:text/html,<html><body style='background:white'><h3>No first heading</h3><input>"
        "<p style='color:%23aaa'>pale</p><button></button>"
    )
    found = " ".join(barriers(page))
    for wanted in (
        "no language",
        "no title",
        "main landmark",
        "one h1",
        "h3 after h0",
        "no label",
        "contrast 2.3: pale",
        "no name",
    ):
        assert wanted in found
