"""What a run will ask, before it asks anything: calls, tokens and money, and what is there already."""

from dataclasses import dataclass
from typing import Any

from flows.answers import stages_of
from flows.inputs import gather_prompts
from flows.run import Run
from judges.jury import Member
from records.schema import Prompt
from serving.settings import Endpoint

LETTERS_PER_TOKEN = 4.0
"""English text; the estimate needs no tokenizer."""


@dataclass
class Line:
    """One stage at one model."""

    stage: str
    model: str
    requests: int
    held: int
    tokens_in: int
    tokens_out: int
    """At most."""
    cost: float

    def row(self) -> tuple[str, ...]:
        money = f"{self.cost:.2f}" if self.cost else "–"
        return (
            self.stage,
            self.model,
            *(f"{count:,}" for count in (self.requests, self.held, self.tokens_in, self.tokens_out)),
            money,
        )


@dataclass
class Plan:
    prompts: int
    held_out: int
    lines: list[Line]
    training: dict[str, dict[str, Any]]

    def content(self) -> dict[str, Any]:
        return {
            "prompts": self.prompts,
            "held_out": self.held_out,
            "stages": [vars(line) for line in self.lines],
            "requests": sum(line.requests for line in self.lines),
            "cost": sum(line.cost for line in self.lines),
            "training": self.training,
        }


def plan(run: Run) -> Plan:
    """Count what is missing. Reads the run's folder and the prompts; asks no model."""
    recipe = run.recipe
    prompts, _ = gather_prompts(run)
    test = [prompt for prompt in prompts if prompt.meta["split"] == "test"]
    lines: list[Line] = []

    def price(model: str, tokens_in: int, tokens_out: int) -> float:
        served = recipe.models[model]
        if not isinstance(served, Endpoint):
            return 0.0
        return (tokens_in * served.price_in + tokens_out * served.price_out) / 1e6

    for sampler in recipe.samplers:
        rows = run.completions_stage(sampler).find([prompt.id for prompt in prompts])
        there = {key: sampler.n if row.dropped else len(row.answers) for key, row in rows.items()}
        missing = [prompt for prompt in prompts if there.get(prompt.id, 0) < sampler.n]
        new = sum(sampler.n - there.get(prompt.id, 0) for prompt in missing)
        tokens_in, tokens_out = _tokens(missing), new * sampler.max_tokens
        cost = price(sampler.model, tokens_in, tokens_out)
        lines.append(
            Line(
                f"generate {sampler.name}",
                sampler.model,
                len(missing),
                len(prompts) - len(missing),
                tokens_in,
                tokens_out,
                cost,
            )
        )
    stages = stages_of(run, recipe.samplers, recipe.jury.members)
    answers = sum(sampler.n for sampler in recipe.samplers)
    longest = sum(sampler.n * sampler.max_tokens for sampler in recipe.samplers)
    for member in recipe.jury.members:
        if not member.asks:
            continue
        own = {stage.folder: stage for each in stages if (stage := each.judge_stages[member.name])}
        rows = len(prompts) * len(member.aspects) * (answers if member.scope == "completion" else 1)
        per_row = 1 if member.scope == "completion" else member.calls(answers)
        held = min(rows, sum(len(stage.held()) for stage in own.values()))
        shown = longest / answers  # tokens of answers in one request, at most
        if member.scope == "prompt":
            shown *= 2 if member.kind == "pairwise" else answers
        requests = (rows - held) * per_row
        tokens_in = int(requests * (_tokens(prompts) / max(1, len(prompts)) + _own_words(member) + shown))
        tokens_out = requests * member.longest
        cost = price(member.asks, tokens_in, tokens_out)
        there = held * per_row
        lines.append(Line(f"judge {member.name}", member.asks, requests, there, tokens_in, tokens_out, cost))
    training = {}
    for kind in ("sft", "dpo"):
        settings = getattr(recipe.training, kind, None)
        if settings is not None:
            most = len(prompts) - len(test)
            training[kind] = {
                "rows_at_most": most,
                "steps_at_most": settings.steps(most),
                "batch": settings.batch,
            }
    return Plan(len(prompts), len(test), lines, training)


def _own_words(member: Member) -> float:
    """Tokens of a judge's own text around instruction and answers."""
    questions = [len(member.question(aspect)) for aspect in member.aspects]
    return (len(member.asked().get("text", "")) + sum(questions) / len(questions)) / LETTERS_PER_TOKEN


def _tokens(prompts: list[Prompt]) -> int:
    return int(sum(len(m.content) for prompt in prompts for m in prompt.messages) / LETTERS_PER_TOKEN)


def plan_text(run: Run) -> str:
    """The plan as people read it."""
    found = plan(run)
    head = ("stage", "model", "requests", "there already", "tokens in", "tokens out, at most", "cost")
    table = [head, *(line.row() for line in found.lines)]
    widths = [max(len(row[i]) for row in table) for i in range(len(head))]
    lines = [f"{found.prompts} prompts, {found.held_out} of them held out", ""]
    for row in table:
        cells = [
            cell.ljust(width) if i < 2 else cell.rjust(width)
            for i, (cell, width) in enumerate(zip(row, widths, strict=True))
        ]
        lines.append("  ".join(cells).rstrip())
    if run.recipe.rounds_at_most > 1:
        lines.append(
            f"best of n: one round is counted; there are up to {run.recipe.rounds_at_most}, until each prompt has "
            f"{run.recipe.best_of_n.max_n} candidates"
            + (" or enough" if run.recipe.best_of_n.stop_gain is not None else "")
        )
    for kind, figures in found.training.items():
        lines.append(f"train {kind}: at most {figures['steps_at_most']} steps of {figures['batch']}")
    if run.recipe.evaluation:
        count = min(found.held_out, run.recipe.evaluation.prompts)
        lines.append(
            f"evaluate: {count} held-out prompts, each model {run.recipe.evaluation.sampler.n} answers"
        )
    return "\n".join(lines)
