"""Files of compared answers: what is read, what is left out and counted, what is refused."""

import json
from pathlib import Path
from typing import Any

import pytest

from judges.canaries import canaries
from judges.gold import GoldError, GoldItem, drawn, layout_named, load_gold
from judges.layouts import majority

ROW: dict[str, Any] = {
    "prompt": "Name a fruit.",
    "completions": ["An apple.", "Carrot"],
    "label": 0,
    "annotators": [0, 0, "tie"],
    "models": ["a", "b"],
    "reference": "apple",
}


def written(path: Path, *rows: Any) -> Path:
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return path


def test_a_row_becomes_an_item_and_a_prompt(tmp_path: Path):
    gold = load_gold(written(tmp_path / "gold.jsonl", ROW))
    (item,) = gold.items
    assert gold.layout == "gold" and gold.dropped == {}
    assert item.to_prompt().text == "Name a fruit." and item.to_prompt().meta == {"reference": "apple"}


def test_a_conversation_is_a_prompt_too(tmp_path: Path):
    talk = [{"role": "system", "content": "Be brief."}, {"role": "user", "content": "Hi"}]
    (item,) = load_gold(written(tmp_path / "gold.jsonl", ROW | {"prompt": talk})).items
    assert [message.role for message in item.to_prompt().messages] == ["system", "user"]


@pytest.mark.parametrize(
    ("change", "says"),
    [
        ({"label": 2}, "label: 2 is not one of 0 to 1 or 'tie'"),
        ({"label": "first"}, "label"),
        ({"annotators": [0, 7]}, "annotators: 7"),
        ({"models": ["a"]}, "models: 1 names for 2 completions"),
        ({"completions": ["one"]}, "completions"),
        ({"prompt": " "}, "must end with a user turn"),
        ({"labl": 0}, "labl"),
    ],
)
def test_a_wrong_row_names_the_line_and_the_field(tmp_path: Path, change: dict[str, Any], says: str):
    with pytest.raises(GoldError) as error:
        load_gold(written(tmp_path / "gold.jsonl", ROW, ROW | change))
    assert "gold.jsonl line 2" in str(error.value) and says in str(error.value)


def test_rows_without_two_readable_answers_are_left_out_and_counted(tmp_path: Path):
    blank, boolean = ROW | {"completions": ["", "b"]}, ROW | {"completions": [True, "b"]}
    gold = load_gold(written(tmp_path / "gold.jsonl", ROW, blank, boolean, blank))
    assert (len(gold.items), gold.dropped) == (1, {"empty_answer": 2, "not_text": 1})
    with pytest.raises(GoldError, match="none of 1 rows"):
        load_gold(written(tmp_path / "gold.jsonl", blank))


@pytest.mark.parametrize(
    ("row", "layout", "label", "completions"),
    [
        (
            {"instruction": "Add", "input": "1+1", "response1": "2", "response2": "3", "cmp_key": "x_y"}
            | {"annotator1": 1, "annotator2": 1, "annotator3": 0},
            "pandalm",
            0,
            ("2", "3"),
        ),
        (
            {"question": "q", "response_A": "a", "response_B": "b", "label": "B>A"},
            "judgebench",
            1,
            ("a", "b"),
        ),
        ({"input": "q", "output_1": "a", "output_2": "b", "label": 2}, "llmbar", 1, ("a", "b")),
        ({"prompt": "q", "response 1": "a", "response 2": "b", "label": 2}, "autoj", "tie", ("a", "b")),
    ],
)
def test_published_layouts_are_known_by_their_fields(
    tmp_path: Path, row: dict[str, Any], layout: str, label: object, completions: tuple[str, str]
):
    path = tmp_path / "file.json"
    path.write_text(json.dumps([row]))
    gold = load_gold(path)
    assert gold.layout == layout
    assert (gold.items[0].label, gold.items[0].completions) == (label, completions)


def test_hhh_is_cut_out_of_its_grading_prompts(tmp_path: Path):
    around = "###The instruction to evaluate:\nHi\n\n###Response to evaluate:\n{}\n\n###Score Rubrics:\n[x]"
    row = {
        "source": "other",
        "chosen_instruction": around.format("good\n\none"),
        "rejected_instruction": around.format("bad"),
    }
    (item,) = load_gold(written(tmp_path / "hhh.jsonl", row)).items
    assert isinstance(item.label, int)
    assert item.completions[item.label] == "good\n\none" and item.completions[1 - item.label] == "bad"


def test_what_is_no_gold_file_says_what_was_wanted(tmp_path: Path):
    with pytest.raises(GoldError, match="cannot be read"):
        load_gold(tmp_path / "none.jsonl")
    with pytest.raises(GoldError, match=r"of no known layout .*pandalm: instruction, response1"):
        load_gold(written(tmp_path / "x.jsonl", {"text": "a"}))
    with pytest.raises(GoldError, match=r"line 1: not a row of layout 'llmbar'.*output_1"):
        load_gold(written(tmp_path / "x.jsonl", ROW), "llmbar")
    (tmp_path / "y.jsonl").write_text("{")
    with pytest.raises(GoldError, match="not JSON"):
        load_gold(tmp_path / "y.jsonl")
    with pytest.raises(GoldError, match="--layout 'pandas'"):
        layout_named("pandas")


def test_a_limit_draws_the_same_items_and_a_larger_one_adds_to_them():
    items = [GoldItem.model_validate(ROW | {"prompt": f"Name fruit {i}."}) for i in range(40)]
    few, more = drawn(items, 10), drawn(items, 20)
    assert len(few) == 10 and all(item in more for item in few)
    assert few != items[:10]


def test_a_majority_is_more_than_half_and_else_a_tie():
    assert majority((0, 0, 1)) == 0
    assert majority((0, 1, "tie")) == "tie"
    assert majority((0, 1)) == "tie"


def test_an_item_without_a_best_answer_has_no_canaries():
    item = GoldItem.model_validate(ROW)
    assert set(canaries(item)) == {"empty", "one word", "prompt repeated", "opener", "orders to the judge"}
    assert canaries(item.model_copy(update={"label": "tie"})) == {}
    long = item.model_copy(update={"completions": (" ".join("abcdefghijklmno"), "b")})
    assert canaries(long)["cut off"] == "a b c d e"
