"""What a run will ask, before it asks anything: calls, tokens, money, GPU-hours and time, and what is there already."""

from collections import defaultdict
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from typing import Any

from flows.answers import stages_of
from flows.progress import clock
from flows.run import Run
from flows.sizes import prompts_of, training_line, training_size
from flows.suites.plan import suite_lines
from flows.tokens import answer_tokens, judge_tokens, prompt_tokens, reason_tokens
from pairs.training_data import DATA
from serving.costs import Span, Work, seconds_of, slots_of, throughput_of, timeline
from serving.gpus import detect, need_of, needs_of
from serving.placement import GENERATE, JUDGE, Machine, Part, Schedule, schedule
from serving.settings import Adapter, Endpoint, Imported, Throughput, Vllm
from serving.speed import Measured


@dataclass
class Line:
    """One stage at one model. Tokens and money are expected values where nothing else is said."""

    stage: str
    model: str
    requests: int
    held: int
    """Requests whose answers are there."""
    tokens_in: int
    tokens_in_uncached: int
    """Those that the prefix cache does not hold."""
    tokens_out: int
    tokens_out_most: int
    cost: float
    cost_most: float
    seconds: float | None
    """At the model, kept busy; None where its speed is not known."""
    gpu_hours: float | None
    """None for models that take no GPU of ours."""

    def row(self) -> tuple[str, ...]:
        counts = (self.requests, self.held, self.tokens_in, self.tokens_out)
        money = f"{self.cost:.2f}, at most {self.cost_most:.2f}" if self.cost_most else "–"
        hours = "–" if self.gpu_hours is None else f"{self.gpu_hours:.2f}"
        return self.stage, self.model, *(f"{n:,}" for n in counts), clock(self.seconds), hours, money


HEAD = ("stage", "model", "requests", "there already", "tokens in", "tokens out", "busy", "GPU-hours", "cost")


@dataclass
class Plan:
    prompts: int
    held_out: int
    lines: list[Line]
    schedule: Schedule
    spans: list[Span]
    unknown: list[str]
    """Models without a known speed; the time is without them."""
    training: dict[str, dict[str, Any]]
    notes: list[str]
    """What was not read, and how it was counted all the same."""
    measured: Mapping[str, Measured | str] = field(default_factory=dict)
    """Of each model that was to be measured, its speed or why there is none."""

    @property
    def eta(self) -> float | None:
        """Seconds from the start to the last verdict; None where no model's speed is known."""
        return max((span.ends for span in self.spans), default=None if self.unknown else 0.0)

    @property
    def ends(self) -> dict[str, float]:
        """Seconds from the start until each model is done, where its speed is known."""
        last: dict[str, float] = {}
        for span in self.spans:
            last[span.stay.model] = max(last.get(span.stay.model, 0.0), span.ends)
        return last

    def content(self) -> dict[str, Any]:
        """As JSON. Times in seconds."""
        return {
            "prompts": self.prompts,
            "held_out": self.held_out,
            "stages": [asdict(line) for line in self.lines],
            "requests": sum(line.requests for line in self.lines),
            "tokens_in": sum(line.tokens_in for line in self.lines),
            "tokens_out": sum(line.tokens_out for line in self.lines),
            "cost": sum(line.cost for line in self.lines),
            "cost_most": sum(line.cost_most for line in self.lines),
            "gpu_hours": sum(line.gpu_hours or 0.0 for line in self.lines),
            "switches": self.schedule.switches,
            "starts": len({span.stay.model for span in self.spans} | {s.model for s in self.schedule.stays}),
            "turns": [
                {"model": s.stay.model, "parts": s.stay.parts, "begins": s.begins, "ends": s.ends}
                for s in sorted(self.spans, key=lambda span: span.begins)
            ],
            "eta_seconds": self.eta,
            "unknown_speed": self.unknown,
            "training": self.training,
            "measured": {
                name: asdict(one)
                | {"throughput": one.throughput.model_dump(), "usage": one.usage.model_dump()}
                if isinstance(one, Measured)
                else one
                for name, one in self.measured.items()
            },
            "notes": self.notes,
        }


def plan(run: Run, measured: Mapping[str, Measured | str] | None = None) -> Plan:
    """Count what is missing. Reads the run's folder and the prompts, as far as they are here; asks no model.

    `measured`: by model, see `flows.speeds`; goes before the recipe's `throughput` and the estimate.
    """
    measured = measured or {}
    recipe = run.recipe
    prompts, notes = prompts_of(run)
    test = [prompt for prompt in prompts if prompt.meta["split"] == "test"]
    machine = recipe.machine
    if machine is None and any(isinstance(model, Vllm) for model in recipe.models.values()):
        machine = detect()
    lines: list[Line] = []
    work: dict[tuple[str, Part], Work] = defaultdict(Work)
    lengths: list[tuple[Any, float]] = []

    def add(
        stage: str,
        name: str,
        part: Part,
        counts: tuple[int, int],
        prompt: tuple[float, float],
        out: tuple[float, float],
    ) -> None:
        """`counts`: requests and those there already. `prompt`: tokens, uncached. `out`: expected, at most."""
        (requests, there), (tokens, uncached), (expected, most) = counts, prompt, out
        own = Work(
            requests, uncached, expected, min(most / max(1, requests), 5 * expected / max(1, requests))
        )
        server = _server(recipe.models, name)
        work[server, part] += own
        model = recipe.models[server]
        speed = _speed(server, model, machine, part, measured)
        busy = seconds_of(own, speed, slots_of(model), _per_minute(model))[0] if speed else None
        hours = None
        if isinstance(model, Vllm) and busy is not None:
            hours = busy / 3600 * need_of(model, machine or Machine(gpus=1)).gpus
        cost, cost_most = _price(model, tokens, expected), _price(model, tokens, most)
        lines.append(
            Line(stage, name, requests, there, round(tokens), round(uncached), round(expected), round(most), cost,
                 cost_most, busy, hours)
        )  # fmt: skip

    drawn = recipe.draw_samplers()
    for sampler in recipe.samplers:
        own = run.completions_stage(sampler)
        its = [prompt for prompt in prompts if sampler.name in drawn(prompt.id)]
        rows = own.find([prompt.id for prompt in its])
        whole = isinstance(recipe.models[sampler.model], Imported)
        there = {k: sampler.n if row.dropped or whole else len(row.answers) for k, row in rows.items()}
        missing = [prompt for prompt in its if there.get(prompt.id, 0) < sampler.n]
        new = sum(sampler.n - there.get(prompt.id, 0) for prompt in missing)
        tokens = prompt_tokens(sampler, missing, recipe.seed, own.fingerprint)
        length = answer_tokens(sampler, rows)
        lengths.append((sampler, length))
        counts = len(missing), len(its) - len(missing)
        out = new * length, float(new * sampler.max_tokens)
        add(f"generate {sampler.name}", sampler.model, GENERATE, counts, (tokens, tokens), out)
    stages = stages_of(run, recipe.samplers, recipe.judges)
    answers = recipe.answers_per_prompt
    needs = needs_of(recipe.models, machine) if machine else {}
    generators = [_server(recipe.models, sampler.model) for sampler in recipe.samplers]
    judges = [_server(recipe.models, member.asks) for member in recipe.judges if member.asks]
    order = schedule(needs, machine, generators, judges)
    for member in recipe.judges:
        if not member.asks:
            continue
        folders = {stage.folder: stage for each in stages if (stage := each.judge_stages[member.name])}
        cases = len(prompts) * len(member.aspects) * (answers if member.scope == "completion" else 1)
        per_case = 1 if member.scope == "completion" else member.calls(answers)
        held = min(cases, sum(len(stage.held()) for stage in folders.values()))
        requests = (cases - held) * per_case
        near = all(order.together(name, _server(recipe.models, member.asks)) for name in generators)
        each = judge_tokens(member, prompts, lengths, near, drawn)
        out = requests * reason_tokens(member), float(requests * member.longest)
        tokens = requests * each.tokens, requests * each.uncached
        add(f"judge {member.name}", member.asks, JUDGE, (requests, held * per_case), tokens, out)
    training = {
        kind: training_size(run, recipe.training, kind, len(prompts) - len(test))
        for kind in DATA  # of pretraining the texts are not read yet
        if recipe.training and getattr(recipe.training, kind)
    }
    times = _time(run, work, machine, measured)
    return Plan(len(prompts), len(test), lines, *times, training, notes, measured)


def _time(
    run: Run,
    work: dict[tuple[str, Part], Work],
    machine: Machine | None,
    measured: Mapping[str, Measured | str],
) -> tuple[Schedule, list[Span], list[str]]:
    """The turns, when each begins and ends, and the models whose speed nobody knows."""
    models = run.recipe.models
    asked = {key: own for key, own in work.items() if own.requests}
    needs = needs_of({name: models[name] for name, _ in asked}, machine) if machine else {}
    order = schedule(
        needs,
        machine,
        [n for n, part in asked if part == GENERATE],
        [n for n, part in asked if part == JUDGE],
    )
    seconds: dict[tuple[str, Part], tuple[float, float]] = {}
    starts: dict[str, float] = {}
    unknown: set[str] = set()
    for (name, part), own in asked.items():
        speed = _speed(name, models[name], machine, part, measured)
        if speed is None:
            unknown.add(name)
            continue
        starts[name] = speed.start
        seconds[name, part] = seconds_of(own, speed, slots_of(models[name]), _per_minute(models[name]))
    spans = timeline(order, seconds, starts)
    return order, [span for span in spans if span.stay.model not in unknown], sorted(unknown)


def _speed(
    name: str, model: Any, machine: Machine | None, part: Part, measured: Mapping[str, Measured | str]
) -> Throughput | None:
    """What was measured, else what the recipe says or the model's size lets expect."""
    if isinstance(found := measured.get(name), Measured):
        return found.throughput
    return throughput_of(model, machine or Machine(gpus=1), part == JUDGE)


def _server(models: dict[str, Any], name: str) -> str:
    """The model that is served: an adapter's is its base."""
    model = models[name]
    return model.served_by if isinstance(model, Adapter) else name


def _per_minute(model: Any) -> float | None:
    return model.requests_per_minute if isinstance(model, Endpoint) else None


def _price(model: Any, tokens_in: float, tokens_out: float) -> float:
    if not isinstance(model, Endpoint):
        return 0.0
    return (round(tokens_in) * model.price_in + round(tokens_out) * model.price_out) / 1e6


def plan_text(run: Run, found: Plan | None = None) -> str:
    """The plan as people read it."""
    found = found or plan(run)
    table = [HEAD, *(line.row() for line in found.lines)]
    widths = [max(len(row[i]) for row in table) for i in range(len(HEAD))]
    lines = [f"{found.prompts:,} prompts, {found.held_out:,} of them held out", *found.notes, ""]
    if not run.recipe.prompts:
        lines = (
            ["nothing is asked: training learns from data that exist already"] if run.recipe.training else []
        )
    for row in table if found.lines else ():
        cells = [
            cell.ljust(width) if i < 2 else cell.rjust(width)
            for i, (cell, width) in enumerate(zip(row, widths, strict=True))
        ]
        lines.append("  ".join(cells).rstrip())
    lines += found.schedule.text()
    if found.eta is not None and found.lines:
        hours = sum(line.gpu_hours or 0.0 for line in found.lines)
        lines.append(
            f"about {clock(found.eta)} until the last verdict"
            + (f", {hours:.2f} GPU-hours of work" if hours else "")
            + (f", {found.schedule.switches} switches of models" if found.schedule.by_turns else "")
        )
    for name, one in found.measured.items():
        known = isinstance(one, Measured)
        lines.append(f"measured at {name}: {one.text()}" if known else f"not measured at {name}: {one}")
    if found.unknown:
        lines.append(f"without {', '.join(found.unknown)}: give `throughput` to count their time")
    if run.recipe.rounds_at_most > 1:
        lines.append(
            f"best of n: one round is counted; there are up to {run.recipe.rounds_at_most}, until each prompt has "
            f"{run.recipe.best_of_n.max_n} candidates"
            + (" or enough" if run.recipe.best_of_n.stop_gain is not None else "")
        )
    if run.recipe.training and (rounds := run.recipe.training.rounds):
        share = (
            "a part of the prompts each" if rounds.prompts == "split" else "all prompts, and requests, each"
        )
        lines.append(f"rounds: {rounds.count}, {share}")
    for kind, figures in found.training.items():
        lines.append(training_line(kind, figures))
        if looks := getattr(getattr(run.recipe.training, kind), "win_rate", None):
            steps = figures.get("steps_at_most") or figures.get("steps")
            times = f"at most {-(-steps // looks.every)} looks" if steps else "each look"
            lines.append(
                f"{kind}: the judge compares {looks.prompts} pairs of answers, {times}; not counted above"
            )
    if run.recipe.evaluation:
        count = min(found.held_out, run.recipe.evaluation.prompts)
        lines.append(
            f"evaluate: {count} held-out prompts, each model {run.recipe.evaluation.sampler.n} answers"
        )
    lines += suite_lines(run.recipe)
    return "\n".join(lines)
