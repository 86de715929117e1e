"""Pictures of the viewer and the report for these pages: `make screenshots`. Needs a Chromium.

They show a small made-up run, which takes no model and no minute to make.
"""

import tempfile
from pathlib import Path

from reports.page import render
from serving.chat import Request
from tests.browser import Page, browser
from tests.reports.figures import READY
from tests.reports.realistic import realistic
from tests.view.stored_run import served, stored_run

IMAGES = Path(__file__).parent / "images"
ANSWERS = {
    "Name three uses of a brick.": ("To build a wall, to hold a door, to weigh down a lid.", "Walls."),
    "Why is the sky blue?": (
        "Air scatters short, blue wavelengths of sunlight more than long, red ones.",
        "Because it mirrors the sea, which is blue, as everybody knows who has been there.",
    ),
    "Tell a child what a glacier is.": (
        "A very slow river of ice.",
        "A glacier is a persistent body of dense ice that is constantly moving under its own weight.",
    ),
    "How do I thank a neighbour?": ("Bake something and bring it over.", "With words, in person, and soon."),
    "Explain tides in a sentence.": ("The moon pulls the sea.", "The sea goes up and down twice every day."),
    "Give a tip for tired eyes.": ("Look far away every twenty minutes.", "Sleep more and look at less."),
    "What is a haiku?": (
        "A short poem of three lines.",
        "A Japanese poem, usually about nature, of three lines.",
    ),
    "Name a fruit and its season.": (
        "Apples ripen in autumn.",
        "Strawberries, and they are ripe in June or so.",
    ),
}


def write(request: Request, number: int) -> str:
    """The plain answer from the cool sampler, the other from the hot one."""
    both = ANSWERS[request.messages[-1]["content"]]
    return both[0 if request.temperature < 1 else 1]


def take(page: Page, url: str, name: str, height: int, *, dark: bool = False) -> None:
    page.look(dark=dark, width=1000, height=height)
    page.go(url)
    page.until(READY)
    page.run("location.hash && document.querySelector(location.hash).scrollIntoView({behavior: 'instant'})")
    page.run("document.querySelectorAll('.chosen details').forEach((one) => { one.open = true; })")
    page.picture(IMAGES / f"{name}.png")


def main() -> None:
    IMAGES.mkdir(exist_ok=True)
    with tempfile.TemporaryDirectory() as folder, browser() as page:
        run = stored_run(Path(folder), write=write, asks=list(ANSWERS), name="demo")
        with served(run) as (url, _):
            take(page, f"{url}/", "view-pairs", 620)
            page.run("document.querySelector('main td a').click()")
            first = page.run("document.querySelector('main td a')?.href ?? location.href")
            take(page, first, "view-prompt", 760)
            take(page, f"{url}/label?queue=any", "view-label", 480, dark=True)
        report = Path(folder) / "report.html"
        report.write_text(render(realistic()), encoding="utf-8")
        take(page, f"{report.as_uri()}#scores", "report", 900)


if __name__ == "__main__":
    main()
