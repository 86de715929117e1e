"""What a report shows. Flows fill a `ReportData` and store it as `report.json`, to be drawn now and later.

A section without data says so on the page, so a flow fills what it has.
"""

import math
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any, Self

from pydantic import Field, ValidationError

from records.base import Strict

FILE = "report.json"


class Step(Strict):
    """One stage: what came in, what went on."""

    stage: str
    rows_in: int
    rows_out: int
    dropped: dict[str, int] = Field(default_factory=dict)
    """By reason."""


class Interval(Strict):
    """A figure and between what the true one lies with 95 % confidence, where that is known."""

    value: float
    low: float | None = None
    high: float | None = None
    n: int | None = None


class LengthPoint(Strict):
    """One completion."""

    model: str
    length: int
    """Characters."""
    score: float


class Curve(Strict):
    """One metric of a training run. `eval_loss` is drawn with `loss`."""

    metric: str
    points: tuple[tuple[float, float], ...]
    """(step, value)."""


class ModelAccuracy(Strict):
    """Shares of held-out pairs that are in the right order after training, of those with an answer of one model."""

    model: str
    chosen: float | None = None
    """Of those whose chosen it wrote."""
    chosen_pairs: int = 0
    rejected: float | None = None
    rejected_pairs: int = 0


class Training(Strict):
    """How one stage was trained."""

    stage: str
    curves: tuple[Curve, ...]
    alarms: tuple[str, ...] = ()
    """What went wrong although the loss fell."""
    facts: tuple[tuple[str, str], ...] = ()
    """Name and figure: where the time went, and what came of it."""
    by_model: tuple[ModelAccuracy, ...] = ()

    @classmethod
    def from_metrics(cls, stage: str, metrics: Mapping[str, Any]) -> Self:
        """From a model's `metrics.json`."""
        looks = [
            {"step": look["step"], "win_rate": look["win_rate"]} for look in metrics.get("win_rates") or ()
        ]
        log = [line["metrics"] | {"step": line["step"], "loss": line["loss"]} for line in metrics["train"]]
        for line in log:
            line.pop("win_rate", None)  # the looks have it too, those between two lines as well
        speed, seconds = metrics.get("speed") or {}, (metrics.get("speed") or {}).get("seconds") or {}
        whole = sum(seconds.values())
        facts = [(name, f"{speed[key]:,.0f}") for key, name in SPEEDS.items() if key in speed]
        if "mfu" in speed:
            facts.append(
                ("of the peak that did useful work (MFU)", f"{speed['mfu']:.0%} of {speed['device']}")
            )
        if whole:
            shares = ", ".join(f"{name} {spent / whole:.0%}" for name, spent in seconds.items())
            facts.append(("time", f"{whole:,.0f} s: {shares}"))
        if looks:
            facts.append(
                ("steps trained, and the one that was kept", f"{metrics['steps']}, {metrics['kept_step']}")
            )
        models = [
            ModelAccuracy(
                model=model,
                **{side: found["accuracy"] for side, found in sides.items()},
                **{f"{side}_pairs": found["pairs"] for side, found in sides.items()},
            )
            for model, sides in (metrics.get("by_model") or {}).items()
        ]
        made = cls.from_log(stage, [*log, *looks])
        alarms = tuple(metrics.get("alarms") or ())
        return made.model_copy(update={"alarms": alarms, "facts": tuple(facts), "by_model": tuple(models)})

    @classmethod
    def from_log(cls, stage: str, log: Iterable[Mapping[str, Any]]) -> Self:
        """From a trainer's `log_history`: what says how training went, not how fast the machine was."""
        found: dict[str, list[tuple[float, float]]] = {}
        for entry in log:
            for metric, value in entry.items():
                known = "step" in entry and metric.removeprefix("eval_") in METRICS
                if known and isinstance(value, int | float) and math.isfinite(value):
                    found.setdefault(metric, []).append((entry["step"], value))
        order = sorted(found, key=lambda metric: (METRICS.index(metric.removeprefix("eval_")), len(metric)))
        return cls(stage=stage, curves=tuple(Curve(metric=m, points=tuple(found[m])) for m in order))


SPEEDS = {
    "tokens_per_s/unique": "unique tokens per second",
    "tokens_per_s/padded": "padded tokens per second",
}
METRICS = (
    "loss",
    "win_rate",
    "rewards/accuracies",
    "rewards/accuracies_length_matched",
    "rewards/margins",
    "rewards/chosen",
    "rewards/rejected",
    "logps/chosen_change",
    "saturated",
    "lengths/chosen",
    "lengths/rejected",
    "mean_token_accuracy",
    "accuracy",
    "margin",
    "reward",
    "kl",
    "entropy",
    "grad_norm",
    "learning_rate",
)
"""What a trainer logs and a person looks at, in that order."""


class RoundRow(Strict):
    """One round of on-policy training."""

    round: int
    prompts: int
    pairs: int
    """To train on."""
    score: Interval | None = None
    """The judge's mean over the answers of the model that the round began with."""
    best: Interval | None = None
    """The same of each prompt's best answer."""
    loss_first: float
    loss_last: float


class EvaluationRow(Strict):
    model: str
    metric: str
    value: float
    low: float | None = None
    high: float | None = None
    n: int | None = None


class SuiteRow(Strict):
    """One metric of a suite, as written for people."""

    metric: str
    values: tuple[str, ...]
    """One for each of the suite's columns."""


class SuiteTable(Strict):
    """One published suite, before and after training."""

    name: str
    questions: int
    columns: tuple[str, ...]
    """Models, and at the end whose gain over the first is shown."""
    rows: tuple[SuiteRow, ...]
    groups: tuple[SuiteRow, ...] = ()
    """The suite's own figure by category."""
    remarks: tuple[str, ...] = ()


class Verdict(Strict):
    """What one judge said of one answer."""

    judge: str
    aspect: str
    status: str
    score: float | None = None
    detail: str = ""
    prompts: tuple[str, ...] = ()
    """What the judge was asked, word for word; several where it compared the answer with others."""
    raw: str = ""
    """What it said."""
    distribution: dict[str, float] = Field(default_factory=dict)
    """Label -> share."""
    off_scale: float | None = None


class JudgeAgreement(Strict):
    """One judge against the others of the jury, over every two answers of a prompt."""

    judge: str
    rate: float | None
    """Share on which they agree, where both have a winner; 0.5 is chance."""
    agree: int
    disagree: int
    tied: int


class Answer(Strict):
    model: str
    text: str
    score: float | None = None
    verdicts: tuple[Verdict, ...] = ()


class BeforeAfter(Strict):
    """One held-out prompt, answered by the model before and after training."""

    prompt: str
    before: Answer
    after: Answer


class ExamplePair(Strict):
    prompt: str
    prompt_id: str = ""
    chosen: Answer
    rejected: Answer


class UsageRow(Strict):
    """What a stage cost."""

    stage: str
    requests: int = 0
    prompt_tokens: int = 0
    cached_tokens: int = 0
    completion_tokens: int = 0
    seconds: float = 0.0
    cost: float = 0.0
    """In the currency of the endpoints' prices."""


class EndpointRow(Strict):
    """How busy one model was kept in one stage, over the last run that asked it."""

    stage: str
    model: str
    sent: int
    """Requests, repeated ones too."""
    answered: int
    failed: int
    """Requests given up."""
    retries: dict[str, int] = Field(default_factory=dict)
    """By cause."""
    prompt_tokens: int
    cached_tokens: int
    completion_tokens: int
    tokens_in_per_s: float
    tokens_out_per_s: float
    busy_seconds: float
    """With at least one request at the model."""
    starved: float
    """0 to 1."""
    limit: int
    """Requests at a time, at the end."""
    spend: float
    """In the currency of the endpoint's prices."""
    series: tuple[tuple[float, float, float, float, float, float], ...] = ()
    """Seconds, running, waiting, limit, tokens per second in and out."""


class ReportData(Strict):
    """Everything on the page."""

    title: str
    recipe: str
    """The recipe's name."""
    plan: str = ""
    """What was to be done, as the plan command prints it."""
    headline: dict[str, str] = Field(default_factory=dict)
    """The run in a few figures, label -> value: {"pairs": "1 204", "win rate after DPO": "61 %"}."""
    messages: tuple[str, ...] = ()
    """Warnings of the checks before training."""
    funnel: tuple[Step, ...] = ()
    scores: dict[str, tuple[float, ...]] = Field(default_factory=dict)
    """Model -> scores, a sample where there are many."""
    win_rates: dict[str, Interval] = Field(default_factory=dict)
    """Model -> how often it is the chosen in its pairs, 0 to 1."""
    lengths: tuple[LengthPoint, ...] = ()
    margins: tuple[float, ...] = ()
    judgements: dict[str, dict[str, int]] = Field(default_factory=dict)
    """Model -> status -> judgements."""
    judgements_by: dict[str, dict[str, dict[str, int]]] = Field(default_factory=dict)
    """The same by something else, such as the aspect: what -> group -> status -> judgements."""
    agreement: tuple[JudgeAgreement, ...] = ()
    dialects: dict[str, str] = Field(default_factory=dict)
    """Judge model -> how it was asked and read."""
    training: tuple[Training, ...] = ()
    rounds: tuple[RoundRow, ...] = ()
    evaluation: tuple[EvaluationRow, ...] = ()
    suites: tuple[SuiteTable, ...] = ()
    before_after: tuple[BeforeAfter, ...] = ()
    pairs: tuple[ExamplePair, ...] = ()
    usage: tuple[UsageRow, ...] = ()
    endpoints: tuple[EndpointRow, ...] = ()
    versions: dict[str, str] = Field(default_factory=dict)
    dataset_digest: str = ""

    def save(self, run: Path) -> Path:
        """Write `report.json` into the run's folder."""
        path = run / FILE
        part = path.with_suffix(".part")
        part.write_text(self.model_dump_json(indent=1), encoding="utf-8")
        part.replace(path)
        return path

    @classmethod
    def load(cls, run: Path) -> Self:
        """Read a run's `report.json`.

        Raises:
            FileNotFoundError: the run has none; it did not come to its end.
            ValueError: it was written by another version of this project, or edited.
        """
        path = run / FILE
        if not path.is_file():
            raise FileNotFoundError(f"no {FILE} in {run}; wanted the folder of a run that came to its end")
        try:
            return cls.model_validate_json(path.read_bytes())
        except ValidationError as error:
            first = error.errors()[0]
            field = ".".join(map(str, first["loc"]))
            raise ValueError(
                f"{path}: {field}: {first['msg']}; run the recipe again to write it anew"
            ) from error
