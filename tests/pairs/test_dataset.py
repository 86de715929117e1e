"""The folder that is written loads with `datasets`, trains with TRL and says where it comes from."""

from pathlib import Path
from typing import Any

import datasets
import pytest
import yaml

from pairs.best_of_n import BestOfN, SftRow, best_of_n
from pairs.card import Card, CardModel, FunnelStep, render_card, size_category
from pairs.dataset import DatasetReceipt, write_dataset
from pairs.policies import PairSettings, pair_all
from pairs.preflight import preflight
from pairs.splits import Split
from records.schema import Prompt
from tests.pairs.examples import candidates, prompt

CARD = Card(
    name="teas", recipe="teas.yaml", license="mit", pairs=PairSettings(), command="zephyr run teas.yaml"
)


Rows = dict[str, list[dict[str, Any]]]


def parts(train: int = 6, test: int = 2) -> tuple[Any, Any, Any]:
    """Pairs, SFT rows and prompts by split; the third train prompt has no pair, the last no SFT row."""
    sides: dict[Split, list[Any]] = {"train": [], "test": []}
    for i in range(train + test):
        asked = prompt(f"Question {i}: why?")
        sides["train" if i < train else "test"].append(
            (asked, candidates(asked, [2, 2] if i == 2 else [1, i + 2, 4]))
        )
    pairs = {
        split: pair_all(cases, PairSettings(policy="best_vs_worst")).pairs for split, cases in sides.items()
    }
    rows = {
        split: [best_of_n(asked, found, BestOfN(ties="random")) for asked, found in cases[: train - 1]]
        for split, cases in sides.items()
    }
    sft = {split: [row for row in found if isinstance(row, SftRow)] for split, found in rows.items()}
    prompts = {split: [asked for asked, _ in cases] for split, cases in sides.items()}
    return pairs, sft, prompts


def write(out: Path, made: tuple[Any, Any, Any] | None = None) -> DatasetReceipt:
    pairs, sft, prompts = made or parts()
    return write_dataset(pairs, sft, prompts, out, CARD)


def load(folder: Path, config: str | None = None) -> Rows:
    """Split -> rows, as `datasets` reads them."""
    datasets.disable_progress_bars()
    found = datasets.load_dataset(str(folder), config, cache_dir=str(folder.parent / "cache"))
    assert isinstance(found, datasets.DatasetDict)
    return {str(split): rows.to_list() for split, rows in found.items()}


def test_the_folder_loads_in_the_published_schema_with_all_six_splits(tmp_path: Path):
    receipt = write(tmp_path / "dataset")
    found = load(tmp_path / "dataset")
    assert {split: len(rows) for split, rows in found.items()} == receipt.rows
    assert receipt.rows == {
        "train_prefs": 5, "train_sft": 5, "train_gen": 6, "test_prefs": 2, "test_sft": 2, "test_gen": 2,
    }  # fmt: skip
    published = ["prompt", "prompt_id", "chosen", "rejected", "messages", "score_chosen", "score_rejected"]
    for split, rows in found.items():
        assert list(rows[0])[:7] == published
        for row in rows:
            assert row["messages"][-1]["role"] == ("user" if split.endswith("gen") else "assistant")
            assert row["messages"][0]["content"] == row["prompt"]
            if split.endswith("prefs"):
                assert row["chosen"][:-1] == row["rejected"][:-1] and row["messages"] == row["chosen"]
                assert row["margin"] == row["score_chosen"] - row["score_rejected"] > 0
    alone = found["train_sft"][2]
    assert alone["rejected"] is None and alone["n"] == 2 and len(alone["scores"]) == 2
    assert found["train_sft"][0]["rejected"] == found["train_prefs"][0]["rejected"]


def test_the_trainers_views_hold_nothing_else(tmp_path: Path):
    write(tmp_path / "dataset")
    pairs = ["prompt", "chosen", "rejected", "completion"]
    views = {"trl": pairs, "trl_sft": ["messages"], "trl_prompts": ["prompt"]}
    for config, columns in views.items():
        found = load(tmp_path / "dataset", config)
        assert set(found) == {"train", "test"}
        assert all(list(rows[0]) == columns for rows in found.values())
    row = load(tmp_path / "dataset", "trl")["train"][0]
    assert [len(row["prompt"]), len(row["chosen"]), len(row["rejected"])] == [1, 1, 1]


def test_a_dataset_without_a_test_split_loads(tmp_path: Path):
    pairs, sft, prompts = parts(train=3, test=0)
    receipt = write(tmp_path / "dataset", (pairs, sft, prompts))
    assert set(load(tmp_path / "dataset")) == set(receipt.rows) == {"train_prefs", "train_sft", "train_gen"}
    for config in ("trl", "trl_sft", "trl_prompts"):
        assert set(load(tmp_path / "dataset", config)) == {"train"}
    write(tmp_path / "sft_only", ({}, sft, {}))
    assert set(load(tmp_path / "sft_only")) == {"train_sft"}


def test_the_same_rows_are_the_same_bytes_in_any_order_and_at_any_cost(tmp_path: Path):
    pairs, sft, prompts = parts()
    first = write(tmp_path / "a", (pairs, sft, prompts))
    dearer = [
        p.model_copy(
            update={"chosen": p.chosen.model_copy(update={"usage": {"requests": 9}, "fingerprint": "other"})}
        )
        for p in pairs["train"]
    ]
    backwards = {"train": dearer[::-1], "test": pairs["test"][::-1]}
    second = write(tmp_path / "b", (backwards, {split: rows[::-1] for split, rows in sft.items()}, prompts))
    assert first.digest == second.digest
    files = sorted(path.relative_to(tmp_path / "a") for path in (tmp_path / "a").rglob("*") if path.is_file())
    assert len(files) == 14
    assert all((tmp_path / "a" / file).read_bytes() == (tmp_path / "b" / file).read_bytes() for file in files)
    changed = [p.model_copy(update={"score_chosen": 4.5}) for p in pairs["train"]]
    assert write(tmp_path / "c", ({"train": changed}, sft, prompts)).digest != first.digest


def test_an_old_dataset_is_replaced_whole_and_a_failed_write_leaves_it(tmp_path: Path):
    out = tmp_path / "dataset"
    write(out)
    (out / "stray.txt").write_text("from the last run")
    second = write(out, parts(train=4, test=1))
    assert not (out / "stray.txt").exists() and load(out)["train_gen"][3]
    with pytest.raises(ValueError, match="1 prompts are in train and in test"):
        write(out, ({}, {}, {"train": [prompt()], "test": [prompt()]}))
    with pytest.raises(ValueError, match="0 pairs, 0 SFT rows and 0 prompts"):
        write(out, ({}, {}, {}))
    assert len(load(out)["train_gen"]) == second.rows["train_gen"] == 4
    assert [path.name for path in tmp_path.iterdir() if path.name != "cache"] == ["dataset"]


def test_a_prompt_of_several_turns_keeps_them(tmp_path: Path):
    said = [("system", "Be brief."), ("user", "Hi"), ("assistant", "Yes?"), ("user", "Tea?")]
    turns = [{"role": role, "content": content} for role, content in said]
    asked = Prompt.model_validate({"id": "abc", "messages": turns, "source": "s"})
    pairs = pair_all([(asked, candidates(asked, [1, 2]))], PairSettings()).pairs
    write(tmp_path / "dataset", ({"train": pairs}, {}, {"train": [asked]}))
    row = load(tmp_path / "dataset")["train_prefs"][0]
    assert row["prompt"] == "Tea?" and row["chosen"][:-1] == turns
    assert load(tmp_path / "dataset", "trl")["train"][0]["prompt"] == turns


def test_the_card_is_valid_and_tells_the_run(tmp_path: Path):
    pairs, sft, prompts = parts()
    card = CARD.model_copy(
        update={
            "samplers": (
                CardModel(name="a", model="org/a|b", revision="abc123", settings={"temperature": 1.0}),
            ),
            "judges": (CardModel(name="rating", model="org/judge", settings={"aspects": "quality"}),),
            "funnel": (FunnelStep(stage="pairs", rows_in=8, rows_out=7, dropped={"tie": 1}),),
            "preflight": preflight(pairs, sft=sft, prompts=prompts),
            "sources": {"teas": "MIT"},
            "versions": {"trl": "1.16.0"},
        }
    )
    receipt = write_dataset(pairs, sft, prompts, tmp_path / "dataset", card)
    text = (tmp_path / "dataset" / "README.md").read_text()
    _, front, body = text.split("---\n", 2)
    header = yaml.safe_load(front)
    assert header["license"] == "mit" and header["size_categories"] == ["n<1K"]
    assert [config["config_name"] for config in header["configs"]] == [
        "default",
        "trl",
        "trl_sft",
        "trl_prompts",
    ]
    for words in (
        receipt.digest,
        "org/a\\|b", "abc123", "temperature 1", "tie 1", "$ zephyr run teas.yaml", "trl 1.16.0",
        "the best completion against one of the others", "| train_prefs | 5 |", "**Warning:** 5 train pairs",
    ):  # fmt: skip
        assert words in body, words
    assert load(tmp_path / "dataset")
    assert render_card(Card(name="n", recipe="r"), "d", {"train_sft": 1}, {"default": {}})
    assert [size_category(n) for n in (999, 1000, 61135, 10**6, 10**7)] == [
        "n<1K", "1K<n<10K", "10K<n<100K", "1M<n<10M", "10M<n<100M",
    ]  # fmt: skip
