"""Principles are drawn by prompt id, with the odds that were asked for."""

from collections import Counter

import pytest

from prompts.load import PromptError
from prompts.principle import draw_principle, odds_of, wordings

NAMES = ("helpfulness", "truthfulness", "honesty", "harmlessness", "verbalized_calibration", "brief")


@pytest.mark.parametrize("name", NAMES)
def test_every_principle_has_wordings_that_are_not_empty(name: str):
    assert all(wordings(name)) and len(set(wordings(name))) == len(wordings(name))


def test_no_principle_is_no_draw():
    assert draw_principle(None, "ab", 0) is None


def test_one_name_always_gives_that_principle_and_all_its_wordings_occur():
    drawn = [draw_principle("helpfulness", f"id{i}", 0) for i in range(100)]
    assert {d.name for d in drawn if d} == {"helpfulness"}
    assert {d.text for d in drawn if d} == set(wordings("helpfulness"))


def test_a_draw_depends_on_id_and_seed_alone():
    odds = {"honesty": 1.0, "truthfulness": 1.0, "brief": 1.0}
    ids = [f"id{i}" for i in range(50)]
    first = {i: draw_principle(odds, i, 7) for i in ids}
    again = {i: draw_principle(dict(reversed(odds.items())), i, 7) for i in reversed(ids)}
    assert first == again
    assert first != {i: draw_principle(odds, i, 8) for i in ids}
    assert first != {i: draw_principle(odds, i, 7, "another-model") for i in ids}


def test_the_odds_are_kept():
    odds = odds_of("ultrafeedback/readme", "ultrachat")
    drawn = Counter(p.name for i in range(5000) if (p := draw_principle(odds, f"id{i}", 0)))
    assert {name: pytest.approx(n / 5000, abs=0.03) for name, n in drawn.items()} == odds


@pytest.mark.parametrize("variant", ["readme", "code"])
@pytest.mark.parametrize(
    "source", ["evol_instruct", "sharegpt", "ultrachat", "flan", "truthful_qa", "false_qa"]
)
def test_ultrafeedbacks_odds_sum_to_one_and_name_principles_that_exist(source: str, variant):
    odds = odds_of(f"ultrafeedback/{variant}", source)
    assert sum(odds.values()) == pytest.approx(1)
    assert set(odds) <= set(NAMES)


def test_readme_and_code_differ_where_ultrafeedbacks_do():
    differ = {
        s
        for s in ("evol_instruct", "sharegpt", "ultrachat", "flan", "truthful_qa", "false_qa")
        if odds_of("ultrafeedback/readme", s) != odds_of("ultrafeedback/code", s)
    }
    assert differ == {"flan", "truthful_qa", "false_qa"}


@pytest.mark.parametrize(
    ("principle", "message"),
    [
        ("helpfullness", "did you mean 'principles/helpfulness'"),
        ({"helpfulness": 1.0, "honestly": 0.1}, "did you mean 'principles/honesty'"),
        ({"helpfulness": 0.0}, "odds 0.0, wanted a number above 0"),
        ({"helpfulness": float("nan")}, "odds nan, wanted a number above 0"),
        ({}, "names nothing to draw"),
        ("../judges/rating", "has slots"),
    ],
)
def test_a_principle_that_cannot_be_drawn_says_why(principle, message: str):
    with pytest.raises(PromptError, match=message):
        draw_principle(principle, "ab", 0)
