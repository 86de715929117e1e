"""Prompts of benchmarks and near copies are left out before anything is asked, and counted with the reason."""

import json
from pathlib import Path
from typing import Any

import pytest

from flows.inputs import gather_prompts
from flows.preferences import build_preferences
from flows.recipe import Recipe
from flows.run import Run
from prompts.load import PromptError
from tests.fake_model import fake_model
from tests.flows.fakes import answer, is_judging, recipe

QUESTION = (
    "Compose an engaging travel blog post about a recent trip to Hawaii, highlighting cultural experiences."
)
CLEAN = [
    f"Describe the {thing} of a small town in spring." for thing in ("market", "harbour", "station", "school")
]


def rows(path: Path, texts: list[str], column: str = "prompt") -> Path:
    path.write_text("".join(json.dumps({column: text}) + "\n" for text in texts))
    return path


def cleaned(
    tmp_path: Path, texts: list[str], cleaning: dict[str, Any], url: str = "http://127.0.0.1:1/v1"
) -> Recipe:
    rules = {"kind": "rating", "model": "fake", "aspects": ["quality"]}
    return recipe(url, rows(tmp_path / "prompts.jsonl", texts), judge=rules, cleaning=cleaning)


def test_benchmark_lists_of_every_form_are_read(tmp_path: Path):
    lists = {
        "mt_bench": (
            tmp_path / "question.jsonl",
            json.dumps({"question_id": 81, "turns": [QUESTION, "Now shorter."]}),
        ),
        "alpaca_eval": (
            tmp_path / "alpaca.json",
            json.dumps([{"instruction": "Who wrote Hamlet?", "output": "S."}]),
        ),
        "arena_hard": (tmp_path / "arena.jsonl", json.dumps({"turns": [{"content": "Plan a garden."}]})),
        "ifeval": (tmp_path / "ifeval.jsonl", json.dumps({"key": 1, "prompt": "Write without commas."})),
    }
    for path, text in lists.values():
        path.write_text(text + "\n")
    texts = [
        "now shorter",
        "Who wrote Hamlet",
        "plan a GARDEN",
        "write without commas!",
        f"Please: {QUESTION}",
        *CLEAN,
    ]
    cleaning = {"benchmarks": [{"name": name, "file": str(path)} for name, (path, _) in lists.items()]}
    prompts, dropped = gather_prompts(Run.at(cleaned(tmp_path, texts, cleaning), tmp_path))
    assert [p.text for p in prompts] == CLEAN
    assert [(d.reason, d.detail.split(":")[0]) for d in dropped] == [
        ("contaminated", "mt_bench, exact"),
        ("contaminated", "alpaca_eval, exact"),
        ("contaminated", "arena_hard, exact"),
        ("contaminated", "ifeval, exact"),
        ("contaminated", "mt_bench, ngram"),
    ]


def test_near_copies_name_what_they_are_near_and_the_first_stays(tmp_path: Path):
    long = " ".join(f"word{i}" for i in range(40))
    texts = [long, *CLEAN, long.replace("word20", "other"), long.upper() + "!"]
    run = Run.at(cleaned(tmp_path, texts, {"near_duplicates": 0.7}), tmp_path)
    prompts, dropped = gather_prompts(run)
    assert [p.text for p in prompts] == [long, *CLEAN]
    first = next(iter(prompts)).id
    assert [(d.reason, d.detail) for d in dropped] == [
        ("near_duplicate", f"0.85 of {first}"),
        ("near_duplicate", f"1.00 of {first}"),
    ]


async def test_what_is_left_out_is_never_asked_and_stands_in_the_card(tmp_path: Path):
    benchmark = rows(tmp_path / "truthful.jsonl", [QUESTION], "question")
    texts = [QUESTION, *CLEAN, CLEAN[0].upper()]
    cleaning = {"benchmarks": [{"name": "truthful_qa", "file": str(benchmark)}], "near_duplicates": 0.8}
    with fake_model(answer) as fake:
        settings = cleaned(tmp_path, texts, cleaning, fake.url)
        summary = await build_preferences(settings, tmp_path)
        asked = {body["messages"][-1]["content"] for body in fake.asked if not is_judging(body)}
        assert asked == set(CLEAN)
        fake.asked.clear()
        again = await build_preferences(settings, tmp_path)
        assert not fake.asked and again["dataset"]["digest"] == summary["dataset"]["digest"]
    assert summary["prompts"] == {"rows": 4, "dropped": {"contaminated": 1, "near_duplicate": 1}}
    card = (tmp_path / "flowtest/dataset/README.md").read_text()
    assert "| truthful_qa: the same text, or 13 words in a row | 1 |" in card
    assert "| near copies (0.8 or more of the runs of three words) | 1 |" in card


def test_a_changed_list_or_setting_is_seen(tmp_path: Path):
    benchmark = rows(tmp_path / "b.jsonl", [QUESTION])
    cleaning: dict[str, Any] = {"benchmarks": [{"name": "b", "file": str(benchmark)}]}
    run = Run.at(cleaned(tmp_path, CLEAN, cleaning), tmp_path)
    assert len(gather_prompts(run)[0]) == 4
    rows(tmp_path / "b.jsonl", [QUESTION, CLEAN[2]])
    assert [p.text for p in gather_prompts(run)[0]] == [CLEAN[0], CLEAN[1], CLEAN[3]]
    assert len(gather_prompts(Run.at(cleaned(tmp_path, CLEAN, {}), tmp_path))[0]) == 4


def test_a_list_that_cannot_be_read_stops_everything(tmp_path: Path):
    odd = rows(tmp_path / "odd.jsonl", ["x"], "answer")
    with pytest.raises(PromptError, match=r"odd.jsonl line 1: no column prompt or question .* it has answer"):
        gather_prompts(
            Run.at(cleaned(tmp_path, CLEAN, {"benchmarks": [{"name": "odd", "file": str(odd)}]}), tmp_path)
        )
    with pytest.raises(ValueError, match="known names mt_bench"):
        cleaned(tmp_path, CLEAN, {"benchmarks": ["unheard_of"]})
    known = cleaned(tmp_path, CLEAN, {"benchmarks": ["ifeval"]}).cleaning.benchmarks[0]
    assert known.dataset == "google/IFEval"
