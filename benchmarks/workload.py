"""What the pipeline is measured on: a recipe over simulated models, and the requests it comes down to."""

import json
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from benchmarks.batching import Machine
from benchmarks.ideal import Step, job_of
from benchmarks.replies import Lengths
from flows.answers import generate
from flows.inputs import gather_prompts
from flows.recipe import Recipe
from flows.run import Run
from judges.rating import Rater, Rating
from records.schema import Completion, Prompt
from serving.chat import Reply, Request
from serving.client import body_of
from serving.settings import Sampler

PADDING = "Tell me what a careful reader would want to know about it, and in which order. " * 12

SPARE = "spare"
"""A recipe needs two samplers to make pairs; this one is never asked."""


@dataclass(frozen=True)
class Load:
    """One measurement's size."""

    rows: int
    """Prompts."""
    models: int = 1
    """Each answers every prompt."""
    judged: bool = False
    in_flight: int = 320
    """Requests at one endpoint, at most, for every client alike."""
    timeout: float = 600.0
    max_tokens: int = 1024
    shard_size: int = 500
    lengths: Lengths = field(default_factory=Lengths)

    @property
    def names(self) -> list[str]:
        return [f"model-{i}" for i in range(self.models)]


def write_recipe(load: Load, urls: dict[str, str], folder: Path) -> Path:
    """The recipe and its prompts, in `folder`."""
    prompts = folder / "prompts.jsonl"
    with prompts.open("w") as file:
        for i in range(load.rows):
            file.write(json.dumps({"prompt": f"Question {i}. {PADDING}"}) + "\n")
    endpoint = {
        "kind": "endpoint",
        "dialect": "vllm",
        "max_in_flight": load.in_flight,
        "timeout": load.timeout,
    }
    sampler = {"temperature": 1.0, "max_tokens": load.max_tokens}
    recipe = {
        "name": "bench",
        "prompts": [{"file": str(prompts)}],
        "models": {name: endpoint | {"model": name, "base_url": url} for name, url in urls.items()},
        "samplers": [
            *({"name": name, "model": name, **sampler} for name in load.names),
            {"name": SPARE, "model": load.names[0], "seed": 1, **sampler},
        ],
        "judge": {"kind": "rating", "model": "judge"} if load.judged else {"kind": "rules"},
        "shard_size": load.shard_size,
    }
    path = folder / "recipe.json"
    path.write_text(json.dumps(recipe))
    return path


def opened(recipe: Path) -> Run:
    """The run of a written recipe, in the recipe's folder."""
    return Run.at(Recipe.model_validate_json(recipe.read_text()), recipe.parent / "runs")


def samplers_of(run: Run) -> tuple[Sampler, ...]:
    return tuple(sampler for sampler in run.recipe.samplers if sampler.name != SPARE)


class _Asked(Exception):
    """Carries the request a stage would send."""

    def __init__(self, request: Request) -> None:
        self.request = request


async def _refuse(request: Request) -> Reply:
    raise _Asked(request)


async def request_for(run: Run, prompt: Prompt, sampler: Sampler, asked: str) -> Request:
    """The request by which one sampler asks one prompt."""
    try:
        await generate(prompt, sampler, asked, run.recipe.seed, _refuse)
    except _Asked as found:
        return found.request
    raise AssertionError("nothing was asked")


def judge_request(judge: Rater, prompt: Prompt, completion: Completion) -> Request:
    """The request by which the judge asks about one answer."""
    settings: Rating = judge.settings
    text = judge.messages(prompt, completion, settings.aspects[0])
    return Request(text, 0.0, top_p=1.0, max_tokens=1, top_logprobs=settings.top_logprobs)


async def steps_of(run: Run, lengths: Lengths) -> list[Step]:
    """Everything the run asks, with what waits for what: each model's rows in the prompts' order."""
    prompts, _ = gather_prompts(run)
    (member,) = run.recipe.jury.members
    judge = member.build(None) if isinstance(member, Rating) else None
    steps = []
    for sampler in samplers_of(run):
        asked = run.completions_stage(sampler).fingerprint
        for prompt in prompts:
            body = body_of(await request_for(run, prompt, sampler, asked), sampler.model, "vllm")
            job, said = job_of(body, lengths)
            step = Step(sampler.model, job)
            if judge is not None and isinstance(member, Rating):
                text, reason = said[0].text.strip(), said[0].finish_reason
                completion = Completion(
                    id="",
                    prompt_id=prompt.id,
                    model=sampler.name,
                    text=text,
                    finish_reason=reason,
                    fingerprint="",
                )
                judging = body_of(judge_request(judge, prompt, completion), member.model, "vllm")
                step.then = Step(member.model, job_of(judging, lengths)[0])
            steps.append(step)
    return steps


def machines_of(load: Load, machine: Machine) -> dict[str, Machine]:
    return dict.fromkeys([*load.names, "judge"] if load.judged else load.names, machine)


def settings_of(machine: Machine, lengths: Lengths) -> dict[str, Any]:
    """The simulator's options for them."""
    return vars(machine) | vars(lengths)
