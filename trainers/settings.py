"""What training is asked to do. Loads without torch, so a recipe is checked before anything heavy starts.

Batch is what people mean by it, sequences or pairs per optimizer step over all devices; accumulation is
derived, so a different machine runs the same experiment. "Handbook" is huggingface/alignment-handbook,
recipes/zephyr-7b-beta; "paper" is Zephyr, arXiv 2310.16944.
"""

from typing import Literal, Self

from pydantic import Field, model_validator

from records.base import Strict

Loss = Literal[
    "sigmoid",
    "hinge",
    "ipo",
    "exo_pair",
    "nca_pair",
    "robust",
    "bco_pair",
    "sppo_hard",
    "aot",
    "aot_unpaired",
    "apo_zero",
    "apo_down",
    "discopop",
    "sft",
    "sigmoid_norm",
]
"""The pair losses of TRL 1.16."""

Optimizer = Literal["adamw", "adamw_8bit_stochastic", "paged_adamw", "rmsprop"]

Tracker = Literal["tensorboard", "wandb", "trackio", "mlflow", "comet_ml", "swanlab"]
"""Trackers of experiments that transformers passes its log on to."""


class LoRA(Strict):
    """Low-rank adapters. Trained in float32 and merged into the weights at the end."""

    r: int = Field(default=16, ge=1)
    """Rank. Handbook: 16 for SFT, 128 for DPO (config_qlora.yaml)."""
    alpha: int = Field(default=32, ge=1)
    """The update is scaled by alpha / r. Our choice: twice the rank; handbook: equal to it."""
    dropout: float = Field(default=0.0, ge=0, lt=1)
    """Our choice: none. Handbook: 0.05, which DPO trainers set to 0 anyway."""
    target: Literal["all-linear"] | tuple[str, ...] = "all-linear"
    """Module names. Handbook: the seven projections of a block, which are all linear layers but the head."""
    last_layers: int | None = Field(default=None, ge=1)
    """Only the last n blocks get adapters, and the backward pass ends there. None: all of them."""
    quantize: Literal["nf4"] | None = None
    """nf4 holds the frozen weights in 4 bits while an adapter of SFT or DPO is trained (QLoRA), a quarter of bfloat16's
    memory; needs bitsandbytes. The adapter is merged into the weights as they were. Handbook: nf4. None: `dtype`."""

    @model_validator(mode="after")
    def _the_head_is_not_adapted(self) -> Self:
        if "lm_head" in self.target:
            raise ValueError(
                f"target={self.target!r} has 'lm_head': the losses read the head's weights directly, so "
                "an adapter "
                "on it is never trained; leave it out"
            )
        return self


class Training(Strict):
    """What SFT and DPO share."""

    learning_rate: float = Field(default=2e-5, gt=0)
    """Peak, reached after `warmup`."""
    scheduler: Literal["cosine", "linear", "constant"] = "cosine"
    """Handbook: cosine; the paper's DPO: linear."""
    warmup: float = Field(default=0.1, ge=0, lt=1)
    """Fraction of all optimizer steps. Paper and handbook: 0.1."""
    epochs: float | None = Field(default=1, gt=0)
    """Passes over the data. Handbook: 1; the released model: 1 of SFT and 3 of DPO."""
    max_steps: int | None = Field(default=None, ge=1)
    """Optimizer steps. With `epochs` the earlier of the two ends training; without, the data repeats."""
    batch: int = Field(default=128, ge=1)
    """Sequences or pairs per optimizer step, over all devices. Handbook: 128."""
    micro_batch: int = Field(default=8, ge=1)
    """Per device and forward pass; lower it when memory runs out."""
    max_length: int = Field(default=1024, ge=16)
    """Tokens of prompt and answer together; longer answers lose their end and are counted."""
    lora: LoRA | None = None
    """None trains all weights, as the paper did."""
    dtype: Literal["float32", "bfloat16"] = "float32"
    """What the weights are kept in. float32: where `compute` is bfloat16 they are masters beside the model's copies.
    bfloat16: no masters, and steps are rounded by chance, so that small ones arrive on average. Adapters always have
    masters."""
    compute: Literal["auto", "float32", "bfloat16"] = "auto"
    """What the model computes in; weights and their updates keep `dtype`. Handbook: bfloat16, which `auto` takes on
    a GPU; on a CPU it takes float32, as the first small steps of an adapter are rounded away in bfloat16."""
    optimizer: Optimizer = "adamw"
    """Paper and handbook: AdamW. `adamw_8bit_stochastic` keeps its averages in 8 bits, 6 bytes less per trained weight;
    `paged_adamw` needs bitsandbytes."""
    weight_decay: float = Field(default=0.0, ge=0)
    """Paper: none."""
    max_grad_norm: float = Field(default=1.0, gt=0)
    """Longer gradients are scaled down to it. Handbook: 1.0 (the library's default)."""
    gradient_checkpointing: bool = False
    """Blocks compute their activations again on the way back: a third slower for much less memory. Handbook: on; our
    choice: off until memory runs out."""
    checkpoint_every: int = Field(default=1, ge=1)
    """With `gradient_checkpointing`: of so many blocks one computes again. 2: half the cost, half of what it saves."""
    group_by_length: bool = False
    """Batches of similar length: less padding, less random batches."""
    template: str | None = Field(default=None, min_length=1)
    """A name of prompts/templates, as zephyr, or Jinja text; kept with the model. None: the base's own."""
    seed: int = Field(default=42, ge=0)
    """Order of the rows and first values of adapters. Handbook: 42."""
    save_every: int | None = Field(default=None, ge=1)
    """Optimizer steps between checkpoints. Handbook: 100. None: no checkpoint; a killed run starts again."""
    logging_every: int = Field(default=1, ge=1)
    """Optimizer steps between lines of the history. Handbook: 5 and 10; a line costs nothing here."""
    report_to: tuple[Tracker, ...] = ()
    """Where every line goes besides, each a package of its own. TensorBoard's files are in `models/tensorboard`, the
    others are set up as they say themselves."""

    @property
    def template_name(self) -> str | None:
        """The template's name, where it is not the text itself."""
        return None if self.template is None or "{" in self.template else self.template

    @model_validator(mode="after")
    def _training_ends(self) -> Self:
        if self.epochs is None and self.max_steps is None:
            raise ValueError("epochs=None with max_steps=None never ends; set at least one of them")
        return self

    def accumulation(self, devices: int) -> int:
        """Forward passes per optimizer step on each device."""
        steps, rest = divmod(self.batch, self.micro_batch * devices)
        if rest or not steps:
            raise ValueError(
                f"batch={self.batch} is not a multiple of micro_batch={self.micro_batch} x {devices} "
                "devices; "
                f"set batch to a multiple of {self.micro_batch * devices}"
            )
        return steps

    def rows_per_step(self, devices: int) -> int:
        """Rows the trainer is handed at a time, on each device."""
        return self.micro_batch

    def steps(self, rows: int) -> int:
        """Optimizer steps over `rows` training rows; the last batch of an epoch may be smaller."""
        by_epochs = None if self.epochs is None else max(1, round(self.epochs * -(-rows // self.batch)))
        return min(n for n in (by_epochs, self.max_steps) if n is not None)


class WinRate(Strict):
    """How often the judge prefers the model in training to the one it started from, on held-out prompts."""

    every: int = Field(default=50, ge=1)
    """Optimizer steps between looks; the last step is looked at too."""
    prompts: int = Field(default=64, ge=8)
    """Of the test split, other ones than `evaluation` takes: its figures stay those of prompts nobody chose by."""
    max_tokens: int = Field(default=256, ge=1)
    """Of an answer; it is the likeliest one, so that a look draws no chance."""
    patience: int | None = Field(default=None, ge=1)
    """Looks without a new best after which training ends. None: it goes to its end."""
    keep_best: bool = True
    """The model that is kept is that of the best look; the last one otherwise."""


class SFTSettings(Training):
    """Supervised fine-tuning: next-token loss on dialogues."""

    learning_rate: float = Field(default=2e-5, gt=0)
    """Paper and handbook: 2e-5 for all weights; handbook with LoRA: 2e-4."""
    max_length: int = Field(default=2048, ge=16)
    """Tokens. Paper and handbook: 2048."""
    packing: bool | Literal["wrapped"] = False
    """Several dialogues in one sequence of `max_length`, whole ones as they fit best. wrapped: one stream of all their
    tokens, cut every `max_length`, through dialogues too. Paper and handbook: wrapped. Only worth it with flash
    attention."""
    loss: Literal["completion", "assistant", "all"] = "assistant"
    """Tokens that are trained: the last answer, every answer, or everything. Handbook: all."""
    win_rate: WinRate | None = None
    """The judge looks on while training runs. None: it does not."""


class PretrainSettings(Training):
    """Next-token loss on plain text: documents one after the other, cut into sequences of `max_length`."""

    learning_rate: float = Field(default=2e-5, gt=0)
    """Our choice, for a model that goes on from trained weights; from random ones 3e-4 is usual at 7B (arXiv
    2302.13971)."""
    max_length: int = Field(default=2048, ge=16)
    """Tokens of a sequence; a document that does not fit goes on in the next one."""
    column: str = Field(default="text", min_length=1)
    """Of the rows, with a document each."""


class RewardSettings(Training):
    """A reward model: a scalar per conversation, by the Bradley-Terry loss on pairs (arXiv 2203.02155, equation 1)."""

    learning_rate: float = Field(default=1e-5, gt=0)
    """For all weights; InstructGPT: 9e-6. With LoRA 1e-4 is usual."""
    batch: int = Field(default=64, ge=1)
    """Pairs per optimizer step, over all devices. InstructGPT: the pairs of 64 prompts."""
    micro_batch: int = Field(default=4, ge=1)
    """Pairs per device and forward pass."""
    max_length: int = Field(default=1024, ge=16)
    """Tokens of the whole conversation; pairs with a longer one are left out and counted: its end is what is scored."""
    margin: float = Field(default=0.0, ge=0)
    """Times the pair's difference of scores, which the rewards must differ by (Llama 2, arXiv 2307.09288, equation 2).
    0: they must only be in order."""
    center: float = Field(default=0.01, ge=0)
    """Weight of the squared sum of a pair's rewards, which keeps them around 0 (arXiv 2312.09244, equation 2: 0.01)."""

    @model_validator(mode="after")
    def _whole_weights(self) -> Self:
        if self.lora and self.lora.quantize:
            raise ValueError(f"lora.quantize={self.lora.quantize!r} is for SFT and DPO; leave it out")
        return self


class DPOSettings(Training):
    """Direct preference optimization, arXiv 2305.18290."""

    learning_rate: float = Field(default=5e-7, gt=0)
    """Paper and handbook: 5e-7 for all weights; handbook with LoRA: 5e-6."""
    batch: int = Field(default=32, ge=1)
    """Pairs per optimizer step, over all devices. Paper: 32; handbook: 128."""
    micro_batch: int = Field(default=4, ge=1)
    """Pairs per device and forward pass."""
    beta: float = Field(default=0.1, gt=0)
    """Strength of the pull towards the reference. Paper: 0.1; handbook: 0.01."""
    loss: Loss | dict[Loss, float] = "sigmoid"
    """One loss, or several with their weights: {sigmoid: 1, sft: 0.2}. Paper: sigmoid."""
    label_smoothing: float = Field(default=0.0, ge=0, lt=0.5)
    """Share of labels taken to be wrong; for `robust` and `exo_pair` only. EXO's paper: 0.001."""
    precompute_reference: bool = True
    """One pass of the reference before training instead of one per step: same numbers, less work."""
    share_prompts: bool = True
    """Each prompt once per forward pass and no padding: same numbers, less work. Where a model does not allow it, its
    `metrics.json` says why. Pairs of one prompt come in one step then."""
    micro_tokens: int | None = Field(default=None, ge=64)
    """Tokens per device and forward pass, in place of `micro_batch`: as many pairs as fit, a step's loss is the mean
    over all of them all the same."""
    max_prompt: int | None = Field(default=None, ge=8)
    """Tokens of the prompt that are kept, from its end. Handbook: 512. None: all."""
    win_rate: WinRate | None = None
    """The judge looks on while training runs. None: it does not."""

    def accumulation(self, devices: int) -> int:
        """1: the trainer is handed a step's pairs at once, and makes the passes itself."""
        return 1

    def rows_per_step(self, devices: int) -> int:
        return -(-self.batch // devices)

    @property
    def losses(self) -> dict[Loss, float]:
        """Loss -> weight."""
        return self.loss if isinstance(self.loss, dict) else {self.loss: 1.0}

    @model_validator(mode="after")
    def _the_losses_mean_what_they_say(self) -> Self:
        if not self.losses or min(self.losses.values()) <= 0:
            raise ValueError(f"loss={self.loss!r}: name at least one loss, each with a weight above 0")
        smoothed = {"robust", "exo_pair"} & set(self.losses)
        if "exo_pair" in self.losses and not self.label_smoothing:
            raise ValueError("loss 'exo_pair' with label_smoothing=0.0 is not defined; its paper uses 0.001")
        if self.label_smoothing and not smoothed:
            raise ValueError(
                f"label_smoothing={self.label_smoothing} does nothing with loss={self.loss!r}; "
                "set it to 0, or use 'robust' or 'exo_pair'"
            )
        if self.lora and self.lora.dropout:
            raise ValueError(
                f"lora.dropout={self.lora.dropout} would become 0: DPO compares policy and reference "
                "without noise; "
                "set it to 0"
            )
        if self.max_prompt and self.max_prompt >= self.max_length:
            raise ValueError(f"max_prompt={self.max_prompt} leaves no room in max_length={self.max_length}")
        return self
