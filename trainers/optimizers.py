"""AdamW whose weights move however small its steps are.

A bfloat16 weight keeps 8 bits: an update below 1/512 of it is rounded away, and at a learning rate of 5e-7 nearly all
are. Two ways out, for weights a model computes with in bfloat16:

    masters              float32 weights here; the model's are rounded copies of them, written after every step
    stochastic rounding  no masters: up or down by chance, so that what is lost in one step is gained in another

And two sizes of what Adam remembers, `bits` per value: 32, or 8 with a float32 scale per 256 values. An average that
moves by 0.1 % a step would stand still in 8 bits, so these too are rounded by chance. Bytes per weight, with its
gradient (2) and copy (2): 16 with masters, 10 with masters and 8 bits, 12 without masters, 6 without and in 8 bits.

Chance is drawn by (seed, step, parameter): every device draws alike, and a run that goes on draws what it would have.
"""

from collections.abc import Callable, Iterable
from typing import Any

import torch
from torch import Tensor

BLOCK = 256
"""Values with one scale, as in arXiv 2110.02861."""
CHUNK = BLOCK << 16
"""Values updated at a time: what bounds the memory for float32 copies of them."""
SMALL = 4096
"""Values below which a tensor's averages stay in float32, as in arXiv 2110.02861: they are few, and norms."""

ONE = 1016
"""The first 12 bits of 1.0 in float32: sign, exponent, three bits of mantissa."""
LEAST_SIGNED, LEAST = ONE - 127, ONE - 255
"""The same of what 7 and 8 bits begin with: 2^-16 and 2^-32 of the block's largest."""


class AdamW(torch.optim.Optimizer):
    """Decoupled weight decay, arXiv 1711.05101."""

    def __init__(
        self,
        params: Iterable[Any],
        lr: float,
        betas: tuple[float, float] = (0.9, 0.999),
        eps: float = 1e-8,
        weight_decay: float = 0.0,
        *,
        bits: int = 32,
        masters: "dict[Tensor, Tensor] | None" = None,
        seed: int = 0,
    ) -> None:
        """`masters`: of a parameter, its first value in float32; a bfloat16 one without is rounded by chance."""
        super().__init__(params, {"lr": lr, "betas": betas, "eps": eps, "weight_decay": weight_decay})
        self.bits, self.seed = bits, seed
        for parameter, master in (masters or {}).items():
            self.state[parameter]["master"] = master
        self._update: Callable[..., Any] | None = None

    @torch.no_grad()
    def step(self, closure: Any = None) -> Any:  # pyright: ignore[reportIncompatibleMethodOverride]
        loss = None
        if closure is not None:
            with torch.enable_grad():
                loss = closure()
        place = 0
        for group in self.param_groups:
            for parameter in group["params"]:
                place += 1
                if parameter.grad is not None:
                    self._step(parameter, group, place)
        return loss

    def _step(self, parameter: Tensor, group: dict[str, Any], place: int) -> None:
        state = self.state[parameter]
        if "step" not in state:
            state["step"] = 0
            state |= self._fresh(parameter)
        state["step"] += 1
        steps, (fast, slow) = state["step"], group["betas"]
        first, second = 1 - fast**steps, 1 - slow**steps
        rates = [group["lr"] / first, second**0.5, group["eps"], 1 - group["lr"] * group["weight_decay"]]
        numbers = torch.tensor([*rates, 1 - fast, 1 - slow], device=parameter.device)
        chance = torch.Generator(parameter.device).manual_seed((self.seed << 40) + (steps << 20) + place)

        weights = state.get("master", parameter).view(-1)
        copies = parameter.view(-1) if "master" in state else None
        gradients, size = parameter.grad.reshape(-1), len(weights)  # type: ignore[union-attr]
        update, by_chance = self._update_on(parameter.device), weights.dtype == torch.bfloat16
        for start in range(0, size, CHUNK):
            end = min(start + CHUNK, size)
            full = -(-(end - start) // BLOCK) * BLOCK if "mean_scale" in state else end - start
            within = [state[name][start : start + full] for name in ("mean", "square")]
            scales = [state.get(f"{name}_scale") for name in ("mean", "square")]
            blocks = [part if part is None else part[start // BLOCK :][: full // BLOCK] for part in scales]
            dice = torch.empty(2, full, dtype=torch.int32, device=parameter.device)
            if by_chance or "mean_scale" in state:
                dice.random_(0, 2**31 - 1, generator=chance)
            new, *kept = update(weights[start:end], gradients[start:end], *within, *blocks, dice, numbers)
            weights[start:end] = new
            if copies is not None:
                copies[start:end] = new
            for old, fresh in zip((*within, *blocks), kept, strict=True):
                if old is not None:
                    old.copy_(fresh)

    def _fresh(self, parameter: Tensor) -> dict[str, Tensor]:
        """The averages before the first step."""
        size = parameter.numel()
        if self.bits == 32 or size < SMALL:
            return {name: torch.zeros(size, device=parameter.device) for name in ("mean", "square")}
        blocks = -(-size // BLOCK)
        made = {}
        for name in ("mean", "square"):
            made[name] = torch.zeros(blocks * BLOCK, dtype=torch.uint8, device=parameter.device)
            made[f"{name}_scale"] = torch.zeros(blocks, device=parameter.device)
        return made

    def _update_on(self, device: torch.device) -> Callable[..., Any]:
        """One kernel for a whole update on a GPU; on a CPU, a pass per operation."""
        if self._update is None:
            self._update = torch.compile(updated, dynamic=True) if device.type == "cuda" else updated
        return self._update

    def load_state_dict(self, state_dict: Any) -> None:
        """As kept: torch would turn masters and averages into the parameters' own number format."""
        super().load_state_dict(state_dict)
        every = [parameter for group in self.param_groups for parameter in group["params"]]
        for place, kept in state_dict["state"].items():
            device = every[place].device
            self.state[every[place]] = {
                name: part.to(device) if isinstance(part, Tensor) else part for name, part in kept.items()
            }

    @torch.no_grad()
    def to_masters(self) -> None:
        """Put the float32 weights in the place of their copies, as for a model that is saved."""
        for parameter, state in self.state.items():
            if "master" in state:
                parameter.data = state["master"].view_as(parameter)


def updated(
    weight: Tensor,
    gradient: Tensor,
    mean: Tensor,
    square: Tensor,
    mean_scale: Tensor | None,
    square_scale: Tensor | None,
    dice: Tensor,
    numbers: Tensor,
) -> tuple[Tensor, Tensor, Tensor, Tensor | None, Tensor | None]:
    """New weights, of the old ones' number format, and new averages. All of shape (N,); `dice` (2, N rounded up)."""
    rate, root, eps, decay, new, newer = numbers.unbind()
    gradient = gradient.float()
    size = len(gradient)
    if mean_scale is not None and square_scale is not None:
        mean, square = unpack_signed(mean, mean_scale)[:size], unpack(square, square_scale)[:size]
    mean = mean + (gradient - mean) * new
    square = square + (gradient * gradient - square) * newer
    value = weight.float() * decay - rate * mean / (square.sqrt() / root + eps)
    if weight.dtype == torch.bfloat16:
        value = to_bfloat16(value, ((dice[0, :size] >> 20) << 5) | (dice[1, :size] >> 26))
    if mean_scale is not None:
        rest = dice.shape[1] - size
        mean, mean_scale = pack_signed(torch.nn.functional.pad(mean, (0, rest)), dice[0] & 0xFFFFF)
        square, square_scale = pack(torch.nn.functional.pad(square, (0, rest)), dice[1] & 0xFFFFF)
    return value, mean, square, mean_scale, square_scale


def to_bfloat16(values: Tensor, dice: Tensor) -> Tensor:
    """float32 to one of the two bfloat16 neighbours, the nearer the likelier. `dice`: from 0 to 2^16."""
    return ((values.view(torch.int32) + dice) & -65536).view(torch.float32).to(torch.bfloat16)


def pack(values: Tensor, dice: Tensor) -> tuple[Tensor, Tensor]:
    """Values from 0 on as 8 bits, five of exponent and three of mantissa, and their blocks' scales.

    The bits of a float32 are its logarithm, piecewise linear; 20 of them are dropped, after adding `dice` from 0 to
    2^20, so that the mean over the dice is the value. What is below 2^-32 of the largest becomes that, never 0: a
    step is divided by its root.
    """
    blocks = values.view(-1, BLOCK)
    scale = blocks.amax(1)
    shares = (blocks / scale.clamp(min=1e-38)[:, None]).view(torch.int32)
    codes = ((shares + dice.view(-1, BLOCK)) >> 20) - LEAST
    return codes.clamp(0, 255).to(torch.uint8).view(-1), scale


def unpack(codes: Tensor, scale: Tensor) -> Tensor:
    shares = ((codes.to(torch.int32) + LEAST) << 20).view(torch.float32)
    return (shares.view(-1, BLOCK) * scale[:, None]).view(-1)


def pack_signed(values: Tensor, dice: Tensor) -> tuple[Tensor, Tensor]:
    """The same with a bit for the sign, and 0 below 2^-16 of the largest, or by chance that itself."""
    blocks = values.view(-1, BLOCK)
    scale = blocks.abs().amax(1)
    shares = blocks.abs() / scale.clamp(min=1e-38)[:, None]
    dice = dice.view(-1, BLOCK)
    codes = ((shares.view(torch.int32) + dice) >> 20) - LEAST_SIGNED
    least = (LEAST_SIGNED + 1) / 8  # exponent and mantissa of code 1
    smallest = 2.0 ** (int(least) - 127) * (1 + least % 1)
    codes = torch.where(shares < smallest, (dice * (smallest * 2.0**-20) < shares).to(torch.int32), codes)
    codes = codes.clamp(0, 127) + 128 * (blocks < 0).to(torch.int32)
    return codes.to(torch.uint8).view(-1), scale


def unpack_signed(codes: Tensor, scale: Tensor) -> Tensor:
    wide = codes.to(torch.int32)
    size = wide & 127
    shares = ((size + LEAST_SIGNED) << 20).view(torch.float32)
    shares = torch.where(size == 0, 0.0, torch.where(wide > 127, -shares, shares))
    return (shares.view(-1, BLOCK) * scale[:, None]).view(-1)
