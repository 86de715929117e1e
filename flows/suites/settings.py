"""What a recipe says of the suites that its models sit. Questions are files of the user's, or datasets of the Hub."""

from collections.abc import Mapping
from typing import Annotated, Any, Literal

from pydantic import BeforeValidator, Field, model_validator

from judges.critique import Critique
from judges.pairwise import Pairwise
from records.base import Strict
from serving.settings import Classifier, Imported, LlamaCpp, Model, Name

TEMPERATURES = {"writing": 0.7, "roleplay": 0.7, "stem": 0.1, "humanities": 0.1}
"""Of MT-Bench's answers, by category; 0 elsewhere (lm-sys/FastChat fastchat/llm_judge/common.py)."""
GRADING = {"prompt": "judges/graded", "mark": "brackets", "top_p": 1.0, "max_tokens": 2048}


def _graded(given: Any) -> Any:
    return {**GRADING, **given} if isinstance(given, Mapping) else given


class Suite(Strict):
    """What all suites share."""

    limit: int | None = Field(default=None, ge=1)
    """Questions, at most, drawn by their id; the harness takes its first. Figures of a part are not the suite's."""


class MTBench(Suite):
    """Two turns, each answer graded from 1 to 10 (arXiv 2306.05685)."""

    kind: Literal["mt_bench"] = "mt_bench"
    questions: str
    """FastChat's question.jsonl: a file, looked for beside the recipe first, or a dataset of the Hub as
    OWNER/NAME@REVISION:SPLIT."""
    references: str | None = None
    """FastChat's reference_answer file. Questions on maths, reasoning and coding are graded by it and must have one."""
    judge: Annotated[Critique, BeforeValidator(_graded)]
    """{model: NAME} is enough: prompts `judges/graded` and, with a reference, `judges/graded_reference`, ratings in
    double brackets, temperature 0, top_p 1, at most 2048 tokens, as FastChat asks."""
    reference_prompt: str = "judges/graded_reference"
    """The judge's prompt file where there is a reference."""
    temperatures: dict[str, float] = Field(default=TEMPERATURES)
    """Of the answers by category, 0 elsewhere; the default is FastChat's."""
    max_tokens: int = Field(default=1024, ge=1)
    """Longest answer. FastChat: 1024."""


class Compared(Suite):
    """What suites share that compare with a baseline's answers."""

    judge: Pairwise
    """{model: NAME} is enough. Each question is judged in both orders, by the probabilities of its verdict where the
    server gives them."""
    max_tokens: int = Field(default=2048, ge=1)
    """Longest answer. Zephyr's entry in AlpacaEval: 2048."""
    temperature: float = Field(default=0.7, ge=0, le=5)
    """Of the answers. Zephyr's entry in AlpacaEval: 0.7."""


class AlpacaEval(Compared):
    """Win rate against a baseline's answers, plain and with length controlled (arXiv 2404.04475)."""

    kind: Literal["alpaca_eval"] = "alpaca_eval"
    questions: str
    """AlpacaEval's evaluation set, whose `output` is the baseline's answer: a file or a dataset, as of mt_bench."""
    baseline: str | None = None
    """Another baseline's model_outputs file; None: the answers in `questions`."""
    calibration: str | None = None
    """AlpacaEval's df_gamed.csv (in tatsu-lab/alpaca_eval on the Hub): difficulties of the instructions, and answers of
    which only the length was changed. Without it, the regression has neither: its figure is not the leaderboard's
    where lengths differ much from the baseline's."""


class ArenaHard(Compared):
    """Win rate against a baseline's answers to hard questions, plain and with style controlled (arXiv 2406.11939)."""

    kind: Literal["arena_hard"] = "arena_hard"
    questions: str
    """Arena-Hard's question.jsonl: a file or a dataset, as of mt_bench."""
    baseline: str
    """The model_answer file of the baseline: gpt-4-0314 for version 0.1."""
    max_tokens: int = Field(default=4096, ge=1)
    """Longest answer. Arena-Hard: 4096."""
    temperature: float = Field(default=0.0, ge=0, le=5)
    """Of the answers. Arena-Hard: 0."""


class IFEval(Suite):
    """Instructions that a machine can check, strictly and loosely (arXiv 2311.07911). Needs no judge."""

    kind: Literal["ifeval"] = "ifeval"
    questions: str
    """IFEval's input_data.jsonl: a file or a dataset, as of mt_bench; google/IFEval has it."""
    max_tokens: int = Field(default=1280, ge=1)
    """Longest answer. lm-evaluation-harness: 1280."""
    temperature: float = Field(default=0.0, ge=0, le=5)
    """Of the answers. lm-evaluation-harness: 0."""


class Harness(Suite):
    """Academic sets by lm-evaluation-harness, a program of its own, against the served model."""

    kind: Literal["harness"] = "harness"
    tasks: tuple[str, ...] = Field(min_length=1)
    """As `lm_eval --tasks` names them: [arc_challenge, hellaswag, truthfulqa_mc2]."""
    shots: int | None = Field(default=None, ge=0)
    """Examples before each question; None: the task's own number. Open LLM Leaderboard: ARC 25, HellaSwag 10, MMLU 5,
    TruthfulQA 0, so each is a suite of its own."""
    api: Literal["completions", "chat"] = "completions"
    """completions: plain text, and probabilities of given answers, which vLLM gives and llama.cpp does not. chat: for
    tasks that write an answer."""
    tokenizer: str | None = None
    """A folder or a Hugging Face id, for completions; None: the served model's."""
    include: str | None = None
    """Folder with task files of your own."""
    python: str | None = None
    """Interpreter of the harness's own environment; else $ZEPHYR_LM_EVAL_PYTHON, else `lm_eval` on PATH."""
    timeout: float = Field(default=86_400, gt=0)
    """Seconds for one model."""


AnySuite = Annotated[
    MTBench | AlpacaEval | ArenaHard | IFEval | Harness,
    Field(discriminator="kind"),
]


class Benchmark(Strict):
    """Published suites, sat by the model before and after training, and by others."""

    suites: dict[Name, AnySuite] = Field(min_length=1)
    """By a name of your own: {mt-bench: {kind: mt_bench, …}}."""
    base: str | None = None
    """The recipe's model that is compared before and after training: trained weights take its place, as in
    `evaluation`. None: `models` alone."""
    models: tuple[str, ...] = ()
    """Further models of the recipe that sit the suites as they are."""
    system: str | None = None
    """System turn before every question. "": an empty one, with which Zephyr was trained and evaluated."""

    @model_validator(mode="after")
    def _somebody_sits_them(self) -> "Benchmark":
        if self.base is None and not self.models:
            raise ValueError("nobody is asked; name a model as `base`, or some in `models`")
        named = [*([self.base] if self.base else []), *self.models]
        if len(set(named)) < len(named):
            raise ValueError(f"base and models: {named} names one twice")
        return self

    @property
    def judges(self) -> dict[str, Critique | Pairwise]:
        """By suite."""
        found = {name: getattr(suite, "judge", None) for name, suite in self.suites.items()}
        return {name: judge for name, judge in found.items() if judge is not None}


def check_models(benchmark: Benchmark, models: Mapping[str, Model]) -> None:
    """Whether the recipe has the models that sit and judge, and they can.

    Raises:
        ValueError: it has not, or they cannot; names the field and what can.
    """
    named = [(f"benchmark.models.{i}", name) for i, name in enumerate(benchmark.models)]
    sitters = [*([("benchmark.base", benchmark.base)] if benchmark.base else []), *named]
    judges = [(f"benchmark.suites.{name}.judge.model", own.model) for name, own in benchmark.judges.items()]
    for where, name in (*sitters, *judges):
        if name not in models:
            raise ValueError(f"{where}: {name!r} is not in models ({', '.join(models)})")
        if isinstance(models[name], Classifier | Imported):
            raise ValueError(f"{where}: {name!r} is of kind {models[name].kind}, which writes no answers")
    for judge in benchmark.judges.values():
        judge.asked()
    small = [name for _, name in sitters if isinstance(models[name], LlamaCpp)]
    for name, suite in benchmark.suites.items():
        if isinstance(suite, Harness) and suite.api == "completions" and small:
            raise ValueError(
                f"benchmark.suites.{name}.api: completions wants probabilities of given answers, which llama.cpp, "
                f"behind {small[0]!r}, does not give; set api: chat and name tasks that write an answer"
            )
