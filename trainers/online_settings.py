"""What reinforcement learning on a model's own answers is asked to do. Loads without torch."""

from typing import Literal, Self

from pydantic import Field, model_validator

from records.base import Strict
from trainers.settings import Training


class PPOSettings(Strict):
    """What PPO has beside the others: a value for every token. Defaults, where nothing else is said: those of
    openai/lm-human-preferences, the code of arXiv 1909.08593."""

    gamma: float = Field(default=1.0, gt=0, le=1)
    """Discount per token."""
    gae_lambda: float = Field(default=0.95, ge=0, le=1)
    """How far an advantage looks: 0 one token, 1 to the end of the answer."""
    value_clip: float = Field(default=0.2, gt=0)
    """Values may move so far from those of the sampling model before their loss stops pulling."""
    value_weight: float = Field(default=0.1, ge=0)
    """Of the value's loss in the sum."""
    value_learning_rate: float = Field(default=1e-3, gt=0)
    """Of the value head, which starts at 0. Our choice."""
    target_kl: float | None = Field(default=None, gt=0)
    """Nats per answer to which `beta` is adapted (arXiv 1909.08593, section 2.2). None: `beta` stays."""


class RLHFSettings(Training):
    """Reinforcement learning: the model answers, a judge or a reward model scores, better answers become likelier."""

    algorithm: Literal["rloo", "grpo", "ppo"] = "rloo"
    """rloo: arXiv 2402.14740. grpo: arXiv 2402.03300, with the loss of arXiv 2503.14476. ppo: arXiv 1707.06347."""
    reward: Literal["judge", "reward_model"] = "judge"
    """judge: the recipe's, all of it, as for pairs. reward_model: the one that `training.reward` made."""
    learning_rate: float = Field(default=1e-6, gt=0)
    """For all weights; with LoRA 1e-5 is usual."""
    batch: int = Field(default=64, ge=2)
    """Answers per optimizer step, over all devices."""
    micro_batch: int = Field(default=8, ge=1)
    """Answers per device and forward pass."""
    answers: int = Field(default=4, ge=1)
    """To each prompt; rloo and grpo compare them and need two."""
    max_tokens: int = Field(default=256, ge=1)
    """Of an answer. Prompts that leave no room for it in `max_length` are left out and counted."""
    temperature: float = Field(default=1.0, gt=0)
    """At which answers are sampled, and under which their probability is taken."""
    beta: float = Field(default=0.05, ge=0)
    """Strength of the pull towards the reference: times the KL in the reward (rloo, ppo) or in the loss (grpo)."""
    clip: float = Field(default=0.2, gt=0)
    """How far a probability may move on one sample before it stops counting (PPO, equation 7)."""
    rollout: int = Field(default=1, ge=1)
    """Optimizer steps that one round of sampling is enough for."""
    passes: int = Field(default=1, ge=1)
    """Over each round of answers. openai/lm-human-preferences: 4, for PPO."""
    max_unjudged: float = Field(default=0.2, ge=0, le=1)
    """Share of answers without a score above which training stops, looked at once there are 64. Such an answer is left
    out: of its group's mean, and of the loss but for its distance to the reference under grpo."""
    ppo: PPOSettings = Field(default=PPOSettings())
    """Read where `algorithm` is ppo."""

    @property
    def prompts_per_round(self) -> int:
        """Prompts that are answered before the next optimizer steps."""
        return self.batch * self.rollout // self.answers

    def steps(self, rows: int) -> int:
        """Optimizer steps for `rows` prompts; those that fill no round are left out of an epoch, others in each."""
        rounds = rows // self.prompts_per_round
        by_epochs = None if self.epochs is None else round(self.epochs * rounds) * self.rollout * self.passes
        return min(n for n in (by_epochs, self.max_steps) if n is not None)

    @model_validator(mode="after")
    def _groups_are_whole(self) -> Self:
        if self.algorithm != "ppo" and self.answers < 2:
            raise ValueError(
                f"answers={self.answers}: {self.algorithm} compares answers to a prompt; set 2 or more"
            )
        if self.batch * self.rollout % self.answers:
            raise ValueError(
                f"batch={self.batch} x rollout={self.rollout} is not a multiple of answers={self.answers}, so a "
                "prompt's answers would be torn apart; change one of them"
            )
        if self.max_tokens >= self.max_length:
            raise ValueError(f"max_tokens={self.max_tokens} leaves no room in max_length={self.max_length}")
        if self.save_every and self.save_every % (self.rollout * self.passes):
            raise ValueError(
                f"save_every={self.save_every} falls into the middle of a round of {self.rollout * self.passes} steps; "
                "set it to a multiple"
            )
        if self.lora and self.lora.dropout:
            raise ValueError(
                f"lora.dropout={self.lora.dropout} would make sampling and training differ; set it to 0"
            )
        if self.lora and self.lora.quantize:
            raise ValueError(f"lora.quantize={self.lora.quantize!r} is for SFT and DPO; leave it out")
        if self.group_by_length:
            raise ValueError("group_by_length=True: answers to a prompt stay together; set it to false")
        return self
