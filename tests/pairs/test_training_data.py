"""Published datasets become exactly the rows a trainer reads, and whatever is left out is counted."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq
import pytest

from pairs.training_data import Kind, TrainingData, prepare
from prompts.load import PromptError
from prompts.ultrachat import apply, refusals, truecase
from tests.pairs import published_rows as rows
from tests.pairs.published_rows import assistant, user, write_splits


def read(folder: Path, split: str = "train") -> list[dict[str, Any]]:
    return pq.read_table(folder / f"{split}.parquet").to_pylist()


def plain(turns: list[dict[str, str]]) -> list[tuple[str, str]]:
    return [(turn["role"], turn["content"]) for turn in turns]


@pytest.mark.parametrize(
    "row", [rows.binarized, rows.argilla, rows.argilla_cleaned], ids=lambda r: r.__name__
)
def test_every_layout_of_preferences_gives_the_same_pairs(row: Callable[[int], Any], tmp_path: Path):
    name = write_splits(tmp_path / "set", {"train_prefs": [row(i) for i in range(6)]})
    receipt = prepare(TrainingData(dataset=name, train="train_prefs"), "pairs", tmp_path / "out")
    assert receipt["train"] == {"read": 6, "dropped": {}, "filters": {}, "rows": 6}
    made = read(tmp_path / "out")
    assert [list(each) for each in made] == [["prompt", "chosen", "rejected"]] * 6
    assert plain(made[4]["prompt"]) == [("user", "What is 4 plus one?")]
    assert plain(made[4]["chosen"]) == [("assistant", "It is 5.")]
    assert plain(made[4]["rejected"]) == [("assistant", "I do not know.")]


@pytest.mark.parametrize(
    ("row", "turns"),
    [(rows.ultrachat_200k, 4), (rows.ultrachat, 2), (rows.alpaca, 2)],
    ids=["ultrachat_200k", "ultrachat", "alpaca"],
)
def test_every_layout_of_dialogues_gives_messages(row: Callable[[int], Any], turns: int, tmp_path: Path):
    name = write_splits(tmp_path / "set", {"train": [row(i) for i in range(5)]})
    prepare(TrainingData(dataset=name), "dialogues", tmp_path / "out")
    made = read(tmp_path / "out")
    assert [list(each) for each in made] == [["messages"]] * 5
    for each in made:
        roles = [turn["role"] for turn in each["messages"]]
        assert roles == ["user", "assistant"] * (turns // 2)


def test_an_alpaca_record_with_an_input_gets_the_wording_with_an_input(tmp_path: Path):
    from prompts.chat import alpaca_prompt, chat_template, render_chat

    name = write_splits(tmp_path / "set", {"train": [rows.alpaca(i) for i in range(5)]})
    prepare(TrainingData(dataset=name), "dialogues", tmp_path / "out")
    for i, each in enumerate(read(tmp_path / "out")):
        record = rows.alpaca(i)
        asked = alpaca_prompt(record["instruction"], record["input"])
        text = render_chat(each["messages"], chat_template("alpaca"), eos_token="</s>")
        assert text == f"{asked}{record['output']}</s>"
        assert ("### Input:" in asked) == bool(record["input"])


def test_a_file_is_read_as_a_dataset_is(tmp_path: Path):
    for split, numbers in (("train", range(8)), ("test", range(8, 10))):
        lines = [json.dumps(rows.argilla(i)) for i in numbers]
        (tmp_path / f"{split}.jsonl").write_text("\n".join(lines))
    source = TrainingData(file=str(tmp_path / "train.jsonl"), test=str(tmp_path / "test.jsonl"))
    receipt = prepare(source, "pairs", tmp_path / "out")
    assert (receipt["train"]["rows"], receipt["test"]["rows"]) == (8, 2)


def test_rows_that_are_no_pair_are_counted_by_why(tmp_path: Path):
    good, other = rows.binarized(1), rows.binarized(2)
    wrong = [
        good | {"rejected": other["rejected"]},
        good | {"chosen": [user("a"), user("b")], "rejected": [user("a"), user("c")]},
        good | {"chosen": [assistant("b")], "rejected": [assistant("c")], "prompt": ""},
    ]
    wrong[2]["prompt"] = None
    name = write_splits(tmp_path / "set", {"train": [good, *wrong]})
    receipt = prepare(TrainingData(dataset=name), "pairs", tmp_path / "out")
    assert receipt["train"]["dropped"] == {"other_prompts": 1, "no_answer": 1, "no_prompt": 1}
    assert receipt["train"]["rows"] == 1


def test_a_test_row_whose_prompt_is_in_train_is_left_out(tmp_path: Path):
    splits = {"train": map(rows.binarized, range(6)), "test": map(rows.binarized, range(4, 9))}
    name = write_splits(tmp_path / "set", {split: list(own) for split, own in splits.items()})
    receipt = prepare(TrainingData(dataset=name, test="test"), "pairs", tmp_path / "out")
    assert receipt["test"]["dropped"] == {"in_train": 2}
    train, test = ({str(row["prompt"]) for row in read(tmp_path / "out", s)} for s in ("train", "test"))
    assert not train & test


def test_another_number_of_rows_than_the_recipe_knows_is_refused_and_leaves_nothing(tmp_path: Path):
    name = write_splits(tmp_path / "set", {"train": [rows.binarized(i) for i in range(6)]})
    with pytest.raises(PromptError, match=r"6 rows, and the recipe knows rows\.train=7"):
        prepare(TrainingData(dataset=name, rows={"train": 7}), "pairs", tmp_path / "out")
    assert [path.name for path in tmp_path.iterdir()] == ["set"]


@pytest.mark.parametrize("kind", ["pairs", "dialogues"])
def test_a_dataset_without_the_columns_names_those_it_has(kind: Kind, tmp_path: Path):
    name = write_splits(tmp_path / "set", {"train": [{"question": "a", "answer": "b"}]})
    with pytest.raises(PromptError, match=rf"has the columns question, answer; for {kind} wanted"):
        prepare(TrainingData(dataset=name), kind, tmp_path / "out")


def test_a_limit_draws_by_prompt_id_and_not_by_place(tmp_path: Path):
    every = [rows.binarized(i) for i in range(40)]
    one = write_splits(tmp_path / "one", {"train": every})
    other = write_splits(tmp_path / "other", {"train": every[::-1]})
    drawn = []
    for number, name in enumerate((one, other)):
        prepare(TrainingData(dataset=name, limit=10, rows={"train": 40}), "pairs", tmp_path / str(number))
        drawn.append({row["prompt"][0]["content"] for row in read(tmp_path / str(number))})
    assert drawn[0] == drawn[1] and len(drawn[0]) == 10
    assert drawn[0] != {row["prompt"] for row in every[:10]}
    receipt = json.loads((tmp_path / "0" / "receipt.json").read_text())
    assert receipt["train"] == {"read": 40, "dropped": {"not_drawn": 30}, "filters": {}, "rows": 10}


def test_an_empty_system_turn_is_put_first_where_there_is_none(tmp_path: Path):
    told = {"messages": [{"content": "Be brief.", "role": "system"}, user("Hi"), assistant("Hi.")]}
    bare = {"messages": [user("Hello"), assistant("Hello.")]}
    name = write_splits(tmp_path / "set", {"train": [told, bare]})
    prepare(TrainingData(dataset=name, empty_system=True), "dialogues", tmp_path / "out")
    first = [plain(row["messages"])[0] for row in read(tmp_path / "out")]
    assert first == [("system", "Be brief."), ("system", "")]
    pairs = write_splits(tmp_path / "pairs", {"train": [rows.binarized(1)]})
    prepare(TrainingData(dataset=pairs, empty_system=True), "pairs", tmp_path / "out2")
    (row,) = read(tmp_path / "out2")
    assert plain(row["prompt"]) == [("system", ""), ("user", "What is 1 plus one?")]


def test_what_was_prepared_is_taken_again_and_other_settings_prepare_anew(tmp_path: Path):
    name = write_splits(tmp_path / "set", {"train": [rows.binarized(i) for i in range(6)]})
    first = prepare(TrainingData(dataset=name), "pairs", tmp_path / "out")
    made = (tmp_path / "out" / "train.parquet").stat().st_mtime_ns
    assert prepare(TrainingData(dataset=name), "pairs", tmp_path / "out") == first
    assert (tmp_path / "out" / "train.parquet").stat().st_mtime_ns == made
    assert prepare(TrainingData(dataset=name, limit=2), "pairs", tmp_path / "out")["train"]["rows"] == 2


def test_ultrachats_filters_are_counted_one_by_one(tmp_path: Path):
    every = [rows.ultrachat(i) for i in range(4)]
    every += [rows.ultrachat(9, "As an AI language model, I don\u2019t have emotions.")]
    every += [{"id": "10", "data": ["All is well.", "It is."]}]
    name = write_splits(tmp_path / "set", {"train": every})
    source = TrainingData(dataset=name, filters=("truecase", "refusals"))
    receipt = prepare(source, "dialogues", tmp_path / "out")
    assert receipt["train"]["filters"] == {
        "truecase": {"in": 6, "changed": 5, "dropped": 0},
        "refusals": {"in": 6, "changed": 0, "dropped": 1},
    }
    assert receipt["train"]["rows"] == 5
    assert read(tmp_path / "out")[2]["messages"][1]["content"] == "Fine. I am 2."


def test_filters_of_dialogues_are_refused_for_pairs(tmp_path: Path):
    name = write_splits(tmp_path / "set", {"train": [rows.binarized(1)]})
    with pytest.raises(PromptError, match="are for dialogues, and these are pairs"):
        prepare(TrainingData(dataset=name, filters=("truecase",)), "pairs", tmp_path / "out")


@pytest.mark.parametrize(
    ("before", "after"),
    [
        ("Hello. how are you?", "Hello. How are you?"),
        ("what? why! i see. i'm here.", "What? Why! I see. I'm here."),
        ("Fruit, e.g. apples, i.e. food.", "Fruit, e.g. apples, i.e. food."),
        ("See example.com. it is there", "See example.com. It is there"),
        (
            "Run:\n```\nfor i in x: print(i)\n```\nthen stop.",
            "Run:\n```\nfor i in x: print(i)\n```\nThen stop.",
        ),
        ("    for i in range(3):", "    for i in range(3):"),
        ("Nothing to do here.", "Nothing to do here."),
    ],
)
def test_truecasing_mends_sentences_and_leaves_code_alone(before: str, after: str):
    assert truecase([user(before)])[0]["content"] == after
    assert truecase([user(after)])[0]["content"] == after


@pytest.mark.parametrize(
    ("said", "kept"),
    [
        ("I do not have emotions, but the sky is blue.", False),
        ("I DON'T HAVE OPINIONS on this.", False),
        ("I don\u2019t have personal experiences.", False),
        ("Robots do not have emotions.", True),
        ("I do not have time.", True),
    ],
)
def test_a_refusal_is_the_assistants_own(said: str, kept: bool):
    assert (refusals([user("Hi"), assistant(said)]) is not None) == kept
    assert refusals([user(said), assistant("Fine.")]) is not None


def test_a_dropped_dialogue_is_not_seen_by_later_filters():
    counts: dict[str, dict[str, int]] = {}
    assert apply(("refusals", "truecase"), [user("a"), assistant("I do not have opinions")], counts) is None
    assert counts == {"refusals": {"in": 1, "changed": 0, "dropped": 1}}
