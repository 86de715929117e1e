"""Several dialogues in one sequence: the numbers are those of one by one."""

import copy
from pathlib import Path
from typing import Any

import pytest
import torch
from datasets import Dataset

from tests.trainers.conftest import ALPACA, CHATML, ZEPHYR, dialogue
from trainers.arguments import load_model
from trainers.rows import dialogues_to_tokens
from trainers.settings import SFTSettings
from trainers.sft import sft_trainer

SETTINGS: dict[str, Any] = {"batch": 4, "micro_batch": 2, "max_length": 512, "loss": "all", "packing": True}
SETTINGS |= {"compute": "float32", "epochs": 2, "scheduler": "linear", "warmup": 0.0}


@pytest.mark.parametrize("template", [CHATML, ZEPHYR, ALPACA], ids=["chatml", "zephyr", "alpaca"])
def test_packed_dialogues_do_not_see_each_other(template: str, tiny: Path, tokenizer: Any, tmp_path: Path):
    settings = SFTSettings.model_validate(SETTINGS)
    own = copy.deepcopy(tokenizer)
    own.chat_template = template
    rows = dialogues_to_tokens(Dataset.from_list([dialogue(i) for i in range(16)]), own, settings).tokens
    model = load_model(tiny, settings)
    trainer: Any = sft_trainer(settings, model, own, rows, None, tmp_path, 1, [])
    packed = len(trainer.train_dataset)
    assert packed < 12, "dialogues share sequences"

    def logps(**inputs: Any) -> torch.Tensor:
        with torch.no_grad():
            return model(**inputs, use_cache=False, fused_lm_head=True).log_probs[0]

    alone = [
        logps(input_ids=torch.tensor([ids]), labels=torch.tensor([ids])).sum() for ids in rows["input_ids"]
    ]
    together = []
    for batch in trainer.get_train_dataloader():
        starts = (batch["position_ids"][0] == 0).nonzero()[:, 0].tolist()
        assert (batch["labels"][0][starts[1:]] == -100).all(), (
            "no dialogue's first token is foretold by another"
        )
        found = logps(**batch)
        together += [part.sum() for part in found.tensor_split([start - 1 for start in starts[1:]])]
    assert torch.allclose(torch.stack(alone).sort()[0], torch.stack(together).sort()[0], atol=1e-3)


def test_the_schedule_ends_with_the_last_packed_batch(tiny: Path, tokenizer: Any, tmp_path: Path):
    settings = SFTSettings.model_validate(SETTINGS)
    rows = dialogues_to_tokens(
        Dataset.from_list([dialogue(i) for i in range(24)]), tokenizer, settings
    ).tokens
    trainer: Any = sft_trainer(settings, load_model(tiny, settings), tokenizer, rows, None, tmp_path, 1, [])
    trainer.train()
    packed = len(trainer.train_dataset)
    rates = [line["learning_rate"] for line in trainer.state.log_history if "learning_rate" in line]
    assert len(rates) == 2 * -(-packed // 4) == settings.steps(packed) < settings.steps(len(rows))
    assert rates[-1] == pytest.approx(settings.learning_rate / len(rates)), "one step more would be at 0"


def sequences(packing: Any, tiny: Path, tokenizer: Any, tmp_path: Path) -> list[list[int]]:
    """What four dialogues of 24, 30, 40 and 34 tokens become in sequences of 64; a dialogue repeats its own number."""
    lengths = {101: 24, 102: 30, 103: 40, 104: 34}
    ids = [[number] * length for number, length in lengths.items()]
    rows = Dataset.from_dict({"input_ids": ids, "labels": ids, "length": list(lengths.values())})
    settings = SFTSettings.model_validate(SETTINGS | {"max_length": 64, "packing": packing})
    trainer: Any = sft_trainer(settings, load_model(tiny, settings), tokenizer, rows, None, tmp_path, 1, [])
    assert list(trainer.train_dataset["labels"]) == list(trainer.train_dataset["input_ids"])
    return [list(row) for row in trainer.train_dataset["input_ids"]]


def test_whole_dialogues_go_where_they_fit_best(tiny: Path, tokenizer: Any, tmp_path: Path):
    """In the order they come three sequences would be needed: 24 and 30, 40, 34."""
    made = sequences(True, tiny, tokenizer, tmp_path)
    assert sorted(map(len, made)) == [64, 64]
    assert {frozenset(row) for row in made} == {frozenset({103, 101}), frozenset({104, 102})}


def test_wrapped_is_one_stream_cut_through_dialogues_as_published(tiny: Path, tokenizer: Any, tmp_path: Path):
    made = sequences("wrapped", tiny, tokenizer, tmp_path)
    assert made == [[101] * 24 + [102] * 30 + [103] * 10, [103] * 30 + [104] * 34]
