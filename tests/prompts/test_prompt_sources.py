"""Files and datasets -> prompts: nothing lost in silence, nothing decided by row order."""

import json
import subprocess
import sys
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from pydantic import ValidationError

from prompts.load import PromptError
from prompts.sources import PromptSource, load_prompts, split_of, split_prompt

ROWS = [
    {"prompt": "Explain tea.", "kind": "brief", "constraints": [{"kind": "max_words", "n": 25}]},
    {"prompt": "Explain salt.", "kind": "brief", "split": "test"},
    {"prompt": "how can i develop a habit of drawing daily", "kind": "advice", "answer": "draw"},
]


def jsonl(path: Path, rows: list) -> PromptSource:
    path.write_text(
        "".join(row if isinstance(row, str) else json.dumps(row) + "\n" for row in rows), encoding="utf-8"
    )
    return PromptSource(file=str(path))


def texts(source: PromptSource) -> list[str]:
    return [prompt.text for prompt in load_prompts(source).prompts]


def test_rows_become_prompts_with_published_ids_and_known_columns_as_meta(tmp_path: Path):
    prompts, dropped = load_prompts(jsonl(tmp_path / "mine.jsonl", ROWS))
    assert prompts[2].id == "086b3e24f29b8956a01059f79c56db35d118a06fb6b844b095737d042795cd43"
    assert [p.source for p in prompts] == ["mine"] * 3
    assert prompts[0].meta == {"kind": "brief", "constraints": [{"kind": "max_words", "n": 25}]}
    assert prompts[2].meta == {"kind": "advice"}, "other columns are kept on request"
    assert dropped == []


def test_jsonl_csv_parquet_and_datasets_give_the_same_prompts(tmp_path: Path):
    wanted = load_prompts(jsonl(tmp_path / "mine.jsonl", ROWS)).prompts
    pq.write_table(pa.Table.from_pylist([{"split": None, **row} for row in ROWS]), tmp_path / "mine.parquet")
    lines = [
        "prompt,kind,split,constraints",
        'Explain tea.,brief,,"[{""kind"": ""max_words"", ""n"": 25}]"',
        "Explain salt.,brief,test,",
        "how can i develop a habit of drawing daily,advice,,",
    ]
    (tmp_path / "mine.csv").write_text("\n".join(lines))
    for file in ("mine.parquet", "mine.csv"):
        assert load_prompts(PromptSource(file=str(tmp_path / file))).prompts == wanted
    folder = tmp_path / "folder"
    folder.mkdir()
    (tmp_path / "mine.parquet").rename(folder / "train.parquet")
    assert load_prompts(PromptSource(dataset=str(folder), name="mine")).prompts == wanted


def test_a_dataset_saved_to_disk_is_read(tmp_path: Path):
    datasets = pytest.importorskip("datasets")
    datasets.DatasetDict({"train_gen": datasets.Dataset.from_list(ROWS)}).save_to_disk(tmp_path / "saved")
    assert len(texts(PromptSource(dataset=str(tmp_path / "saved"), split="train_gen"))) == 3
    with pytest.raises(PromptError, match=r"split='train'.* cannot be read: KeyError"):
        load_prompts(PromptSource(dataset=str(tmp_path / "saved")))


def test_duplicates_and_empty_prompts_are_dropped_with_their_line(tmp_path: Path):
    source = jsonl(tmp_path / "a.jsonl", [ROWS[0], {"prompt": " "}, "\n", ROWS[0], {"prompt": None}, ROWS[1]])
    prompts, dropped = load_prompts(source)
    assert [p.text for p in prompts] == ["Explain tea.", "Explain salt."]
    assert [(d.reason, d.detail) for d in dropped] == [
        ("empty_prompt", "a.jsonl line 2"),
        ("duplicate", "a.jsonl line 4"),
        ("empty_prompt", "a.jsonl line 5"),
    ]
    assert dropped[1].id == prompts[0].id


def test_where_keeps_rows_by_column_or_meta_entry(tmp_path: Path):
    source = jsonl(tmp_path / "a.jsonl", ROWS)
    assert texts(source.model_copy(update={"where": {"kind": "brief"}})) == ["Explain tea.", "Explain salt."]
    assert texts(source.model_copy(update={"where": {"kind": ("advice", "x")}})) == [ROWS[2]["prompt"]]
    assert texts(PromptSource(file=source.file, where={"note": "draw"}, meta={"note": "answer"})) == [
        ROWS[2]["prompt"]
    ]


def test_columns_are_mapped(tmp_path: Path):
    rows = [{"question": "2 + 2?", "answer": "4", "level": "easy", "split": "validation"}]
    source = jsonl(tmp_path / "a.jsonl", rows)
    mapped = PromptSource(
        file=source.file, prompt="question", meta={"reference": "answer", "split": None}, name="sums"
    )
    [prompt] = load_prompts(mapped).prompts
    assert (prompt.text, prompt.meta, prompt.source) == ("2 + 2?", {"reference": "4"}, "sums")


def test_nothing_left_names_the_file_and_the_filter(tmp_path: Path):
    source = jsonl(tmp_path / "a.jsonl", ROWS).model_copy(update={"where": {"kind": "poem"}})
    with pytest.raises(PromptError, match=r"no prompts in .*a\.jsonl: 3 rows, 0 with \{'kind': 'poem'\}"):
        load_prompts(source)
    with pytest.raises(PromptError, match=r"no prompts in .*: 1 rows, 1 with no filter, 1 dropped"):
        load_prompts(jsonl(tmp_path / "b.jsonl", [{"prompt": ""}]))


@pytest.mark.parametrize(
    ("row", "message"),
    [
        ("{not json\n", r"a\.jsonl line 2 is not JSON: .*starts '\{not json"),
        ("[1]\n", r"a\.jsonl line 2 is '\[1\]', wanted an object"),
        ({"prompt": 7}, r"a\.jsonl line 2: prompt is 7, wanted text"),
        ({"text": "x"}, r"a\.jsonl line 2 has no field 'prompt'; it has text"),
        (
            {"prompt": "x", "constraints": "[oops"},
            r"line 2: constraints is '\[oops', wanted a list or its JSON",
        ),
        (
            {"prompt": "x", "constraints": ["max"]},
            r"line 2: constraints is \['max'\], wanted a list of \{kind",
        ),
        ({"prompt": "x", "split": "dev"}, r"line 2: split is 'dev', wanted train or test"),
        ('{"prompt": "\\ud800"}\n', r"line 2: the prompt is not text that UTF-8 can hold"),
    ],
)
def test_a_malformed_row_names_its_line_field_value_and_what_was_wanted(tmp_path: Path, row, message: str):
    with pytest.raises(PromptError, match=message):
        load_prompts(jsonl(tmp_path / "a.jsonl", [ROWS[0], row]))


def test_csv_rows_with_missing_or_extra_cells_are_refused(tmp_path: Path):
    for line, cells in (("x", 1), ("x,y,z", 3)):
        (tmp_path / "a.csv").write_text(f"prompt,kind\n{line}\n")
        with pytest.raises(PromptError, match=rf"a\.csv line 2 has {cells} cells, wanted 2: prompt, kind"):
            load_prompts(PromptSource(file=str(tmp_path / "a.csv")))


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"prompt": "promt"}, "prompt names the column 'promt'; .* has prompt, kind"),
        ({"messages": "chat"}, "messages names the column 'chat'"),
        ({"meta": {"reference": "gold"}}, "meta.reference names the column 'gold'"),
        ({"where": {"knd": "brief"}}, "where names the column 'knd'"),
    ],
)
def test_a_column_that_does_not_exist_is_refused(tmp_path: Path, settings: dict, message: str):
    source = jsonl(tmp_path / "a.jsonl", ROWS)
    with pytest.raises(PromptError, match=message):
        load_prompts(PromptSource(file=source.file, **settings))


def test_a_file_is_looked_for_beside_the_recipe_and_then_in_the_project(tmp_path: Path):
    jsonl(tmp_path / "a.jsonl", ROWS)
    assert len(load_prompts(PromptSource(file="a.jsonl"), beside=tmp_path).prompts) == 3
    assert load_prompts(PromptSource(file="prompts/quickstart/prompts.jsonl"), beside=tmp_path).prompts
    with pytest.raises(PromptError, match=r"no prompt file 'b\.jsonl'; looked at .*b\.jsonl and .*b\.jsonl"):
        load_prompts(PromptSource(file="b.jsonl"), beside=tmp_path)
    (tmp_path / "a.txt").write_text("x")
    with pytest.raises(
        PromptError, match=r"ends in '\.txt', wanted one of \.jsonl, \.json, \.csv, \.parquet"
    ):
        load_prompts(PromptSource(file="a.txt"), beside=tmp_path)


def test_a_source_is_a_file_or_a_dataset():
    for fields in ({}, {"file": "a.jsonl", "dataset": "b"}):
        with pytest.raises(ValidationError, match="wanted exactly one of the two"):
            PromptSource.model_validate(fields)


def talk(*roles: str) -> list[dict[str, str]]:
    return [{"role": role, "content": f"{role} {i}"} for i, role in enumerate(roles)]


def test_a_conversation_keeps_its_turns_and_loses_the_answer_after_the_last_user_turn(tmp_path: Path):
    rows = [
        {"messages": talk("system", "user", "assistant", "user", "assistant")},
        {"messages": talk("user")},
    ]
    source = PromptSource(file=jsonl(tmp_path / "a.jsonl", rows).file, messages="messages")
    first, second = load_prompts(source).prompts
    assert [m.role for m in first.messages] == ["system", "user", "assistant", "user"]
    assert first.text == "user 3" and len(second.messages) == 1


@pytest.mark.parametrize(
    ("messages", "message"),
    [
        (talk("user", "system"), r"line 1: messages has the turns \['user', 'system'\], wanted a user turn"),
        ([], r"line 1: messages has the turns \[\]"),
        ("hello", "line 1: messages is 'hello', wanted a list or its JSON"),
        ([{"from": "human"}], "line 1: messages.0 is .*, wanted role and content"),
        ([{"role": "human", "content": "x"}], "line 1: messages.0.role is 'human'"),
        ([{"role": "user", "content": 3}], "line 1: messages.0.content is 3"),
    ],
)
def test_a_conversation_that_asks_nothing_is_refused(tmp_path: Path, messages, message: str):
    source = PromptSource(
        file=jsonl(tmp_path / "a.jsonl", [{"messages": messages}]).file, messages="messages"
    )
    with pytest.raises(PromptError, match=message):
        load_prompts(source)


def test_a_sample_depends_on_ids_and_seed_not_on_row_order(tmp_path: Path):
    rows = [{"prompt": f"Say {i}."} for i in range(60)]
    forward = jsonl(tmp_path / "a.jsonl", rows)
    backward = jsonl(tmp_path / "b.jsonl", rows[::-1])
    ten = {"limit": 10}
    drawn = texts(forward.model_copy(update=ten))
    assert drawn == texts(backward.model_copy(update=ten))[::-1], "the file's order is kept"
    assert len(drawn) == 10 and drawn != texts(forward)[:10]
    assert drawn != texts(forward.model_copy(update=ten | {"seed": 1}))
    assert set(drawn) < set(texts(forward.model_copy(update={"limit": 20}))), (
        "a larger sample keeps the smaller one"
    )


def test_splits_are_drawn_by_id_and_a_rows_own_split_is_kept(tmp_path: Path):
    prompts = load_prompts(jsonl(tmp_path / "a.jsonl", ROWS)).prompts
    assert [split_prompt(p, 0, 0.0) for p in prompts] == ["train", "test", "train"]
    assert [split_prompt(p, 0, 1.0) for p in prompts] == ["test", "test", "test"]
    share = sum(split_of(f"id{i}", 3, 0.2) == "test" for i in range(2000)) / 2000
    assert share == pytest.approx(0.2, abs=0.03)


def test_prompt_files_are_read_without_loading_datasets():
    code = (
        "import sys, prompts.sources, prompts.chat, prompts.principle; "
        "sys.exit(bool({'datasets', 'torch', 'pyarrow'} & set(sys.modules)))"
    )
    subprocess.run([sys.executable, "-c", code], check=True)
