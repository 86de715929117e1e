"""A recipe: one YAML file that decides everything in a run. The same class is the flows' parameter and its form."""

from collections.abc import Callable
from functools import cache
from typing import Any

from pydantic import Field, model_validator

from flows.suites.settings import Benchmark, check_models
from flows.training_plan import STAGES, Evaluation, TrainingPlan
from judges import JudgeSettings, Jury, panel
from judges.jury import Member
from judges.minimum import JudgeMinimum
from pairs.best_of_n import BestOfN
from pairs.cleaning import Cleaning
from pairs.policies import PairSettings
from pairs.splits import SplitSettings
from prompts.chat import chat_template
from prompts.principle import principle_texts
from prompts.sources import PromptSource
from records.base import Strict
from records.ids import fingerprint, rank
from serving.errors import WrongModel
from serving.gpus import needs_of
from serving.placement import Machine, schedule
from serving.purse import Budget
from serving.settings import (
    Adapter,
    Classifier,
    Endpoint,
    Imported,
    LlamaCpp,
    Model,
    Name,
    Sampler,
    Vllm,
)


class RecipeError(ValueError):
    """A recipe cannot mean what it says. Nothing was started."""


class Recipe(Strict):
    """Prompts -> completions -> judgements -> pairs -> SFT -> DPO -> evaluation."""

    name: str = Field(pattern=r"^[a-z0-9][a-z0-9-]*$", max_length=60, json_schema_extra={"position": 0})
    """Names the run and its folder."""
    description: str = Field(default="", json_schema_extra={"position": 1})
    seed: int = Field(default=0, ge=0, json_schema_extra={"position": 2})
    """All chance in the run: splits, principles, request seeds, ties, training order."""
    prompts: tuple[PromptSource, ...] = Field(default=(), json_schema_extra={"position": 3})
    """Taken together; a prompt that two sources have counts once."""
    cleaning: Cleaning = Field(default=Cleaning(), json_schema_extra={"position": 3})
    """Which of them are left out: prompts of benchmarks, and near copies."""
    splits: SplitSettings = Field(default=SplitSettings(), json_schema_extra={"position": 3})
    """Which prompts are held out, where a source does not say."""
    models: dict[Name, Model] = Field(default={}, json_schema_extra={"position": 4})
    """Those that answer, judge or are trained, and where they are served."""
    machine: Machine | None = Field(default=None, json_schema_extra={"position": 4})
    """The GPUs that `vllm` models share; None takes the NVIDIA GPUs that are there. Models that do not fit beside each
    other are served by turns: those that answer first, those that judge last."""
    samplers: tuple[Sampler, ...] = Field(default=(), json_schema_extra={"position": 5})
    """Each answers every prompt. None: nothing is asked; every stage of `training` has data that exist already."""
    samplers_per_prompt: int | None = Field(default=None, ge=1, json_schema_extra={"position": 5})
    """So many samplers answer each prompt, drawn by seed and prompt id, none twice; another sampler changes only the
    prompts it enters. None: all of them. UltraFeedback: 4 of 17."""
    judge: JudgeSettings | None = Field(default=None, json_schema_extra={"position": 6})
    judge_minimum: JudgeMinimum | None = Field(default=None, json_schema_extra={"position": 6})
    """What the judge must have shown on labels of people, by a stored card; a run with a judge below it is refused."""
    pairs: PairSettings = Field(default=PairSettings(), json_schema_extra={"position": 7})
    best_of_n: BestOfN = Field(default=BestOfN(), json_schema_extra={"position": 7})
    """The best answer of each prompt, for SFT, and further rounds of answers for `pairs` too."""
    training: TrainingPlan | None = Field(default=None, json_schema_extra={"position": 8})
    evaluation: Evaluation | None = Field(default=None, json_schema_extra={"position": 9})
    benchmark: Benchmark | None = Field(default=None, json_schema_extra={"position": 9})
    """Published suites, before and after training: MT-Bench, AlpacaEval, Arena-Hard, IFEval, academic sets."""
    shard_size: int = Field(default=500, ge=1, json_schema_extra={"position": 10})
    """Prompts per shard: a shard is one file, one Prefect task and one unit of retry."""
    shards_in_flight: int = Field(default=8, ge=1, json_schema_extra={"position": 11})
    """Shards of one sampler open at a time; bounds memory."""
    processes: int = Field(default=1, ge=1, le=64, json_schema_extra={"position": 11})
    """Client processes, each asking its own shards; for endpoints only. One feeds a thousand rows a second or more, so
    this pays where servers together answer faster than that."""
    max_failed: float = Field(default=0.1, ge=0, le=1, json_schema_extra={"position": 12})
    """Share of rows a stage may lose to failures before the run stops, with its finished work kept."""
    max_unjudged: float = Field(default=0.2, ge=0, le=1, json_schema_extra={"position": 13})
    """Share of a judge's verdicts that may be unreadable, refused, cut off or off the scale before the run stops, with
    its finished work kept."""

    budget: Budget | None = Field(default=None, json_schema_extra={"position": 14})
    """What all runs of this name may spend together; the next request that could exceed it is not sent."""

    @model_validator(mode="after")
    def _nothing_is_missing(self) -> "Recipe":
        nothing = self.training is None and self.benchmark is None
        asks = self.samplers or nothing or (self.training is not None and self.training.needs_answers)
        why = "unless every stage of `training` has `dialogues` or `pairs`"
        needed = ("prompts", "models", "samplers", "judge") if asks else ()
        if not asks and self.benchmark:
            needed, why = ("models",), "for `benchmark`"
        if not asks and self.evaluation:
            needed, why = ("prompts", "models", "judge"), "for `evaluation`"
        if missing := [name for name in needed if not getattr(self, name)]:
            raise ValueError(f"{', '.join(missing)} missing or empty; wanted {why}")
        if self.judge_minimum and not self.judge:
            raise ValueError("judge_minimum is given and no judge to hold to it")
        if self.prompts and not (self.samplers or self.evaluation):
            raise ValueError("prompts are given and nothing answers them; add samplers or evaluation")
        return self

    @model_validator(mode="after")
    def _names_fit(self) -> "Recipe":
        names = [sampler.name for sampler in self.samplers]
        if len(set(names)) != len(names):
            raise ValueError(f"samplers {names}: two have the same name")
        for sampler in (*self.samplers, *((self.evaluation.sampler,) if self.evaluation else ())):
            _known(sampler.model, self.models, f"samplers.{sampler.name}.model")
            served = self.models[sampler.model]
            if isinstance(served, Classifier):
                raise ValueError(
                    f"samplers.{sampler.name}.model: {sampler.model!r} is of kind classifier: it scores and "
                    "does not write"
                )
            if isinstance(served, LlamaCpp) and sampler.n > served.slots:
                raise ValueError(
                    f"samplers.{sampler.name}.n: {sampler.n} answers need as many slots, {sampler.model!r} has "
                    f"{served.slots}; lower n or raise models.{sampler.model}.slots"
                )
        asked = [fingerprint(self.asked(sampler)) for sampler in self.samplers]
        for name, same in zip(names, asked, strict=True):
            if asked.count(same) > 1:
                raise ValueError(
                    f"sampler {name!r} asks exactly what another one asks; give them different seeds"
                )
        for member in self.judges:
            member.asked()
            for aspect in member.aspects:
                member.question(aspect)
            if member.asks:
                _known(member.asks, self.models, f"judge {member.name}.model")
                self._serves(member, self.models[member.asks])
        for name, model in self.models.items():
            if (
                isinstance(model, Adapter)
                and getattr(self.models.get(model.served_by), "kind", None) != "vllm"
            ):
                raise ValueError(
                    f"models.{name}.served_by: {model.served_by!r} must name a model of kind vllm"
                )
        if self.machine is not None:
            try:
                for name, need in needs_of(self.models, self.machine).items():
                    schedule({name: need}, self.machine, [name], [])
            except WrongModel as error:
                raise ValueError(str(error)) from error
        launch = self.training.launch if self.training else None
        for stage in STAGES:
            settings = getattr(self.training, stage, None)
            if settings is not None:
                try:
                    settings.accumulation(launch.devices if launch else 1)
                    if named := settings.template_name:
                        chat_template(named)
                except ValueError as error:
                    raise ValueError(f"training.{stage}: {error}") from error
        online = self.training.rlhf if self.training else None
        if (
            online is not None
            and online.reward == "reward_model"
            and self.training
            and not self.training.reward
        ):
            raise ValueError(
                "training.rlhf.reward: reward_model is what `training.reward` trains, which is missing; add it, or set "
                "reward: judge"
            )
        base = self.models.get(self.training.base) if self.training else None
        if self.training and self.training.gguf and not isinstance(base, LlamaCpp):
            raise ValueError(
                f"training.gguf={self.training.gguf} needs training.base to be a model of kind llamacpp, whose "
                f"tokenizer is kept; {self.training.base!r} is not one"
            )
        for model in self.models.values():
            if isinstance(model, LlamaCpp | Vllm) and model.template is not None:
                chat_template(model.template)
        if self.evaluation:
            self._serves_trained("evaluation.sampler.model", self.evaluation.sampler.model)
        if self.benchmark:
            check_models(self.benchmark, self.models)
            if self.benchmark.base and self.training:
                self._serves_trained("benchmark.base", self.benchmark.base)
        if self.evaluation and not self.training:
            raise ValueError(
                "evaluation: compares a model before and after training, and `training` is missing"
            )
        if not self.samplers:
            return self
        several = {sampler.n for sampler in self.samplers}
        if self.samplers_per_prompt is not None and (
            self.samplers_per_prompt > len(names) or len(several) > 1
        ):
            raise ValueError(
                f"samplers_per_prompt={self.samplers_per_prompt} of {len(names)} samplers with n={sorted(several)}: "
                "wanted no more than there are, and one n for all"
            )
        self._rounds_fit()
        self._processes_fit()
        self._training_rounds_fit()
        if self.answers_per_prompt < self.pairs.min_completions:
            raise ValueError(
                f"samplers: {self.answers_per_prompt} answers per prompt, pairs.min_completions wants "
                f"{self.pairs.min_completions}; add a sampler or set n: 2"
            )
        return self

    def _serves_trained(self, where: str, name: str) -> None:
        """Whether the trained models can take that model's place.

        Raises:
            ValueError: they cannot; says what can.
        """
        model = self.models[name]
        if not isinstance(model, LlamaCpp | Vllm):
            raise ValueError(
                f"{where}: {name!r} is of kind {model.kind}, which cannot serve the trained models; name a model of "
                "kind llamacpp or vllm"
            )
        if isinstance(model, LlamaCpp) and self.training and not self.training.gguf:
            raise ValueError(
                f"{where}: llama.cpp serves the trained models from GGUF files; set training.gguf: q8_0"
            )

    def _rounds_fit(self) -> None:
        """Whether `best_of_n` is reached in whole rounds.

        Raises:
            ValueError: it is not; says which numbers are.
        """
        settings, each = self.best_of_n, self.answers_per_prompt
        if settings.max_n is None:
            if settings.stop_gain is not None:
                raise ValueError(
                    f"best_of_n.stop_gain={settings.stop_gain} ends further rounds, and best_of_n.max_n allows none; "
                    f"set max_n to a multiple of {each}"
                )
        elif settings.max_n % each:
            lower = settings.max_n // each * each
            raise ValueError(
                f"best_of_n.max_n={settings.max_n} is no multiple of the {each} candidates of a round (the samplers' n "
                f"together); set it to {f'{lower} or ' if lower else ''}{lower + each}, or change a sampler's n"
            )

    def _training_rounds_fit(self) -> None:
        """Whether a round's model can answer the next round's prompts.

        Raises:
            ValueError: it cannot; says what is missing.
        """
        plan = self.training
        if plan is None or plan.rounds is None:
            return
        if plan.sft is None and plan.dpo is None:
            raise ValueError("training.rounds: nothing is trained; add training.sft or training.dpo")
        if others := [stage for stage in STAGES if stage not in ("sft", "dpo") and getattr(plan, stage)]:
            raise ValueError(
                f"training.rounds: rounds train sft and dpo, not {', '.join(others)}; leave that out"
            )
        base, asking = self.models.get(plan.base), [s.name for s in self.samplers if s.model == plan.base]
        if not isinstance(base, LlamaCpp | Vllm) or not asking:
            raise ValueError(
                f"training.rounds: training.base={plan.base!r} must be a model of kind llamacpp or vllm that a sampler "
                "asks, so that each round's model can take its place"
            )
        if isinstance(base, LlamaCpp) and plan.gguf is None:
            raise ValueError("training.rounds: llama.cpp serves each round's model; set training.gguf: q8_0")

    @property
    def answers_per_prompt(self) -> int:
        """Of one round."""
        every = [sampler.n for sampler in self.samplers]
        return sum(every[: self.samplers_per_prompt])  # all have the same n where some are drawn

    def draw_samplers(self) -> Callable[[str], frozenset[str]]:
        """Prompt's id -> names of the samplers that answer it."""
        count, names = self.samplers_per_prompt, frozenset(sampler.name for sampler in self.samplers)
        if count is None:
            return lambda prompt: names
        asked = {fingerprint(self.asked(sampler)): sampler.name for sampler in self.samplers}

        @cache
        def drawn(prompt: str) -> frozenset[str]:
            order = sorted(asked, key=lambda own: rank(self.seed, "sampler", prompt, own))
            return frozenset(asked[own] for own in order[:count])

        return drawn

    @property
    def rounds_at_most(self) -> int:
        """Times every sampler is asked for its n answers to a prompt."""
        each = max(1, self.answers_per_prompt)
        return (self.best_of_n.max_n or each) // each

    def _processes_fit(self) -> None:
        if self.processes == 1:
            return
        other = [name for name, model in self.models.items() if not isinstance(model, Endpoint)]
        if other:
            raise ValueError(
                f"processes={self.processes}: {', '.join(other)} would be started by each; only endpoints can be asked "
                "by several, set processes to 1"
            )
        if self.budget is not None:
            raise ValueError(
                f"processes={self.processes}: each would count its own budget; leave one of the two out"
            )

    @staticmethod
    def _serves(member: Member, model: Model) -> None:
        """Whether a judge can ask that model.

        Raises:
            ValueError: it cannot; says what can.
        """
        where = f"judge {member.name}.model: {member.asks!r} is of kind {model.kind}"
        if member.kind != "reward_model":
            if isinstance(model, Classifier):
                raise ValueError(f"{where}, which only a judge of kind reward_model can ask")
            return
        scores = (
            isinstance(model, Classifier)
            or (isinstance(model, Endpoint) and (model.dialect, model.client) == ("vllm", "plain"))
            or (isinstance(model, Vllm) and model.args.get("runner") == "pooling")
        )
        if not scores:
            raise ValueError(
                f"{where}; a reward model is of kind classifier, of kind vllm with args: {{runner: pooling}}, or an "
                "endpoint with dialect: vllm and client: plain"
            )

    @property
    def jury(self) -> Jury:
        """Raises: RecipeError, where the recipe has no judge."""
        if self.judge is None:
            raise RecipeError(f"recipe {self.name!r} has no judge: it trains on data that exist already")
        return panel(self.judge)

    @property
    def judges(self) -> tuple[Member, ...]:
        """The jury's members; none where nothing is judged."""
        return self.jury.members if self.judge else ()

    def asked(self, sampler: Sampler, identity: dict[str, Any] | None = None) -> dict[str, Any]:
        """Everything that decides one sampler's answers besides the prompt: its fingerprint's content.

        How many there are is not in it: a larger n is asked only for the answers that are new.
        """
        if identity is None and isinstance(model := self.models[sampler.model], Imported):
            return model.identity
        fields = sampler.model_dump(mode="json", exclude={"name", "model", "n"})
        if sampler.principle is not None:
            fields["principle_texts"] = principle_texts(sampler.principle)
        return {
            "seed": self.seed,
            "sampler": fields,
            "model": identity or self.models[sampler.model].identity,
        }

    @property
    def fingerprint(self) -> str:
        return fingerprint(self)


def _known(name: str, models: dict[str, Any], where: str) -> None:
    if name not in models:
        raise ValueError(f"{where}: {name!r} is not in models ({', '.join(models)})")
