"""A reward model, from pairs to the judge that asks it."""

import asyncio
import copy
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from datasets import Dataset

from judges.base import Verdict
from judges.reward_model import RewardModel
from records.schema import Completion, Message, Prompt
from serving.classifier import ClassifierTransport
from serving.settings import Classifier
from tests.trainers.conftest import ALPACA, CHATML, pair, said
from trainers.arguments import load_scorer
from trainers.conversations import conversations_to_tokens
from trainers.reward import padding, reward_trainer
from trainers.run import main
from trainers.settings import RewardSettings

SMALL: dict[str, Any] = {"learning_rate": 1e-2, "batch": 8, "micro_batch": 4, "max_length": 128}
SMALL |= {"compute": "float32", "epochs": 2, "warmup": 0.0}


@pytest.fixture
def own(tokenizer: Any) -> Any:
    """A tokenizer to change."""
    return copy.deepcopy(tokenizer)


def classifier(folder: Path) -> ClassifierTransport:
    return ClassifierTransport("reward", Classifier(kind="classifier", model=str(folder)))


@pytest.mark.parametrize("lora", [None, {"r": 4}], ids=["all weights", "lora"])
def test_the_judge_scores_chosen_above_rejected_with_the_trained_model(
    lora: Any, job: Callable[..., Any], tmp_path: Path
):
    asked = job("reward", settings={"learning_rate": 1e-2, "epochs": 6, "lora": lora})
    (tmp_path / "job.json").write_text(json.dumps(asked))
    assert main([str(tmp_path / "job.json")]) == 0
    folder = Path(asked["out"])
    config = json.loads((folder / "config.json").read_text())
    assert config["architectures"] == ["LlamaForSequenceClassification"]
    metrics = json.loads((folder / "metrics.json").read_text())
    assert metrics["eval_after"]["accuracy"] == 1.0 and metrics["eval_after"]["loss"] < 0.3

    transport = classifier(folder)
    judge = RewardModel(kind="reward_model", model="reward").build(transport.ask)

    async def judged(i: int) -> list[Verdict]:
        row = pair(i)
        prompt = Prompt(id="p", messages=tuple(Message(**m) for m in row["prompt"]), source="test")
        completions = [
            Completion(
                id=name,
                prompt_id="p",
                model="m",
                text=row[name][0]["content"],
                finish_reason="stop",
                fingerprint="",
            )
            for name in ("chosen", "rejected")
        ]
        return await judge(prompt, completions, "reward")

    async def every() -> list[list[Verdict]]:
        return [await judged(i) for i in range(20, 24)]  # none of them was trained on

    for chosen, rejected in asyncio.run(every()):
        assert (chosen.status, rejected.status) == ("ok", "ok")
        assert chosen.score is not None and rejected.score is not None
        assert chosen.score - rejected.score > 1, "a probability would differ by 1 at most"


@pytest.mark.parametrize(
    "template", [CHATML, ALPACA], ids=["ends with a line", "ends with the padding token"]
)
def test_a_padded_batch_trains_the_scores_that_are_served(
    template: str, tiny: Path, own: Any, tmp_path: Path
):
    """The base pads with its end token. Where a conversation ends with it, the score of a padded one would be read one
    token early."""
    own.chat_template = template
    settings = RewardSettings.model_validate(SMALL | {"epochs": 1})
    rows = conversations_to_tokens(Dataset.from_list([pair(i) for i in range(8)]), own, settings)
    model = load_scorer(tiny, settings, 1)
    trainer = reward_trainer(settings, model, own, rows.tokens, None, tmp_path / "work", 1, [])
    batch = trainer.data_collator([rows.tokens[i] for i in range(4)])
    with torch.inference_mode():
        in_batch = model.eval()(**batch).logits[:, 0]
    model.save_pretrained(tmp_path / "made")
    own.save_pretrained(tmp_path / "made")
    transport = classifier(tmp_path / "made")
    for i in range(4):
        row, found = pair(i), []
        for name in ("chosen", "rejected"):
            reply = transport._score(row["prompt"] + row[name])
            assert transport.tokens(row["prompt"] + row[name]) == rows.tokens[i][f"{name}_ids"]
            found.append(reply.scores[0])
        assert found == pytest.approx([float(in_batch[i]), float(in_batch[4 + i])], abs=1e-5)


def test_the_loss_is_bradley_terrys_with_the_margin_and_the_centre(tiny: Path, own: Any, tmp_path: Path):
    """Rewards 1 and 0.5, margin 2 * 0.3: -log sigmoid(0.5 - 0.6) + 0.01 * 1.5 ** 2 = 0.744397 + 0.0225."""
    settings = RewardSettings.model_validate(SMALL | {"margin": 2, "center": 0.01})
    pairs = Dataset.from_list([pair(i) | {"margin": 0.3} for i in range(8)])
    rows = conversations_to_tokens(pairs, own, settings).tokens
    trainer = reward_trainer(settings, load_scorer(tiny, settings, 1), own, rows, None, tmp_path, 1, [])
    batch = trainer.data_collator([rows[0]])
    assert batch["margin"].tolist() == pytest.approx([0.6])

    class Fixed(torch.nn.Module):
        def forward(self, **_: Any) -> Any:
            return type("Out", (), {"logits": torch.tensor([[1.0], [0.5]])})

    loss: Any = trainer.compute_loss(Fixed(), batch)
    assert float(loss) == pytest.approx(0.744397 + 0.0225, abs=1e-6)


def test_what_is_left_out_is_counted(tokenizer: Any):
    long = pair(1) | {"chosen": [said("assistant", "tea " * 200)]}
    same = pair(2) | {"chosen": pair(2)["rejected"]}
    rows = [pair(0), long, same, pair(3) | {"rejected": [said("assistant", " ")]}]
    made = conversations_to_tokens(Dataset.from_list(rows), tokenizer, RewardSettings(max_length=128))
    assert made.counts["dropped"] == {"too_long": 1, "identical": 1, "empty_answer": 1}
    assert made.counts["kept"] == len(made.tokens) == 1


def test_a_margin_that_is_not_there_is_refused(job: Callable[..., Any], tmp_path: Path, capsys: Any):
    (tmp_path / "job.json").write_text(json.dumps(job("reward", settings={"margin": 1})))
    assert main([str(tmp_path / "job.json")]) == 2
    assert "margin=1 and the pairs have no column 'margin'" in capsys.readouterr().err


def test_a_tokenizer_whose_every_special_token_ends_a_conversation_is_refused(tokenizer: Any):
    special = tokenizer.all_special_ids
    rows = Dataset.from_list([{"chosen_ids": [5, s], "rejected_ids": [6, s]} for s in special])
    with pytest.raises(ValueError, match="none can pad"):
        padding(tokenizer, [rows])
