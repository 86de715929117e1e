"""What a recipe says of training and of what comes before and after it: `training` and `evaluation`."""

from typing import Any, Literal

from pydantic import Field, model_validator

from pairs.training_data import DATA, TrainingData
from records.base import Strict
from serving.settings import Sampler
from trainers.launch import Launch
from trainers.online_settings import RLHFSettings
from trainers.settings import DPOSettings, PretrainSettings, RewardSettings, SFTSettings

STAGES = ("pretrain", "sft", "reward", "dpo", "rlhf")
"""Of training, in the order of `zephyr run`."""


class Rounds(Strict):
    """On-policy training: each round's answers are by the model that the round before made. `rounds: 3` is enough."""

    count: int = Field(ge=1, le=100)
    """How often answers are sampled, judged and trained on."""
    prompts: Literal["split", "reuse"] = "split"
    """split: each round has its part of the prompts. reuse: each has all."""
    start: Literal["previous", "base"] = "previous"
    """What a round's training starts from, which is also DPO's reference: the model of the round before, or the
    recipe's base each time."""

    @model_validator(mode="before")
    @classmethod
    def _a_number_is_the_count(cls, given: Any) -> Any:
        return {"count": given} if isinstance(given, int) and not isinstance(given, bool) else given


class Pretraining(PretrainSettings):
    """Texts, and how the base goes on being pretrained on them."""

    files: tuple[str, ...] = Field(min_length=1)
    """Parquet or JSON lines with a document per row, or .txt with one each; a path is looked for beside the recipe
    first."""
    held_out: tuple[str, ...] = ()
    """Files of the same kinds, scored before and after."""

    @property
    def trained(self) -> PretrainSettings:
        """What the trainer is told; the files it is told apart."""
        return PretrainSettings.model_validate(self.model_dump(exclude={"files", "held_out"}))


class TrainingPlan(Strict):
    """Which model is trained, and how. What comes later starts from what came before."""

    base: str
    """The model to train: a name from `models`, a folder or a Hugging Face id."""
    revision: str | None = None
    """The base's commit, where it is not one of `models`; None takes the newest."""
    license: str | None = None
    """Of the base, as its makers state it, where it is not one of `models`; for the cards of the models."""
    pretrain: Pretraining | None = None
    """First of all, on plain text; None leaves it out."""
    dialogues: TrainingData | None = None
    """What SFT learns from; None: this run's best answers."""
    sft: SFTSettings | None = None
    """Dialogues first, DPO on top of it; None leaves it out."""
    pairs: TrainingData | None = None
    """What DPO and the reward model learn from; None: this run's pairs."""
    reward: RewardSettings | None = None
    """A reward model on the pairs, from the SFT model where there is one: a judge of kind reward_model can ask it."""
    dpo: DPOSettings | None = None
    rlhf: RLHFSettings | None = None
    """Reinforcement learning on the run's prompts, from the SFT model where there is one; the judge, or the model of
    `reward`, scores the answers."""
    gguf: Literal["f16", "q8_0"] | None = None
    """Also write each model as one file that llama.cpp, Ollama and LM Studio read; q8_0 is half the size and, on a CPU,
    faster."""
    launch: Launch | None = None
    """Several processes train together, through `accelerate launch`; None: one."""
    rounds: Rounds | None = None
    """So many times `zephyr run` samples from the model in training, judges and trains; None: once, from the base."""

    @model_validator(mode="after")
    def _someone_learns_from_it(self) -> "TrainingPlan":
        for data in sorted(set(DATA.values())):
            stages = [stage for stage, learns in DATA.items() if learns == data]
            if getattr(self, data) and not any(getattr(self, stage) for stage in stages):
                raise ValueError(
                    f"{data} are given and nothing learns from them; add {' or '.join(stages)}, or leave them out"
                )
            if getattr(self, data) and self.rounds:
                raise ValueError(
                    f"{data} are given and rounds: each round learns from its own answers; train on {data} in a recipe "
                    "of their own and name the model it makes as the base"
                )
        return self

    @property
    def needs_answers(self) -> bool:
        """Whether a stage learns from what the run itself asks for."""
        return any(getattr(self, stage) and not getattr(self, data) for stage, data in DATA.items())


class Evaluation(Strict):
    """Models answer held-out prompts before and after training; the same judge scores them."""

    prompts: int = Field(default=64, ge=1)
    """Held-out prompts, at most; drawn by prompt id."""
    sampler: Sampler
    """How every model is asked. Its `model` says how they are served: their weights take that model's place."""
    confidence: float = Field(default=0.95, gt=0.5, lt=1)
    """Of the intervals, bootstrapped over prompts."""
