"""Prompts computed once: the same losses, metrics and gradients as TRL's own way, for every loss it has."""

from collections.abc import Callable
from pathlib import Path
from typing import Any, get_args

import pytest
import torch
from datasets import Dataset
from transformers import (
    AutoModelForCausalLM,
    Gemma2Config,
    LlamaConfig,
    MistralConfig,
    Qwen2Config,
    Qwen3Config,
)
from trl.trainer.dpo_config import DPOConfig
from trl.trainer.dpo_trainer import DPOTrainer

from trainers.batches import PromptsTogether, within
from trainers.dpo import dpo_trainer
from trainers.settings import DPOSettings, LoRA, Loss
from trainers.sharing import lay_out

SHAPE: dict[str, Any] = {
    "vocab_size": 400,
    "hidden_size": 32,
    "intermediate_size": 64,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "max_position_embeddings": 512,
    "pad_token_id": 2,
    "eos_token_id": 2,
}
MODELS: dict[str, Any] = {
    "llama": LlamaConfig(**SHAPE, tie_word_embeddings=True),
    "mistral": MistralConfig(**SHAPE, sliding_window=None),
    "mistral, window of 12": MistralConfig(**SHAPE, sliding_window=12),
    "qwen2": Qwen2Config(**SHAPE),
    "qwen3": Qwen3Config(**SHAPE, head_dim=16),
}
LENGTHS = [(9, 7, 4), (3, 1, 12), (1, 5, 5), (20, 11, 2), (2, 1, 1), (14, 18, 18), (0, 6, 3), (30, 8, 9)]
"""Tokens of prompt, chosen and rejected."""


def rows(seed: int = 0) -> Dataset:
    """Odd lengths, an empty prompt, one-token answers; two pairs share a prompt, and an answer."""
    chance = torch.Generator().manual_seed(seed)

    def some(count: int) -> list[int]:
        return torch.randint(4, 400, (count,), generator=chance).tolist()

    made = [
        dict(zip(("prompt_ids", "chosen_ids", "rejected_ids"), map(some, n), strict=True)) for n in LENGTHS
    ]
    made[1]["rejected_ids"] = list(made[1]["chosen_ids"])  # identical answers
    made[7] = {**made[3], "rejected_ids": some(9)}
    return Dataset.from_list([row | {"length": sum(map(len, row.values()))} for row in made])


@pytest.fixture
def losses_and_gradients(
    tokenizer: Any, tmp_path: Path
) -> Callable[..., tuple[dict[str, float], dict[str, torch.Tensor]]]:
    """One backward pass over all rows, by TRL alone or by us; the policy is not its reference."""

    def run(ours: bool, config: Any, **settings: Any) -> Any:
        wanted = {
            "batch": 8,
            "micro_batch": 8,
            "max_length": 64,
            "compute": "float32",
            "beta": 0.3,
        } | settings
        if "exo_pair" in str(wanted.get("loss")) or wanted.get("loss") == "robust":
            wanted["label_smoothing"] = 0.1
        asked = DPOSettings(**wanted, precompute_reference=True)
        torch.manual_seed(0)
        model: Any = AutoModelForCausalLM.from_config(config)
        data = rows().add_column("ref_chosen_logps", [-30.0, -8, -25, -60, -6, -99, -31, -61])  # type: ignore[call-arg]
        data = data.add_column("ref_rejected_logps", [-20.0, -8, -27, -13, -5, -99, -15, -50])  # type: ignore[call-arg]
        if ours:
            plain = data.remove_columns(["ref_chosen_logps", "ref_rejected_logps"])
            trainer: Any = dpo_trainer(asked, model, tokenizer, plain, None, tmp_path / "ours", 1, [])
            assert trainer.not_shared is None
        else:
            trainer = stock(asked, model, tokenizer, data, tmp_path / "theirs")
        torch.manual_seed(1)
        for name, parameter in trainer.model.named_parameters():
            if "lora_" in name:
                torch.nn.init.normal_(parameter, std=0.1)
        trainer.model.train()
        step = trainer.args.gradient_accumulation_steps
        trainer.current_gradient_accumulation_steps = step
        size = len(data) // step
        total = 0.0
        for i in range(step):
            batch = trainer.data_collator([data[j] for j in range(i * size, (i + 1) * size)])
            total += float(trainer.training_step(trainer.model, batch))
        metrics = {n: sum(map(float, v)) / len(v) for n, v in trainer._metrics["train"].items()} | {
            "loss": total
        }
        gradients = {n: p.grad for n, p in trainer.model.named_parameters() if p.grad is not None}
        return metrics, gradients

    return run


class Stock(DPOTrainer):
    """TRL's trainer on rows that are tokens and have their reference already."""

    def _prepare_dataset(self, dataset: Any, *args: Any, **kwargs: Any) -> Any:
        return dataset

    def _precompute_ref_logps(self, dataset: Any, *args: Any, **kwargs: Any) -> Any:
        return dataset


def stock(settings: DPOSettings, model: Any, tokenizer: Any, data: Dataset, out: Path) -> DPOTrainer:
    from trainers.arguments import adapter

    return Stock(
        model=model,
        args=DPOConfig(
            output_dir=str(out),
            use_cpu=True,
            bf16=False,
            report_to="none",
            beta=settings.beta,
            loss_type=list(settings.losses),
            loss_weights=list(settings.losses.values()),
            label_smoothing=settings.label_smoothing,
            precompute_ref_log_probs=True,
            per_device_train_batch_size=settings.micro_batch,
            gradient_accumulation_steps=settings.batch // settings.micro_batch,
            gradient_checkpointing=settings.gradient_checkpointing,
            max_length=settings.max_length,
            remove_unused_columns=False,
        ),
        train_dataset=data,
        processing_class=tokenizer,
        peft_config=adapter(settings, model.config.num_hidden_layers),
    )


def assert_same(theirs: Any, ours: Any, relative: float = 1e-5) -> None:
    metrics, gradients = theirs
    assert metrics.keys() == ours[0].keys()
    for name, value in metrics.items():
        assert ours[0][name] == pytest.approx(value, rel=relative, abs=relative), name
    assert gradients.keys() == ours[1].keys()
    largest = max(float(g.abs().max()) for g in gradients.values())
    for name, gradient in gradients.items():
        scale = max(float(gradient.abs().max()), 1e-3 * largest)
        assert float((ours[1][name] - gradient).abs().max()) <= relative * scale, name


@pytest.mark.parametrize("loss", get_args(Loss))
def test_every_loss_has_trls_value_metrics_and_gradients(loss: str, losses_and_gradients: Any):
    found = [losses_and_gradients(ours, MODELS["llama"], loss=loss) for ours in (False, True)]
    assert_same(*found)


@pytest.mark.parametrize("lora", [None, LoRA(r=4)], ids=["all weights", "lora"])
@pytest.mark.parametrize("checkpointing", [False, True], ids=["", "checkpointing"])
@pytest.mark.parametrize("kind", MODELS)
def test_every_kind_of_model_has_trls_gradients(
    kind: str, checkpointing: bool, lora: Any, losses_and_gradients: Any
):
    found = [
        losses_and_gradients(ours, MODELS[kind], lora=lora, gradient_checkpointing=checkpointing)
        for ours in (False, True)
    ]
    assert_same(*found)


@pytest.mark.parametrize("max_length", [5, 12, 21, 32])
def test_rows_that_the_collator_cuts_have_trls_gradients(max_length: int, losses_and_gradients: Any):
    found = [
        losses_and_gradients(
            ours, MODELS["llama"], max_length=max_length + 16, loss={"sigmoid": 1, "sft": 0.2}
        )
        for ours in (False, True)
    ]
    assert_same(*found)


def test_accumulated_steps_have_trls_gradients(losses_and_gradients: Any):
    found = [losses_and_gradients(ours, MODELS["llama"], micro_batch=2) for ours in (False, True)]
    assert_same(*found)


@pytest.mark.parametrize("budget", [64, 90, 1000])
def test_a_budget_of_tokens_changes_no_gradient(budget: int, losses_and_gradients: Any):
    whole = losses_and_gradients(True, MODELS["llama"])
    split = losses_and_gradients(True, MODELS["llama"], micro_tokens=budget)
    of_pairs = {"loss", "num_tokens", *(name for name in whole[0] if name.startswith(("rewards", "logps")))}
    for metrics, _ in (whole, split):  # the others are means over the tokens of a pass
        for name in metrics.keys() - of_pairs:
            del metrics[name]
    assert_same(whole, split)


def test_a_row_holds_every_prompt_and_every_answer_to_it_once():
    prompt, other = [5, 6, 7], [5, 6, 8]
    sequences = [[*prompt, 1, 2], [*prompt, 3], [*other, 1, 2], [*prompt, 1, 2]]
    ids = torch.tensor([s + [0] * (5 - len(s)) for s in sequences])
    labels = torch.full_like(ids, -100)
    for row, sequence in enumerate(sequences):
        labels[row, 3 : len(sequence)] = torch.tensor(sequence[3:])
    row = lay_out(ids, labels)
    assert row is not None
    assert row.ids.tolist() == [5, 6, 7, 1, 7, 8, 1]  # the last token of a prompt begins each answer
    assert row.positions.tolist() == [0, 1, 2, 3, 2, 2, 3]
    assert row.targets.tolist() == [-100, -100, 1, 2, 3, 1, 2]
    assert row.places.tolist() == [2, 3, 4, 5, 6, 2, 3]
    assert row.keys.tolist() == [0, 1, 2, 3, 0, 1, 4, 0, 1, 5, 6]


def test_scored_tokens_in_two_stretches_are_refused():
    ids = torch.arange(6)[None]
    labels = torch.tensor([[-100, 1, -100, -100, 4, 5]])
    with pytest.raises(ValueError, match="not one stretch"):
        lay_out(ids, labels)


def test_a_model_whose_attention_is_not_ours_says_why_and_trains_as_trl_does(tokenizer: Any, tmp_path: Path):
    config = Gemma2Config(**SHAPE, head_dim=8)  # caps its attention's logits
    model: Any = AutoModelForCausalLM.from_config(config)
    asked = DPOSettings(batch=8, micro_batch=8, max_length=64, max_steps=1, compute="float32")
    trainer: Any = dpo_trainer(asked, model, tokenizer, rows(), None, tmp_path, 1, [])
    assert trainer.not_shared == "its attention caps logits"
    trainer.train()
    assert trainer.state.log_history[0]["loss"] == pytest.approx(0.693147, abs=1e-5)


def test_a_model_that_would_answer_otherwise_is_found_out_before_it_trains(
    tokenizer: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    import trainers.sharing

    def wrong(ids: torch.Tensor, labels: torch.Tensor) -> Any:
        row = lay_out(ids, labels)
        assert row is not None
        return row._replace(positions=torch.arange(len(row.ids)))  # as if the answers followed each other

    monkeypatch.setattr(trainers.sharing, "lay_out", wrong)
    config = LlamaConfig(**SHAPE, initializer_range=0.5)  # far from uniform, as a trained model is
    model: Any = AutoModelForCausalLM.from_config(config)
    asked = DPOSettings(batch=8, micro_batch=8, max_length=64, max_steps=1, compute="float32")
    trainer: Any = dpo_trainer(asked, model, tokenizer, rows(), None, tmp_path, 1, [])
    assert "nats a token" in str(trainer.not_shared)
    trainer.train()
    assert trainer.state.log_history[0]["loss"] == pytest.approx(0.693147, abs=1e-5)


def test_pairs_of_one_prompt_follow_each_other_in_an_order_that_the_epoch_draws():
    prompts = [(i % 5,) for i in range(20)]
    sampler = PromptsTogether(prompts, seed=3)
    first = list(sampler)
    assert sorted(first) == list(range(20)) and first == list(sampler)
    assert all(len({prompts[row] for row in first[i : i + 4]}) == 1 for i in range(0, 20, 4))
    sampler.set_epoch(1)
    assert list(sampler) != first


@pytest.mark.parametrize(
    "lengths, budget, wanted", [([3, 3, 3, 3], 6, [[0, 1], [2, 3]]), ([9, 1, 1], 6, [[0], [1, 2]])]
)
def test_pairs_are_taken_while_their_tokens_fit(lengths: Any, budget: int, wanted: Any):
    assert within(lengths, budget) == wanted
