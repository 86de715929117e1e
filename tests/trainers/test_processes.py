"""Several processes train what one trains: the same steps, losses and weights."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import torch
from safetensors.torch import load_file

from tests.trainers.conftest import dialogue, pair
from tests.trainers.processes import Together
from trainers.batches import Order, PromptsTogether, Steps

APART = 2e-6
"""Of weights of about 0.02, after steps of 1e-3: sums in another order, in float32."""


@pytest.fixture
def uneven(job: Callable[..., Any], tmp_path: Path) -> Callable[..., Any]:
    """A job of 22 rows in steps of 8, so that the last step of an epoch has 6; its file and its job."""

    def make(name: str, kind: str = "dpo", **settings: Any) -> tuple[Path, dict[str, Any]]:
        row = pair if kind == "dpo" else dialogue
        asked = job(kind, settings={"micro_batch": 2, "save_every": 2, **settings}, out=str(tmp_path / name))
        pq.write_table(pa.Table.from_pylist([row(i) for i in range(22)]), asked["train"]["files"][0])
        path = tmp_path / f"{name}.json"
        path.write_text(json.dumps(asked))
        return path, asked

    return make


def losses(asked: dict[str, Any]) -> list[float]:
    return [line["loss"] for line in json.loads((Path(asked["out"]) / "metrics.json").read_text())["train"]]


def assert_same(one: dict[str, Any], other: dict[str, Any], apart: float = APART) -> None:
    assert losses(one) == pytest.approx(losses(other), abs=2e-5)
    weights = [load_file(Path(asked["out"]) / "model.safetensors") for asked in (one, other)]
    furthest = max(float((weights[0][name] - weights[1][name]).abs().max()) for name in weights[0])
    assert furthest <= apart


@pytest.mark.parametrize(
    "kind, settings",
    [
        ("dpo", {"optimizer": "rmsprop", "learning_rate": 1e-4}),
        ("dpo", {"optimizer": "rmsprop", "learning_rate": 1e-4, "micro_tokens": 200}),
        ("sft", {"optimizer": "rmsprop", "learning_rate": 1e-4, "lora": {"r": 4}}),
    ],
    ids=["dpo", "dpo, token budget", "sft, lora"],
)
def test_two_processes_equal_one(kind: str, settings: dict[str, Any], uneven: Callable[..., Any]):
    one, alone = uneven("one", kind, **settings)
    two, together = uneven("two", kind, **settings)
    Together(one, 1).wait()
    Together(two, 2).wait()
    assert len(losses(together)) == 6
    assert_same(alone, together)


@pytest.mark.parametrize("before, after", [(2, 1), pytest.param(1, 2, marks=pytest.mark.long)])
def test_a_killed_run_goes_on_with_another_number_of_processes(
    before: int, after: int, uneven: Callable[..., Any]
):
    one, alone = uneven("one", learning_rate=1e-4)
    Together(one, 1).wait()
    path, asked = uneven("broken", learning_rate=1e-4)
    assert -9 in Together(path, before, dies_at=4).ended()
    again = Together(path, after)
    again.wait()
    assert json.loads((Path(asked["out"]) / "metrics.json").read_text())["resumed_from_step"] == 2
    assert_same(alone, asked)


@pytest.mark.long
@pytest.mark.parametrize("kind, settings", [("dpo", {}), ("dpo", {"lora": {"r": 4}}), ("sft", {})])
def test_shards_of_fsdp2_equal_one_process(kind: str, settings: dict[str, Any], uneven: Callable[..., Any]):
    from tests.trainers.test_launch import environment

    kept = ("FSDP_", "ACCELERATE_")
    said = {name: value for name, value in environment("fsdp2").items() if name.startswith(kept)}
    said |= {"ACCELERATE_MIXED_PRECISION": "no", "ACCELERATE_USE_CPU": "true"}
    one, alone = uneven("one", kind, learning_rate=1e-4, **settings)
    two, sharded = uneven("two", kind, learning_rate=1e-4, **settings)
    Together(one, 1).wait()
    Together(two, 2, environment=said).wait()
    assert_same(alone, sharded)


def test_processes_that_train_apart_are_found_out():
    from types import SimpleNamespace

    from trainers.checkpoints import TrainingFailed
    from trainers.processes import check_alike

    def trainer(other: float) -> Any:
        gather = SimpleNamespace(gather=lambda own: torch.cat([own, own * other]))
        return SimpleNamespace(accelerator=gather, model=torch.nn.Linear(3, 3))

    check_alike(trainer(1.0))
    with pytest.raises(TrainingFailed, match="have trained apart"):
        check_alike(trainer(1.001))


@pytest.mark.parametrize("rows, size, micro", [(22, 8, 2), (16, 8, 8), (9, 4, 1), (7, 16, 3), (1, 2, 2)])
@pytest.mark.parametrize("processes", [1, 2, 3, 5])
def test_a_step_is_the_same_rows_whatever_the_number_of_processes(
    rows: int, size: int, micro: int, processes: int
):
    every = [Steps(Order(rows, 3), size, micro, number, processes) for number in range(processes)]
    passes = [list(steps) for steps in every]
    assert {len(own) for own in passes} == {len(every[0])}, "they pass together"
    assert all(0 < len(some) <= micro for own in passes for some in own)
    order, start = list(Order(rows, 3)), 0
    for begin in range(0, rows, size):
        step = order[begin : begin + size]
        count = -(-len(step) // (processes * micro))
        seen = [row for own in passes for some in own[start : start + count] for row in some if row != rows]
        assert seen == step
        start += count


def test_the_order_is_drawn_by_seed_and_epoch_alone():
    one, other = Order(50, 1), PromptsTogether([(i,) for i in range(50)], 1)
    first = list(one)
    one.set_epoch(1)
    assert list(one) != first and sorted(one) == sorted(first)
    one.set_epoch(0)
    assert list(one) == first == list(other)
    lengths = [i % 7 for i in range(50)]
    grouped = list(Order(50, 1, lengths, 10))
    assert sorted(grouped) == list(range(50)) and grouped == list(Order(50, 1, lengths, 10))
