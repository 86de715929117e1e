"""Labels made by keyboard in a browser are what a judge's card is measured on."""

from pathlib import Path

import pytest

from flows.judge_card import judge_card
from flows.labels import gold_file
from flows.run import Run
from flows.subject import Subject
from tests.browser import Page, browser
from tests.view.stored_run import served, stored_run

RULES = Subject.model_validate({"name": "rules", "judge": {"kind": "rules"}})
TEXTS = "[...document.querySelectorAll('.side .text')].map((one) => one.textContent)"


def label(page: Page, count: int, *, by_the_rules: bool) -> None:
    """Press what the rules would, which want at most six words and forgive the fewer too many, or the other."""
    for _ in range(count):
        first, second = (len(text.split()) for text in page.run(TEXTS))
        assert first != second, "the rules are one of those who disagree"
        page.leave(lambda key="1" if (first < second) == by_the_rules else "2": page.press(key))


@pytest.fixture
def run(tmp_path: Path) -> Run:
    return stored_run(tmp_path, 60, shard_size=30)


async def test_twenty_disagreements_labelled_by_keyboard_update_the_judge_card(run: Run, tmp_path: Path):
    with served(run) as (url, labels), browser() as page:
        page.go(f"{url}/label")
        label(page, 10, by_the_rules=True)
        agreed = await judge_card(RULES, gold_file(run.folder), canary_items=0, out=tmp_path / "cards")
        label(page, 10, by_the_rules=False)
        assert len(labels.rows) == 20
        halved = await judge_card(RULES, gold_file(run.folder), canary_items=0, out=tmp_path / "cards")
    first, second = agreed["agreement"], halved["agreement"]
    assert (first["n"], first["decided"]["value"], first["kappa_decided"]["value"]) == (10, 1.0, 1.0)
    assert (second["n"], second["decided"]["value"]) == (20, 0.5)
    assert abs(second["kappa_decided"]["value"]) < 0.2, "half right is chance"
    assert agreed["gold"]["name"] == "labels.jsonl" and agreed["gold"]["digest"] != halved["gold"]["digest"]
    assert "labels.jsonl" in Path(halved["page"]).read_text()
