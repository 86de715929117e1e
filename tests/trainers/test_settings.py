"""Settings that cannot mean what they say are refused, and all others become TRL's."""

import json
from pathlib import Path
from typing import Any, get_args

import pytest
from pydantic import ValidationError

from trainers.arguments import OPTIMIZERS, adapter
from trainers.guards import BadInput, check_base, check_reference, check_settings, moved_share
from trainers.settings import DPOSettings, LoRA, Loss, Optimizer, SFTSettings


def test_accumulation_follows_from_the_batch_people_mean():
    assert SFTSettings(batch=64, micro_batch=4).accumulation(devices=2) == 8
    pairs = DPOSettings(batch=30, micro_batch=4)  # a step's pairs are dealt out as they come
    assert pairs.accumulation(devices=4) == 1 and pairs.rows_per_step(devices=4) == 8
    with pytest.raises(
        ValueError, match="batch=30 is not a multiple of micro_batch=4 x 2 devices; set batch to a mul"
    ):
        SFTSettings(batch=30, micro_batch=4).accumulation(devices=2)


def test_the_earlier_of_epochs_and_steps_ends_training():
    settings: dict[str, Any] = {"batch": 8, "micro_batch": 8}
    assert SFTSettings(**settings, epochs=3).steps(20) == 9
    assert SFTSettings(**settings, epochs=3, max_steps=4).steps(20) == 4
    assert SFTSettings(**settings, epochs=1, max_steps=40).steps(20) == 3
    assert SFTSettings(**settings, epochs=None, max_steps=40).steps(20) == 40


@pytest.mark.parametrize(
    "wrong, words",
    [
        ({"epochs": None}, "never ends"),
        ({"loss": "exo_pair"}, "exo_pair"),
        ({"loss": {}}, "name at least one loss"),
        ({"loss": {"sigmoid": 1, "sft": 0}}, "weight above 0"),
        ({"label_smoothing": 0.1}, "does nothing with loss='sigmoid'"),
        ({"lora": {"dropout": 0.05}}, "lora.dropout=0.05 would become 0"),
        ({"lora": {"target": ("q_proj", "lm_head")}}, "never trained"),
        ({"max_prompt": 1024}, "leaves no room"),
        ({"learning_rte": 1}, "learning_rte"),
    ],
)
def test_dpo_settings_that_cannot_hold_are_refused(wrong: dict[str, Any], words: str):
    with pytest.raises(ValidationError, match=words):
        DPOSettings.model_validate(wrong)


@pytest.mark.parametrize("rate, share", [(5e-7, 0.01), (5e-6, 0.1), (2e-5, 0.39)])
def test_bfloat16_weights_that_would_not_move_are_refused(rate: float, share: float):
    frozen = DPOSettings(dtype="bfloat16", learning_rate=rate, optimizer="rmsprop")
    assert moved_share(frozen) == pytest.approx(share, abs=0.01)
    with pytest.raises(BadInput, match="rounded away; set dtype: float32, or lora"):
        check_settings(frozen)
    check_settings(frozen.model_copy(update={"lora": LoRA()}))
    check_settings(frozen.model_copy(update={"dtype": "float32"}))
    check_settings(frozen.model_copy(update={"optimizer": "adamw"}))


def test_an_adapter_is_refused_as_a_base_and_its_base_is_named(tmp_path: Path):
    (tmp_path / "adapter_config.json").write_text(json.dumps({"base_model_name_or_path": "me/sft"}))
    with pytest.raises(BadInput, match="is a LoRA adapter on 'me/sft', not a model"):
        check_base(tmp_path)


def test_a_reference_of_another_base_is_noticed_before_training():
    check_reference(DPOSettings(), {"loss": 0.693147})
    with pytest.raises(BadInput, match=r"loss before training is 0\.8000 and not ln 2"):
        check_reference(DPOSettings(), {"loss": 0.8})


def test_adapters_in_bfloat16_are_moved_to_float32_and_counted():
    import torch

    from trainers.guards import adapters_in_float32

    model = torch.nn.ModuleDict(
        {"lora_A": torch.nn.Linear(2, 2, dtype=torch.bfloat16), "base": torch.nn.Linear(2, 2)}
    )
    assert adapters_in_float32(model) == 2
    assert all(parameter.dtype == torch.float32 for parameter in model.parameters())


@pytest.mark.parametrize("loss", get_args(Loss))
def test_every_loss_makes_a_config(loss: Any, tmp_path: Path):
    from trainers.dpo import dpo_config

    smoothing = 0.001 if loss in ("exo_pair", "robust") else 0.0
    config = dpo_config(DPOSettings(loss={loss: 0.5}, label_smoothing=smoothing), tmp_path, 1)
    assert config.loss_type == [loss] and config.loss_weights == [0.5]


@pytest.mark.parametrize("scheduler", ["cosine", "linear", "constant"])
@pytest.mark.parametrize("optimizer", get_args(Optimizer))
@pytest.mark.parametrize("switch", [False, True])
def test_every_sft_config_we_can_produce_constructs(
    scheduler: Any, optimizer: Any, switch: bool, tmp_path: Path
):
    from trainers.sft import sft_config

    settings = SFTSettings(
        scheduler=scheduler,
        optimizer=optimizer,
        packing=switch,
        group_by_length=switch,
        gradient_checkpointing=switch,
        save_every=10 if switch else None,
    )
    config = sft_config(settings, tmp_path, 1)
    assert config.gradient_accumulation_steps == 16 and config.learning_rate == 2e-5
    assert config.optim == OPTIMIZERS[settings.optimizer]
    assert config.gradient_checkpointing is switch


@pytest.mark.parametrize(
    "settings, copies",
    [
        ({}, True),
        ({"dtype": "bfloat16", "optimizer": "adamw_8bit_stochastic"}, True),
        ({"dtype": "bfloat16", "lora": {}}, True),
        ({"lora": {}}, False),
        ({"optimizer": "rmsprop"}, False),
    ],
    ids=["masters", "no masters", "adapters", "frozen float32", "no masters known"],
)
def test_bfloat16_is_computed_in_copies_of_the_weights_or_else_by_autocast(
    settings: dict[str, Any], copies: bool, tmp_path: Path
):
    from trainers.dpo import dpo_config

    asked = DPOSettings.model_validate({"compute": "bfloat16", **settings})
    assert dpo_config(asked, tmp_path, 1).bf16 is not copies
    assert not dpo_config(asked.model_copy(update={"compute": "float32"}), tmp_path, 1).bf16


def test_adapters_can_sit_on_the_last_blocks_only():
    made = adapter(DPOSettings(lora=LoRA(last_layers=2)), layers=6)
    assert made.layers_to_transform == [4, 5] and "q_proj" in made.target_modules
    assert adapter(DPOSettings(), layers=6) is None
