"""Small steps arrive: on average where they are rounded, exactly where there are masters."""

import copy
from typing import Any

import pytest
import torch
from torch import Tensor

from trainers.optimizers import BLOCK, AdamW, pack, pack_signed, to_bfloat16, unpack, unpack_signed, updated

TIMES = 2000


def dice(times: int, size: int, bits: int) -> Tensor:
    chance = torch.Generator().manual_seed(1)
    return torch.randint(0, 2**bits, (times, size), generator=chance, dtype=torch.int32)


def spread(size: int = BLOCK) -> Tensor:
    """Values over six orders of magnitude."""
    chance = torch.Generator().manual_seed(0)
    return 10 ** (-6 * torch.rand(size, generator=chance))


def test_rounding_by_chance_is_right_on_average():
    values = spread() * torch.where(torch.arange(BLOCK) % 2 == 0, 1, -1)
    mean = sum(to_bfloat16(values, row).double() for row in dice(TIMES, BLOCK, 16)) / TIMES
    error = (mean - values).abs() / values.abs()
    assert error.max() < 5 * 2**-8 / TIMES**0.5 and error.mean() < 2**-8 / TIMES**0.5
    exact = values.bfloat16().float()
    assert torch.equal(to_bfloat16(exact, dice(1, BLOCK, 16)[0]).float(), exact)


@pytest.mark.parametrize("signed", [True, False])
def test_eight_bits_are_right_on_average(signed: bool):
    values = spread() * (torch.where(torch.arange(BLOCK) % 2 == 0, 1, -1) if signed else 1)
    there, back = (pack_signed, unpack_signed) if signed else (pack, unpack)
    every = torch.stack([back(*there(values, row)).double() for row in dice(TIMES, BLOCK, 20)])
    large = values.abs() > values.abs().max() * 2**-14
    error = (every.mean(0) - values).abs() / values.abs()
    assert error[large].max() < 5 * 2**-3 / TIMES**0.5
    assert error.max() < 5 * 4 / TIMES**0.5, "2^-20 is 0 in fifteen of sixteen draws"
    assert ((every - values).abs() / values.abs())[:, large].max() < 2**-3, "never further than the next code"
    assert signed or every.min() > 0, "a square is never lost: a step is divided by its root"


def test_nothing_is_made_of_nothing():
    zeros = torch.zeros(2 * BLOCK)
    for there, back in ((pack, unpack), (pack_signed, unpack_signed)):
        assert torch.equal(back(*there(zeros, dice(1, 2 * BLOCK, 20)[0])), zeros)


def trained(bits: int, dtype: torch.dtype, masters: bool, rate: float = 1e-3, steps: int = 80) -> Any:
    """A line of 8000 weights fitted by least squares; the optimizer and the weights."""
    chance = torch.Generator().manual_seed(0)
    start, wanted = (0.02 * torch.randn(100, 80, generator=chance) for _ in range(2))
    weight = torch.nn.Parameter(start.clone().to(dtype))
    optimizer = AdamW([weight], rate, bits=bits, masters={weight: start.clone()} if masters else None, seed=3)
    for _ in range(steps):
        weight.grad = (weight.detach().float() - wanted).to(dtype)
        optimizer.step()
    return optimizer, weight, start, wanted


def test_in_float32_it_is_torchs():
    _, weight, start, wanted = trained(32, torch.float32, masters=False)
    theirs = torch.nn.Parameter(start.clone())
    optimizer = torch.optim.AdamW([theirs], 1e-3, weight_decay=0.0)
    for _ in range(80):
        theirs.grad = theirs.detach() - wanted
        optimizer.step()
    assert torch.allclose(weight, theirs, atol=1e-6)


def test_masters_are_what_float32_training_gives_for_the_same_gradients():
    start = torch.randn(50, 40, generator=torch.Generator().manual_seed(0))
    copies, whole = torch.nn.Parameter(start.bfloat16()), torch.nn.Parameter(start.clone())
    ours, theirs = AdamW([copies], 5e-7, masters={copies: start.clone()}), torch.optim.AdamW([whole], 5e-7)
    for group in theirs.param_groups:
        group["weight_decay"] = 0.0
    for i in range(20):
        gradient = torch.randn(50, 40, generator=torch.Generator().manual_seed(i)).bfloat16()
        copies.grad, whole.grad = gradient, gradient.float()
        ours.step()
        theirs.step()
    assert torch.equal(copies, ours.state[copies]["master"].view_as(copies).bfloat16())
    ours.to_masters()
    assert copies.dtype == torch.float32 and torch.allclose(copies, whole, atol=1e-8)


@pytest.mark.parametrize("bits, masters", [(32, True), (32, False), (8, True), (8, False)])
def test_steps_of_5e_7_arrive_though_the_weights_are_bfloat16(bits: int, masters: bool):
    _, _, start, _ = exact = trained(32, torch.float32, masters=False, rate=5e-7)
    optimizer, weight, *_ = trained(bits, torch.bfloat16, masters, rate=5e-7)
    optimizer.to_masters()
    way, wanted = weight.detach().float() - start, exact[1].detach() - start
    along = (way * wanted).sum() / (wanted * wanted).sum()
    assert along == pytest.approx(1, abs=0.05), "as far, in the same direction, as float32 goes"


def test_plain_adamw_leaves_bfloat16_weights_where_they_are():
    """What the others are for; where this fails, they are not needed."""
    weight = torch.nn.Parameter(
        (0.02 * torch.randn(100, 80, generator=torch.Generator().manual_seed(0))).bfloat16()
    )
    start, optimizer = weight.detach().clone(), torch.optim.AdamW([weight], 5e-7, weight_decay=0.0)
    for _ in range(80):
        weight.grad = torch.ones_like(weight)
        optimizer.step()
    assert (weight != start).float().mean() < 0.05


@pytest.mark.parametrize("bits", [32, 8])
def test_what_is_kept_goes_on_where_it_stopped(bits: int):
    for masters in (False, True):
        whole = trained(bits, torch.bfloat16, masters, steps=20)[1]
        optimizer, weight, _, wanted = trained(bits, torch.bfloat16, masters, steps=12)
        kept = copy.deepcopy(optimizer.state_dict())
        again = torch.nn.Parameter(weight.detach().clone())
        other = AdamW([again], 1e-3, bits=bits, seed=3)
        other.load_state_dict(kept)
        for _ in range(8):
            again.grad = (again.detach().float() - wanted).bfloat16()
            other.step()
        assert torch.equal(again, whole)


def test_the_parts_of_a_large_tensor_are_updated_alike(monkeypatch: pytest.MonkeyPatch):
    import trainers.optimizers

    whole = trained(8, torch.float32, masters=False, steps=3)[1]
    monkeypatch.setattr(trainers.optimizers, "CHUNK", 8 * BLOCK)
    assert torch.allclose(whole, trained(8, torch.float32, masters=False, steps=3)[1], atol=1e-3)


@pytest.mark.long
def test_a_compiled_update_gives_the_same(tmp_path: Any):
    """On a GPU it is compiled; here by the CPU's compiler."""
    values, gradient = spread(1000).bfloat16(), spread(1000)
    state = (torch.zeros(1024, dtype=torch.uint8), torch.zeros(1024, dtype=torch.uint8))
    scales = (torch.zeros(4), torch.zeros(4))
    rolled = torch.randint(0, 2**31 - 1, (2, 1024), dtype=torch.int32)
    numbers = torch.tensor([1e-3, 0.03, 1e-8, 1.0, 0.1, 0.001])
    try:
        made: Any = torch.compile(updated, dynamic=True)
        compiled: Any = made(values, gradient, *state, *scales, rolled, numbers)
    except Exception as error:
        pytest.skip(f"nothing compiles here: {error}")
    plain: tuple[Any, ...] = updated(values, gradient, *state, *scales, rolled, numbers)
    for ours, theirs in zip(plain, compiled, strict=True):
        assert torch.allclose(ours.float(), theirs.float(), rtol=1e-2, atol=1)
