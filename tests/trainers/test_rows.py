"""What becomes tokens, what is dropped, and what is refused."""

from pathlib import Path
from typing import Any

import pytest
from datasets import Dataset

from tests.trainers.conftest import ALPACA, CHATML, ZEPHYR, dialogue, pair, said
from trainers.guards import BadInput
from trainers.rows import dialogue_of, dialogues_to_tokens, pair_of, pairs_to_tokens
from trainers.settings import DPOSettings, SFTSettings

SHORT = DPOSettings(max_length=64)
QUESTION, GOOD, BAD = [said("user", "Why?")], [said("assistant", "Tea.")], [said("assistant", "No.")]


@pytest.fixture
def chatml(tokenizer: Any) -> Any:
    tokenizer.chat_template = CHATML
    yield tokenizer
    tokenizer.chat_template = CHATML


def test_the_published_schema_gives_the_same_pair_as_the_explicit_one():
    explicit = {"prompt": QUESTION, "chosen": GOOD, "rejected": BAD}
    published = {"prompt": "Why?", "chosen": QUESTION + GOOD, "rejected": QUESTION + BAD}
    repeated = {"prompt": QUESTION, "chosen": QUESTION + GOOD, "rejected": QUESTION + BAD}
    implicit = {"chosen": QUESTION + GOOD, "rejected": QUESTION + BAD}
    assert {str(pair_of(row)) for row in (explicit, published, repeated, implicit)} == {
        str((QUESTION, GOOD, BAD))
    }


def test_a_dialogue_is_read_from_messages_even_beside_a_prompt_string():
    whole = QUESTION + GOOD
    assert dialogue_of({"prompt": "Why?", "messages": whole}) == whole
    assert dialogue_of({"prompt": QUESTION, "completion": GOOD}) == whole


@pytest.mark.parametrize(
    "row, words",
    [
        (
            {"prompt": "Why?", "chosen": "Tea.", "rejected": "No."},
            "column 'chosen' is 'Tea.'; a list of messages",
        ),
        ({"prompt": "Why?", "chosen": GOOD, "rejected": BAD}, "share no first message and prompt='Why?'"),
    ],
)
def test_columns_that_would_be_misread_are_refused(row: dict[str, Any], words: str):
    with pytest.raises(BadInput, match=words.replace("?", r"\?").replace("[", r"\[")):
        pair_of(row)


def test_every_row_that_is_dropped_or_cut_is_counted(chatml: Any):
    rows = [
        {"prompt": QUESTION, "chosen": GOOD, "rejected": BAD},
        {"prompt": QUESTION, "chosen": GOOD, "rejected": GOOD},
        {"prompt": QUESTION, "chosen": GOOD, "rejected": [said("assistant", "  ")]},
        {"prompt": QUESTION, "chosen": GOOD, "rejected": QUESTION},
        {"prompt": [said("user", "long " * 80)], "chosen": GOOD, "rejected": BAD},
        {"prompt": QUESTION, "chosen": [said("assistant", "a b " * 60)], "rejected": BAD},
        {
            "prompt": QUESTION,
            "chosen": [said("assistant", "a b " * 60 + "x")],
            "rejected": [said("assistant", "a b " * 60 + "y")],
        },
    ]
    tokens, counts = pairs_to_tokens(Dataset.from_list(rows), chatml, SHORT)
    assert len(tokens) == counts["kept"] == 2
    assert counts["rows"] == 7
    assert counts["dropped"] == {
        "empty_answer": 1,
        "identical": 1,
        "identical_after_truncation": 1,
        "no_answer": 1,
        "prompt_too_long": 1,
    }
    assert counts["changed"] == {"chosen_cut": 1}
    assert all(len(row["prompt_ids"]) + len(row["chosen_ids"]) <= 64 for row in tokens.to_list())


def test_a_long_prompt_keeps_its_end(chatml: Any):
    rows = Dataset.from_list(
        [{"prompt": [said("user", "long " * 80 + "end?")], "chosen": GOOD, "rejected": BAD}]
    )
    tokens, counts = pairs_to_tokens(rows, chatml, DPOSettings(max_length=64, max_prompt=20))
    assert len(tokens[0]["prompt_ids"]) == 20 and counts["changed"] == {"prompt_cut": 1}
    assert chatml.decode(tokens[0]["prompt_ids"]).endswith("end?<|im_end|>\n<|im_start|>assistant\n")


def test_data_of_which_nothing_is_left_is_refused(chatml: Any):
    same = [{"prompt": QUESTION, "chosen": GOOD, "rejected": GOOD}]
    with pytest.raises(BadInput, match=r"no row is left: \{'identical': 1\} of 1 rows"):
        pairs_to_tokens(Dataset.from_list(same), chatml, SHORT)


@pytest.mark.parametrize("template", [CHATML, ZEPHYR, ALPACA], ids=["chatml", "zephyr", "alpaca"])
def test_the_answer_and_its_end_token_are_trained_and_the_prompt_is_not(chatml: Any, template: str):
    chatml.chat_template = template
    rows = Dataset.from_list([{"prompt": QUESTION, "completion": GOOD}])
    row = dialogues_to_tokens(rows, chatml, SFTSettings()).tokens[0]
    trained = chatml.decode([label for label in row["labels"] if label != -100])
    assert trained.rstrip("\n") == "Tea.<|im_end|>"
    assert chatml.eos_token == chatml.pad_token  # and still the end token's label is there
    asked = chatml.apply_chat_template(QUESTION, tokenize=False, add_generation_prompt=True)
    given = chatml.decode(
        [t for t, label in zip(row["input_ids"], row["labels"], strict=True) if label == -100]
    )
    assert given == asked


@pytest.mark.parametrize("template", [CHATML, ZEPHYR], ids=["chatml", "zephyr"])
@pytest.mark.parametrize("loss, answers", [("completion", 1), ("assistant", 2), ("all", 4)])
def test_the_loss_setting_says_which_turns_are_trained(chatml: Any, template: str, loss: Any, answers: int):
    chatml.chat_template = template
    row = dialogues_to_tokens(Dataset.from_list([dialogue(1)]), chatml, SFTSettings(loss=loss)).tokens[0]
    assert row["labels"].count(chatml.eos_token_id) == answers


def test_pair_tokens_are_those_trl_makes(chatml: Any, tiny: Path, tmp_path: Path):
    from transformers import AutoModelForCausalLM
    from trl.trainer.dpo_trainer import DPOTrainer

    from trainers.dpo import dpo_config

    rows = Dataset.from_list([pair(i) for i in range(4)])
    settings = DPOSettings(precompute_reference=False, max_length=128)
    model = AutoModelForCausalLM.from_pretrained(tiny)
    args = dpo_config(settings, tmp_path, 0)
    theirs: Any = DPOTrainer(
        model=model, args=args, train_dataset=rows, processing_class=chatml
    ).train_dataset
    ours = pairs_to_tokens(rows, chatml, settings).tokens
    for column in ("prompt_ids", "chosen_ids", "rejected_ids"):
        assert list(ours[column]) == list(theirs[column])


def test_a_template_that_does_not_end_the_turn_is_refused(chatml: Any):
    chatml.chat_template = CHATML.replace("+ eos_token", "")
    with pytest.raises(BadInput, match="no end-of-sequence token after the assistant's turn in 1 of 1 rows"):
        dialogues_to_tokens(Dataset.from_list([dialogue(1)]), chatml, SFTSettings())
    with pytest.raises(BadInput, match="never learn to stop"):
        pairs_to_tokens(Dataset.from_list([pair(1)]), chatml, SHORT)


def test_a_template_that_renders_the_prompt_otherwise_alone_is_refused(chatml: Any):
    chatml.chat_template = "{% if messages | length == 1 %}Alone: {% endif %}" + CHATML
    with pytest.raises(BadInput, match="not the start of the rendered prompt and answer in 1 of 1 rows"):
        pairs_to_tokens(Dataset.from_list([pair(1)]), chatml, SHORT)
