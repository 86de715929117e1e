"""What training does to the numbers: losses, gradients, batches, the head."""

from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from datasets import Dataset
from torch import Tensor
from transformers import AutoModelForCausalLM

from tests.trainers.conftest import dialogue, pair
from trainers.dpo import dpo_trainer
from trainers.rows import dialogues_to_tokens, pairs_to_tokens
from trainers.settings import DPOSettings, LoRA, SFTSettings
from trainers.sft import sft_trainer

SMALL: dict[str, Any] = {
    "learning_rate": 1e-2,
    "batch": 8,
    "micro_batch": 4,
    "max_length": 128,
    "warmup": 0.0,
}
SMALL |= {"compute": "float32", "scheduler": "constant", "epochs": None}


@pytest.fixture
def trained(tiny: Path, tokenizer: Any, tmp_path: Path) -> Callable[..., Any]:
    """Train the tiny model for two steps and give the trainer."""

    def run(kind: str = "dpo", **settings: Any) -> Any:
        settings = SMALL | {"max_steps": 2} | settings
        model = AutoModelForCausalLM.from_pretrained(tiny)
        torch.manual_seed(0)
        if kind == "dpo":
            dpo = DPOSettings(**settings)
            rows = pairs_to_tokens(Dataset.from_list([pair(i) for i in range(16)]), tokenizer, dpo).tokens
            made: Any = dpo_trainer(dpo, model, tokenizer, rows, None, tmp_path, 1, [])
        else:
            sft = SFTSettings(**settings)
            rows = dialogues_to_tokens(
                Dataset.from_list([dialogue(i) for i in range(16)]), tokenizer, sft
            ).tokens
            made = sft_trainer(sft, model, tokenizer, rows, None, tmp_path, 1, [])
        made.train()
        return made

    return run


@pytest.mark.parametrize("kind", ["sft", "dpo"])
def test_all_weights_move_without_an_adapter(kind: str, trained: Callable[..., Any], tiny: Path):
    before = AutoModelForCausalLM.from_pretrained(tiny).state_dict()
    after = trained(kind).model.state_dict()
    assert [name for name in before if torch.equal(before[name], after[name])] == []


@pytest.mark.parametrize("kind", ["sft", "dpo"])
def test_with_an_adapter_it_moves_and_the_base_does_not(kind: str, trained: Callable[..., Any], tiny: Path):
    before = AutoModelForCausalLM.from_pretrained(tiny).state_dict()
    after = trained(kind, lora=LoRA(r=4)).model.state_dict()
    base = {name.replace("base_model.model.", "").replace("base_layer.", ""): name for name in after}
    assert all(torch.equal(before[name], after[base[name]]) for name in before)
    assert all(after[name].abs().max() > 0 for name in after if "lora_B" in name)


@pytest.mark.parametrize("lora", [None, LoRA(r=4)], ids=["all weights", "lora"])
def test_one_batch_of_eight_equals_eight_of_one(lora: Any, trained: Callable[..., Any]):
    whole = trained(micro_batch=8, lora=lora, optimizer="rmsprop", learning_rate=1e-3)
    split = trained(micro_batch=1, lora=lora, optimizer="rmsprop", learning_rate=1e-3)
    for one, other in zip(whole.model.parameters(), split.model.parameters(), strict=True):
        assert torch.allclose(one, other, atol=2e-5)
    losses = [[line["loss"] for line in t.state.log_history if "loss" in line] for t in (whole, split)]
    assert losses[0] == pytest.approx(losses[1], abs=1e-5)


@pytest.mark.parametrize("precomputed", [True, False])
@pytest.mark.parametrize("lora", [None, LoRA(r=4)], ids=["all weights", "lora"])
def test_the_first_loss_is_ln_2(precomputed: bool, lora: Any, trained: Callable[..., Any]):
    history = trained(precompute_reference=precomputed, lora=lora, max_steps=1).state.log_history
    assert history[0]["loss"] == pytest.approx(0.693147, abs=1e-5)


GOLDEN = [("sigmoid", 0.1, 0.513015), ("sigmoid", 0.01, 0.673347), ("hinge", 0.1, 0.6), ("hinge", 0.01, 0.96)]


@pytest.mark.parametrize("loss, beta, wanted", GOLDEN)
def test_losses_and_rewards_on_numbers_worked_by_hand(
    loss: Any, beta: float, wanted: float, trained: Callable[..., Any]
):
    """Policy -10 and -15, reference -12 and -13: rewards beta * 2 and beta * -2, margin beta * 4."""
    trainer = trained(loss=loss, beta=beta, max_steps=1)
    trainer._metrics["train"].clear()
    mask = torch.tensor([[0, 1], [0, 1]])
    inputs = {
        "input_ids": torch.ones(2, 2, dtype=torch.long),
        "attention_mask": torch.ones(2, 2),
        "completion_mask": mask,
        "ref_chosen_logps": torch.tensor([-12.0]),
        "ref_rejected_logps": torch.tensor([-13.0]),
    }

    def policy(**_: Any) -> SimpleNamespace:
        zeros = torch.zeros(2, 1)
        logps = torch.tensor([[-10.0], [-15.0]])
        return SimpleNamespace(log_probs=logps, entropy=zeros, mean_logits=zeros, is_top1=zeros.bool())

    assert trainer._compute_loss(policy, inputs, False).item() == pytest.approx(wanted, abs=1e-6)
    metrics = {name: values[0] for name, values in trainer._metrics["train"].items()}
    assert metrics["rewards/chosen"] == pytest.approx(2 * beta)
    assert metrics["rewards/rejected"] == pytest.approx(-2 * beta)
    assert metrics["rewards/margins"] == pytest.approx(4 * beta)


@pytest.mark.parametrize("trained_head", [False, True])
def test_the_lean_head_gives_trls_numbers_and_gradients(trained_head: bool, tiny: Path):
    from trl.trainer.utils import add_fused_lm_head

    from trainers.head import score_only_answers

    ids = torch.randint(4, 400, (4, 30), generator=torch.Generator().manual_seed(1))
    labels = ids.masked_fill(torch.arange(30) < 12, -100)
    labels[1, 20:] = -100
    found: list[dict[str, Tensor]] = []
    for lean in (False, True):
        model: Any = AutoModelForCausalLM.from_pretrained(tiny)
        model.get_output_embeddings().weight.requires_grad_(trained_head)
        add_fused_lm_head(model, outputs=("log_probs", "entropy", "mean_logits", "is_top1"))
        if lean:
            assert score_only_answers(model)
        out: Any = model(input_ids=ids, labels=labels, fused_lm_head=True)
        (out.log_probs.sum(1) * torch.tensor([1.0, -2.0, 0.5, 3.0])).sum().backward()
        found.append(
            {name: getattr(out, name) for name in ("log_probs", "entropy", "mean_logits", "is_top1")}
        )
        found[-1] |= {name: p.grad for name, p in model.named_parameters() if p.grad is not None}
    theirs, ours = found
    assert theirs.keys() == ours.keys()
    for name in theirs:
        scale = theirs[name].float().abs().max().clamp(min=1e-3)
        assert ((ours[name].float() - theirs[name].float()).abs().max() / scale) < 1e-5, name


def test_rows_of_similar_length_can_be_batched_together(trained: Callable[..., Any]):
    history = trained(group_by_length=True, lora=LoRA(r=2)).state.log_history
    assert history[0]["loss"] == pytest.approx(0.693147, abs=1e-5)


@pytest.mark.parametrize("kind", ["sft", "dpo"])
@pytest.mark.parametrize(
    "settings, kept",
    [
        ({}, torch.float32),
        ({"dtype": "bfloat16", "optimizer": "adamw_8bit_stochastic"}, torch.bfloat16),
        ({"dtype": "bfloat16", "lora": LoRA(r=4)}, torch.float32),
    ],
    ids=["masters", "no masters", "adapters"],
)
def test_bfloat16_training_follows_float32s_and_its_weights_move(
    kind: str, settings: dict[str, Any], kept: torch.dtype, trained: Callable[..., Any]
):
    from trainers.precision import finish

    common = {"learning_rate": 1e-3 if "lora" in settings else 1e-4, "max_steps": 4}
    exact = trained(kind, **common, lora=settings.get("lora"))
    trainer = trained(kind, **common, **settings, compute="bfloat16")
    weights = [p for p in trainer.model.parameters() if p.requires_grad]
    assert {p.dtype for p in weights} == {torch.bfloat16} and not trainer.args.bf16
    losses = [[line["loss"] for line in t.state.log_history if "loss" in line] for t in (exact, trainer)]
    assert losses[1] == pytest.approx(losses[0], abs=0.02) and losses[1] != losses[0]
    moved = finish(trainer)
    assert moved and (moved > 0.7 or kept == torch.bfloat16)
    assert {p.dtype for p in weights} == {kept}
