"""Proximal policy optimization (arXiv 1707.06347) for language models: a value for every token, clipped losses.

The mathematics first, each function on plain tensors: B answers, T tokens of an answer, right-padded; `mask` is 1 on
an answer's own tokens, its end token included. Then the trainer: TRL's RLOOTrainer samples, scores, batches, saves and
goes on; what an answer is worth, token by token, is here.
"""

import json
from pathlib import Path
from typing import Any, cast

import torch
from torch import Tensor, nn
from trl.models.utils import disable_gradient_checkpointing
from trl.trainer.rloo_trainer import RLOOTrainer
from trl.trainer.utils import pad

from trainers.batches import EpochOrder
from trainers.online_settings import PPOSettings


def rewards_of(
    score_B: Tensor, logps_BT: Tensor, ref_logps_BT: Tensor, mask_BT: Tensor, beta: float
) -> Tensor:
    """Reward of each token: -beta * log(pi / pi_ref), and the answer's score at its last one.

    arXiv 1909.08593, equation 2, whose KL term is spread over the tokens it is a sum of.
    """
    rewards = -beta * (logps_BT - ref_logps_BT) * mask_BT
    last_B1 = mask_BT.sum(1, keepdim=True).long() - 1
    return rewards.scatter_add(1, last_B1, score_B[:, None].to(rewards.dtype))


def gae(
    rewards_BT: Tensor, values_BT: Tensor, mask_BT: Tensor, gamma: float, lam: float
) -> tuple[Tensor, Tensor]:
    """Advantages and returns (advantage + value), both 0 on padding.

    arXiv 1707.06347, equations 11 and 12 (1506.02438, equation 16), from the end: delta_t = r_t + gamma V_{t+1} - V_t,
    A_t = delta_t + gamma lambda A_{t+1}; after an answer's end the value is 0.
    """
    values_BT = values_BT * mask_BT
    advantage_B, next_value_B = torch.zeros_like(values_BT[:, 0]), torch.zeros_like(values_BT[:, 0])
    advantages = torch.zeros_like(values_BT)
    for t in range(values_BT.shape[1] - 1, -1, -1):
        delta_B = rewards_BT[:, t] + gamma * next_value_B - values_BT[:, t]
        advantage_B = (delta_B + gamma * lam * advantage_B) * mask_BT[:, t]
        next_value_B = values_BT[:, t]
        advantages[:, t] = advantage_B
    return advantages, advantages + values_BT


def whiten(values_BT: Tensor, mask_BT: Tensor, total: Any = lambda sums: sums) -> Tensor:
    """Mean 0 and variance 1 over the tokens of `mask`, 0 elsewhere; what that does to advantages: arXiv 2006.05990.

    `total`: adds sums up over all devices.
    """
    kept = values_BT * mask_BT
    count, first = total(torch.stack([mask_BT.sum(), kept.sum()]))
    count = count.clamp(min=1)
    mean = first / count
    variance = total(((values_BT - mean) ** 2 * mask_BT).sum()[None])[0] / count
    return (values_BT - mean) * torch.rsqrt(variance + 1e-8) * mask_BT


def policy_loss(logps_BT: Tensor, old_logps_BT: Tensor, advantages_BT: Tensor, clip: float) -> Tensor:
    """Of each token, to be minimized: -min(r A, clip(r, 1 - eps, 1 + eps) A) with r = pi / pi_old.

    arXiv 1707.06347, equation 7.
    """
    ratio = (logps_BT - old_logps_BT).exp()
    return -torch.min(ratio * advantages_BT, ratio.clamp(1 - clip, 1 + clip) * advantages_BT)


def value_loss(values_BT: Tensor, old_values_BT: Tensor, returns_BT: Tensor, clip: float) -> Tensor:
    """Of each token: 1/2 max((V - R)^2, (clip(V, V_old - eps, V_old + eps) - R)^2); arXiv 2005.12729, section 3."""
    near = old_values_BT + (values_BT - old_values_BT).clamp(-clip, clip)
    return 0.5 * torch.max((values_BT - returns_BT) ** 2, (near - returns_BT) ** 2)


def adapted(beta: float, kl: float, target: float, gain: float = 0.1) -> float:
    """The next coefficient of the KL term: up where `kl`, in nats per answer, is above the target, down below.

    arXiv 1909.08593, section 2.2: e = clip((KL - target) / target, -0.2, 0.2); beta' = beta (1 + 0.1 e).
    """
    return beta * (1 + gain * max(-0.2, min(0.2, (kl - target) / target)))


class ValueHead(nn.Module):
    """What the answer will still be worth, from the hidden state before each of its tokens. Begins at 0."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.zeros(width))
        self.bias = nn.Parameter(torch.zeros(()))

    def forward(self, hidden: Tensor) -> Tensor:
        return hidden.float() @ self.weight + self.bias


class PPOTrainer(EpochOrder, RLOOTrainer):
    """TRL's sampling, batching and checkpoints; PPO's rewards, advantages and losses.

    The value head reads the policy's own last hidden states; it is named `value_head` in the model and in checkpoints.
    """

    def __init__(self, *, model: Any, ppo: PPOSettings, answers: int, **kwargs: Any) -> None:
        """`answers`: to each prompt, 1 or more; TRL's configuration cannot say 1."""
        self.ppo = ppo
        self._hidden: list[Tensor] | None = None
        model.value_head = ValueHead(model.config.get_text_config().hidden_size)
        model.base_model.register_forward_hook(self._see)
        super().__init__(model=model, **kwargs)
        self.num_generations = answers
        self.coefficient = self.beta

    def _see(self, module: Any, inputs: Any, output: Any) -> None:
        if self._hidden is not None:
            self._hidden.append(output.last_hidden_state)

    @property
    def value_head(self) -> ValueHead:
        base: Any = self.accelerator.unwrap_model(self.model)
        return (base.get_base_model() if hasattr(base, "get_base_model") else base).value_head

    def create_optimizer(self, *args: Any, **kwargs: Any) -> Any:
        """The value head learns at a rate of its own."""
        if self.optimizer is None:
            optimizer = super().create_optimizer(*args, **kwargs)
            own = [p for p in self.value_head.parameters() if p.requires_grad]
            for group in optimizer.param_groups:
                group["params"] = [p for p in group["params"] if all(p is not mine for mine in own)]
            optimizer.add_param_group(
                {"params": own, "lr": self.ppo.value_learning_rate, "weight_decay": 0.0}
            )
        return self.optimizer

    def _forward(
        self, model: Any, ids: Tensor, mask: Tensor, length: int, batch: int | None = None
    ) -> tuple[Tensor, Tensor, Tensor | None]:
        """Log-probabilities and values of the last `length` tokens, and their entropies where gradients are wanted."""
        self._hidden = []
        logps, entropies, _ = self._get_per_token_logps_and_entropies(
            model, ids, mask, length, batch, compute_entropy=torch.is_grad_enabled()
        )
        hidden, self._hidden = self._hidden, None
        values = torch.cat([self.value_head(part[:, -length - 1 : -1]) for part in hidden])
        return logps, values, entropies

    def _reference(self, ids: Tensor, mask: Tensor, length: int, batch: int) -> Tensor:
        if self.ref_model is not None:
            return self._get_per_token_logps_and_entropies(self.ref_model, ids, mask, length, batch)[0]
        policy: Any = self.accelerator.unwrap_model(self.model)
        with policy.disable_adapter():
            return self._get_per_token_logps_and_entropies(self.model, ids, mask, length, batch)[0]

    def _generate_and_score_completions(self, inputs: Any) -> dict[str, Any]:
        """Sample, score, and say what every token was worth."""
        device, args = self.accelerator.device, cast(Any, self.args)
        batch, model = args.per_device_train_batch_size, cast(Any, self.model)
        prompts = [row["prompt"] for row in inputs]
        prompt_ids, answer_ids, answers = self._generate(prompts)
        sides = (("prompt", prompt_ids, "left"), ("completion", answer_ids, "right"))
        out: dict[str, Any] = {}
        for name, ids, side in sides:
            rows = [torch.tensor(row) for row in ids]
            ones = [torch.ones_like(row) for row in rows]
            out[f"{name}_ids"] = pad(rows, cast(int, self._tokenizer.pad_token_id), padding_side=side).to(
                device
            )
            out[f"{name}_mask"] = pad(ones, 0, padding_side=side).to(device)
        ids = torch.cat([out["prompt_ids"], out["completion_ids"]], 1)
        mask = torch.cat([out["prompt_mask"], out["completion_mask"]], 1)
        own, length = out["completion_mask"].float(), out["completion_ids"].shape[1]
        with (
            torch.no_grad(),
            disable_gradient_checkpointing(model, args.gradient_checkpointing_kwargs),
        ):
            logps, values, _ = self._forward(model, ids, mask, length, batch)
            ref = self._reference(ids, mask, length, batch) if self.coefficient else logps
        first = self.accelerator.process_index * len(prompts)
        every = self._calculate_rewards(inputs, prompts, answers, answer_ids)[:, 0]
        score = every[first : first + len(prompts)]
        judged = ~score.isnan()

        rewards = rewards_of(score.nan_to_num(), logps, ref, own, self.coefficient)
        advantages, returns = gae(rewards, values, own, self.ppo.gamma, self.ppo.gae_lambda)
        trained = own * judged[:, None]  # an answer without a score teaches nothing, not that it is worth 0
        out |= {
            "trained": trained,
            "old_logps": logps,
            "old_values": values,
            "returns": returns,
            "advantages": whiten(advantages, trained, lambda sums: self.accelerator.reduce(sums, "sum")),
            # each micro-batch is divided by the same number, so that every token of a round weighs alike
            "tokens": (trained.sum() / args.steps_per_generation).clamp(min=1).expand(len(prompts)),
        }
        self._note(every, logps, ref, own, judged)
        return out

    def _note(self, every: Tensor, logps: Tensor, ref: Tensor, own: Tensor, judged: Tensor) -> None:
        gather: Any = self.accelerator.gather
        kl = gather(((logps - ref) * own).sum(1)).mean().item()
        metrics = self._metrics["train"]
        metrics["reward"].append(every.nanmean().item())
        metrics["kl"].append(kl / max(1.0, gather(own.sum(1)).mean().item()))
        metrics["kl_per_answer"].append(kl)
        metrics["beta"].append(self.coefficient)
        for name, values in self._pending_metrics.items():  # what the reward function logged
            metrics[name].append(sum(values) / len(values))
        self._pending_metrics.clear()
        if self.ppo.target_kl:
            self.coefficient = adapted(self.coefficient, kl, self.ppo.target_kl)

    def _compute_loss(self, model: Any, inputs: Any) -> Tensor:
        ids = torch.cat([inputs["prompt_ids"], inputs["completion_ids"]], 1)
        mask = torch.cat([inputs["prompt_mask"], inputs["completion_mask"]], 1)
        trained, tokens = inputs["trained"], inputs["tokens"][0]
        logps, values, entropies = self._forward(model, ids, mask, inputs["completion_ids"].shape[1])
        policy = policy_loss(logps, inputs["old_logps"], inputs["advantages"], self.epsilon_low)
        value = value_loss(values, inputs["old_values"], inputs["returns"], self.ppo.value_clip)
        losses = {
            name: (part * trained).sum() / tokens for name, part in (("policy", policy), ("value", value))
        }
        metrics = self._metrics["train"]
        for name, loss in losses.items():
            metrics[f"{name}_loss"].append(loss.item())
        moved = ((logps - inputs["old_logps"]).exp() - 1).abs() > self.epsilon_low
        metrics["clipped"].append(((moved * trained).sum() / trained.sum().clamp(min=1)).item())
        if entropies is not None:
            metrics["entropy"].append(((entropies * trained).sum() / trained.sum().clamp(min=1)).item())
        return losses["policy"] + self.ppo.value_weight * losses["value"]

    def _save_checkpoint(self, model: Any, trial: Any) -> None:
        super()._save_checkpoint(model, trial)
        folder = Path(self.args.output_dir or "") / f"checkpoint-{self.state.global_step}"
        if self.accelerator.is_main_process:
            (folder / "ppo.json").write_text(json.dumps({"beta": self.coefficient}))

    def _load_optimizer_and_scheduler(self, checkpoint: str | None) -> None:
        super()._load_optimizer_and_scheduler(checkpoint)
        if checkpoint:
            self.coefficient = json.loads((Path(checkpoint) / "ppo.json").read_text())["beta"]
