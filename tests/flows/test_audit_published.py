"""Planted defects are found, each one and no other, and pairing anew changes the rows that have one."""

import json
from collections.abc import Sequence
from html import unescape
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq
import pytest
from typer.testing import CliRunner

from flows.audit_published import audit_published, audit_text
from flows.cli import app
from flows.imports import import_dataset
from flows.preferences import build_preferences
from flows.recipe_file import load_recipe
from records.ids import prompt_id
from records.schema import Message
from tests.ultrafeedback_file import annotated, clean, sentence, write

BENCHMARK = sentence(-1, length=40)


def id_of(row: dict[str, Any]) -> str:
    return prompt_id([Message(role="user", content=row["instruction"])])


def first_best(row: dict[str, Any]) -> int:
    """The place that list order gives: the first of the highest overall scores."""
    scores = [one["overall_score"] for one in row["completions"]]
    return scores.index(max(score for score in scores if score is not None))


def worst(row: dict[str, Any]) -> dict[str, Any]:
    return min(row["completions"], key=lambda one: one["overall_score"])


def planted() -> tuple[list[dict[str, Any]], dict[str, set[int]]]:
    """Rows, and which of them have what."""
    rows = [clean(number) for number in range(60)]
    for number, level, critique in (
        (0, 1, "Poor."),
        (1, 2, "Poor."),
        (2, 3, "So so."),
        (3, 4, "Overall Score: 2"),
    ):
        one = worst(rows[number])
        one |= {"overall_score": 10.0, "critique": critique, "fine-grained_score": float(level)}
        one["annotations"] = annotated(level)
    rows[4]["completions"][first_best(rows[4])]["overall_score"] = 10.0  # all 5: a 10 that is one
    for one in rows[5]["completions"][1:3]:
        one["overall_score"] = 9.5
    swallowed = "Right.\n\n#### Output for Text 3\nRating: 1\nRationale: Wrong."
    rows[6]["completions"][1]["annotations"]["honesty"]["Rationale"] = swallowed
    rows[7]["completions"][1]["annotations"]["honesty"]["Rationale"] = "Right.\n\nAnd complete."
    rows[8]["completions"][2]["annotations"]["truthfulness"] = None
    worst(rows[9])["overall_score"] = None
    worst(rows[10])["overall_score"] = 12.0
    rows[11]["instruction"] = rows[30]["instruction"].upper()
    rows[30], rows[11] = rows[11], rows[30]  # the later one is the copy
    rows[31]["instruction"] = rows[12]["instruction"] + " Please."
    rows[13]["instruction"] = f"Well: {' '.join(BENCHMARK.split()[:14])}, {sentence(-2)}"
    rows[14]["instruction"] = BENCHMARK.upper() + "!"
    rows[15]["source"] = "truthful_qa"
    rows[16]["completions"][first_best(rows[16])]["response"] = " \n"
    others = [one for i, one in enumerate(rows[17]["completions"]) if i != first_best(rows[17])]
    others[1]["response"] = others[0]["response"]
    rows[18]["completions"][first_best(rows[18])]["response"] = "I'm sorry, but I cannot help with that."
    rows[19]["completions"][0]["fine-grained_score"] = 3.25
    worst(rows[20])["response"] = "As an AI language model, I do not travel."
    rows[21]["completions"][0]["critique"] = "Well done. Overall score: 6"
    rows[22]["completions"][0]["annotations"]["honesty"]["Rating"] = "N/A"
    helpful = rows[22]["completions"][0]["annotations"]["helpfulness"]["Rating"]
    rows[22]["completions"][0]["fine-grained_score"] = float(helpful)
    return rows, {
        "wrong_ten": {0, 1, 3},
        "doubtful_ten": {2},
        "tie_at_top": {5},
        "shifted_ratings": {6},
        "blank_line": {7},
        "missing_rating": {8},
        "missing_score": {9},
        "off_scale": {10},
        "duplicate": {30},
        "near_duplicate": {31},
        "contaminated": {13, 14, 15},
        "empty_answer": {16},
        "same_answers": {17},
        "refusal_chosen": {18},
        "refusal": {18, 20},
        "other_mean": {19},
        "other_score_in_critique": {21},
    }


def files(tmp_path: Path) -> tuple[list[dict[str, Any]], dict[str, set[int]], str, str]:
    rows, defects = planted()
    benchmark = tmp_path / "benchmark.jsonl"
    benchmark.write_text(json.dumps({"prompt": BENCHMARK}) + "\n")
    return rows, defects, str(write(tmp_path / "uf.jsonl", rows)), str(benchmark)


def test_each_planted_defect_is_found_and_nothing_else(tmp_path: Path):
    rows, defects, file, benchmark = files(tmp_path)
    found = audit_published(file, [f"bench={benchmark}"], html=tmp_path / "audit.html")
    ids = {name: {id_of(rows[number]) for number in numbers} for name, numbers in defects.items()}
    assert {finding["name"]: set(finding["ids"]) for finding in found["findings"]} == ids
    assert {f["name"]: f["rows"] for f in found["findings"]} == {
        name: len(own) for name, own in defects.items()
    }
    assert set(found["clean"]).isdisjoint(ids) and not found["not_checked"]
    for finding in found["findings"]:
        for example in finding["examples"]:
            assert example["prompt_id"] in ids[finding["name"]] and example["where"].startswith(
                "uf.jsonl line"
            )
            assert example["detail"]
    page, text = unescape((tmp_path / "audit.html").read_text()), audit_text(found)
    for finding in found["findings"]:
        assert finding["title"] in page and finding["title"] in text


@pytest.mark.parametrize("aspects", ["[overall]", "[instruction_following,honesty,truthfulness,helpfulness]"])
async def test_pairing_anew_changes_exactly_the_rows_that_the_audit_names(tmp_path: Path, aspects: str):
    rows, _, file, benchmark = files(tmp_path)
    found = audit_published(file, [f"bench={benchmark}"])
    brought = import_dataset(file, "uf", tmp_path)
    cleaning = f"cleaning={{benchmarks: [{{name: bench, file: '{benchmark}'}}], near_duplicates: 0.7}}"
    settings = [f"judge.aspects={aspects}", cleaning, "prompts.0.where.origin=evol_instruct"]
    await build_preferences(load_recipe(Path(brought["recipe"]), settings), tmp_path)
    chosen = chosen_answers(tmp_path / "uf/dataset")
    published = {id_of(row): row["completions"][first_best(row)]["response"] for row in rows}
    out = ("contaminated", "duplicate", "near_duplicate")
    left_out = {id for finding in found["findings"] if finding["name"] in out for id in finding["ids"]}
    changed = {id for id, text in chosen.items() if text != published[id]}
    repaired = found["repaired"]
    if aspects == "[overall]":
        assert set(published) - set(chosen) == left_out
        assert changed - set(repaired["by_chance"]) == set(repaired["changed"]) - left_out
        numbers = {number for number, row in enumerate(rows) if id_of(row) in repaired["changed"]}
        assert numbers == {0, 1, 2, 3, 10, 16}
        assert repaired["by_chance"] == [id_of(rows[5])]
    else:
        assert set(published) - set(chosen) == left_out | {id_of(rows[6])}, "moved ratings of all its answers"
        assert len(changed) == repaired["changed_by_mean"]


def chosen_answers(dataset: Path) -> dict[str, str]:
    rows = [
        row
        for file in sorted(dataset.glob("data/*_prefs.parquet"))
        for row in pq.read_table(file).to_pylist()
    ]
    assert len({row["prompt_id"] for row in rows}) == len(rows)
    return {row["prompt_id"]: row["chosen"][-1]["content"] for row in rows}


def pair(
    question: str, chosen: str, rejected: str, scores: Sequence[float], models: Sequence[str] = ("a", "b")
):
    def said(text: str) -> list[dict[str, str]]:
        return [{"role": "user", "content": question}, {"role": "assistant", "content": text}]

    return {
        "prompt": question, "chosen": said(chosen), "rejected": said(rejected), "score_chosen": scores[0],
        "score_rejected": scores[1], "chosen_model": models[0], "rejected_model": models[1],
    }  # fmt: skip


def test_a_binarized_dataset_is_looked_through_too(tmp_path: Path):
    folder = tmp_path / "pairs"
    folder.mkdir()
    rows = [
        pair("What is rain?", "Water that falls.", "Stones.", (8, 3)),
        pair("What is snow?", "Frozen water.", "Feathers of geese.", (7, 7)),
        pair("What is hail?", "Ice, in lumps.", "Frost.", (4, 6)),
        pair("What is fog?", "A cloud.", " A  cloud. ", (6, 5)),
        pair("What is dew?", "I'm sorry, but I can't say.", "Water on grass.", (9, 2)),
        pair("What is mist?", "Thin fog.", "", (9, 2)),
    ]
    write(folder / "train_prefs.jsonl", rows)
    write(folder / "test_prefs.jsonl", [pair("what is RAIN", "Water.", "Soup.", (8, 1), ("b", "a"))])
    found = audit_published(str(folder))
    where = {f["name"]: [example["where"] for example in f["examples"]] for f in found["findings"]}
    assert where == {
        "tie": ["train_prefs.jsonl line 2"],
        "reversed": ["train_prefs.jsonl line 3"],
        "chosen_is_rejected": ["train_prefs.jsonl line 4"],
        "refusal": ["train_prefs.jsonl line 5"],
        "refusal_chosen": ["train_prefs.jsonl line 5"],
        "empty_answer": ["train_prefs.jsonl line 6"],
        "split_overlap": ["train_prefs.jsonl line 1"],
    }
    assert found["win_rates"]["a"]["n"] == 6 and found["win_rates"]["a"]["value"] == pytest.approx(4 / 6)
    assert found["longer_wins"]["value"] == pytest.approx(4 / 6) and found["longer_wins"]["n"] == 6
    assert found["repaired"] is None


def test_the_command_answers_people_and_machines(tmp_path: Path):
    _, _, file, benchmark = files(tmp_path)
    page = tmp_path / "out/audit.html"
    said = CliRunner().invoke(
        app, ["audit", file, "--benchmark", f"bench={benchmark}", "--html", str(page), "--json"]
    )
    assert said.exit_code == 0, said.output
    found = json.loads(said.stdout.splitlines()[-1])
    assert found["ok"] and found["rows"] == 60 and page.is_file()
    said = CliRunner().invoke(app, ["audit", file])
    assert "not looked for: contaminated" in said.stdout and "A 10 that is a 1" in said.stdout
    wrong = CliRunner().invoke(app, ["audit", file, "--benchmark", "unheard_of"])
    assert wrong.exit_code == 2
    nothing = CliRunner().invoke(app, ["audit", str(tmp_path / "out")])
    assert nothing.exit_code == 2
