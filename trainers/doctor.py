"""What a training run would do, before any weights are loaded: from its data, its settings and the base's config.

`examine` names what would train nothing, or something else than it says, and `estimate` says what it would take.
"""

from collections import Counter
from collections.abc import Iterator, Sequence
from typing import Any, Literal

from pydantic import Field

from records.base import Strict
from trainers.arguments import compute, load_tokenizer
from trainers.cost import Cost, estimate
from trainers.guards import BadInput, check_base, check_length, check_settings
from trainers.job import Job
from trainers.reference import key_of_pair
from trainers.rows import Rows
from trainers.settings import Training
from trainers.tokens import tokens_of

LONGER_WINS = 0.75
"""Share of pairs whose chosen is the longer one, above which the model learns to write long. Our choice."""
FEW_STEPS = 10
"""Optimizer steps below which a schedule with warm-up means nothing. Our choice."""

DROPPED = {
    "identical": ("chosen and rejected are the same", "they teach nothing; another margin leaves them out"),
    "identical_after_truncation": (
        "chosen and rejected are the same once cut to max_length",
        "raise max_length",
    ),
    "empty_answer": ("an answer is empty", "drop these answers before pairing"),
    "no_answer": ("the last message is not the assistant's", "end each row with an answer"),
    "too_long": ("a conversation is longer than max_length", "raise max_length"),
    "no_margin": ("the pair has no margin", "set margin: 0, or drop these pairs"),
    "no_question": ("the prompt does not end with the user's turn", "drop these rows"),
    "empty_text": ("the text is empty", "drop these rows"),
    "prompt_too_long": ("the prompt alone fills max_length", "raise max_length, or set max_prompt"),
}
"""Rows that are left out, and why."""
CHANGED = {
    "prompt_cut": ("the prompt loses its beginning", "raise max_prompt"),
    "chosen_cut": ("the chosen answer loses its end and its stop", "raise max_length"),
    "rejected_cut": ("the rejected answer loses its end and its stop", "raise max_length"),
    "cut": ("the dialogue loses its end", "raise max_length"),
    "prompt_not_a_prefix": (
        "the rendered prompt is not the start of the rendered dialogue",
        "use a template that renders both alike",
    ),
    "no_end_token": (
        "no end-of-sequence token follows the answer",
        "end the assistant's turn with eos_token in the template",
    ),
}
"""Rows that are trained on otherwise than they are written."""


class Finding(Strict):
    """One thing that is wrong."""

    level: Literal["error", "warning"]
    """An error stops training or makes it mean something else; a warning says what it will learn besides."""
    what: str
    """Its name, from a closed list."""
    detail: str
    fix: str


class Examined(Strict):
    findings: tuple[Finding, ...]
    rows: dict[str, Any] = Field(default={})
    """Of the training data: `rows`, `kept`, `tokens`, `dropped`, `changed`; empty where it cannot be read."""
    cost: Cost | None = None
    """None where something is wrong that it would rest on."""

    @property
    def errors(self) -> list[Finding]:
        return [finding for finding in self.findings if finding.level == "error"]


def examine(job: Job, devices: int = 1) -> Examined:
    """Read data, template and config of a job as training would."""
    findings: list[Finding] = []

    def attempt(what: str, step: Any) -> Any:
        try:
            return step()
        except BadInput as error:
            detail, _, fix = str(error).rpartition("; ")
            findings.append(
                Finding(level="error", what=what, detail=detail or fix, fix=fix if detail else "")
            )
            return None

    attempt("settings", lambda: check_settings(job.settings, devices) or True)
    config = attempt("base", lambda: check_base(job.base))
    if config is None:
        return Examined(findings=tuple(findings))
    attempt("max_length", lambda: check_length(job.settings, config) or True)
    tokenizer = attempt(
        "tokenizer", lambda: load_tokenizer(job.base, job.settings, chats=job.kind != "pretrain")
    )
    if tokenizer is None:
        return Examined(findings=tuple(findings))
    rows = attempt("data", lambda: tokens_of(job, tokenizer, job.train))
    if rows is None:
        return Examined(findings=tuple(findings))
    data = job.eval
    held_out = attempt("held-out data", lambda: tokens_of(job, tokenizer, data)) if data else None
    findings += _of_rows(rows)
    findings += _of_settings(job.settings, len(rows.tokens), lora=job.settings.lora is not None)
    if job.kind == "dpo":
        findings += _of_pairs(rows.tokens)
    if held_out is not None:
        findings += _leaks(rows.tokens, held_out.tokens)
    cost = None
    if not any(finding.level == "error" for finding in findings):
        cost = estimate(job, rows.tokens, devices, compute(job.settings))
        findings += _of_memory(cost)
    return Examined(findings=tuple(findings), rows=rows.counts, cost=cost)


def _of_rows(rows: Rows) -> Iterator[Finding]:
    total = rows.counts["rows"]
    for kind, known in (("dropped", DROPPED), ("changed", CHANGED)):
        for what, count in rows.counts[kind].items():
            said, fix = known[what]
            verb = "left out" if kind == "dropped" else "changed"
            detail = f"{count} of {total} rows are {verb}: {said}"
            level = "error" if count > total / 2 else "warning"
            yield Finding(level=level, what=what, detail=detail, fix=fix)


def _of_settings(settings: Training, rows: int, *, lora: bool) -> Iterator[Finding]:
    steps = settings.steps(rows)
    if settings.batch > rows:
        yield Finding(
            level="warning",
            what="batch",
            detail=f"batch={settings.batch} is more than the {rows} rows there are: every step sees all of them",
            fix="lower batch",
        )
    if steps < FEW_STEPS:
        yield Finding(
            level="warning",
            what="few_steps",
            detail=f"{steps} optimizer steps; warm-up and schedule mean little below {FEW_STEPS}",
            fix="lower batch, or raise epochs",
        )
    rate, usual = settings.learning_rate, (1e-7, 1e-3) if lora else (1e-8, 1e-4)
    who = "LoRA" if lora else "all weights"
    if not usual[0] <= rate <= usual[1]:
        yield Finding(
            level="warning",
            what="learning_rate",
            detail=f"learning_rate={rate:g}; usual for {who} is {usual[0]:g} to {usual[1]:g}",
            fix="see the handbook's in docs/recipes.md",
        )


def _of_pairs(pairs: Any) -> Iterator[Finding]:
    columns = {
        name: [tuple(ids) for ids in pairs[name]] for name in ("prompt_ids", "chosen_ids", "rejected_ids")
    }
    rows = list(zip(*columns.values(), strict=True))
    keys = Counter(key_of_pair(dict(zip(columns, row, strict=True))) for row in rows)
    if again := sum(count - 1 for count in keys.values()):
        yield Finding(
            level="warning",
            what="duplicates",
            detail=f"{again} of {len(rows)} pairs are there already",
            fix="drop them: each weighs twice",
        )
    every = set(rows)
    if both := sum((prompt, rejected, chosen) in every for prompt, chosen, rejected in rows) // 2:
        yield Finding(
            level="error",
            what="contradictions",
            detail=f"{both} pairs are there in both directions: what one prefers the other rejects",
            fix="judge these answers again, or drop both",
        )
    uneven = [(len(chosen), len(rejected)) for _, chosen, rejected in rows if len(chosen) != len(rejected)]
    longer = sum(chosen > rejected for chosen, rejected in uneven)
    if len(uneven) >= 20 and longer > LONGER_WINS * len(uneven):
        yield Finding(
            level="warning",
            what="longer_wins",
            detail=f"the chosen is the longer one in {longer / len(uneven):.0%} of the pairs",
            fix="the model will learn to write long; pairs.length_control takes that out",
        )


def _leaks(train: Any, held_out: Any) -> Iterator[Finding]:
    names = ("prompt_ids", "input_ids", "chosen_ids", "prompt_id")
    first = next(name for name in names if name in train.column_names)
    known = {tuple(ids) for ids in train[first]}
    if leaked := sum(tuple(ids) in known for ids in held_out[first]):
        yield Finding(
            level="error",
            what="leak",
            detail=f"{leaked} of {len(held_out)} held-out rows have a prompt that is trained on",
            fix="draw the split by prompt",
        )


def _of_memory(cost: Cost) -> Sequence[Finding]:
    if cost.memory_gb <= cost.available_gb:
        return []
    fitting = cost.micro_batch_that_fits
    return [
        Finding(
            level="error",
            what="memory",
            detail=f"about {cost.memory_gb:.1f} GB are needed per device, {cost.available_gb:.1f} are there",
            fix=f"set micro_batch to {fitting}"
            if fitting
            else "set lora, or gradient_checkpointing, or another dtype",
        )
    ]
