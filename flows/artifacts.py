"""What a run says of itself in Prefect: artifacts under the same keys every time."""

import asyncio
import contextlib
import json
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any
from uuid import UUID

from prefect.artifacts import (
    acreate_markdown_artifact,
    acreate_progress_artifact,
    acreate_table_artifact,
    aupdate_progress_artifact,
)
from prefect.client.orchestration import get_client
from prefect.client.schemas.actions import ArtifactUpdate

from flows.facts import Facts
from flows.progress import display
from flows.suites.table import benchmark_lines

EVERY = 10.0
"""Seconds between two updates of the progress in Prefect: it is for people, and each one is a write to its database."""
TABLE = 20.0
"""Seconds between two updates of the table of models."""


async def publish_plan(name: str, text: str) -> None:
    await acreate_markdown_artifact(
        key="plan", markdown=f"# Plan of {name}\n\n```\n{text}\n```", description="Before the run"
    )


@asynccontextmanager
async def progress_artifact() -> AsyncIterator[None]:
    """Rows finished of rows wanted, over all stages on display, while the block runs and at its end."""
    ended = asyncio.Event()

    async def keep_up() -> None:
        artifact = await acreate_progress_artifact(progress=0.0, key="progress", description="Rows finished")
        while not ended.is_set():
            with contextlib.suppress(TimeoutError):
                await asyncio.wait_for(ended.wait(), EVERY)
            await aupdate_progress_artifact(artifact, progress=display().percent)

    updating = asyncio.create_task(keep_up())  # nothing waits for it: a first request should not
    try:
        yield
    except BaseException:
        updating.cancel()
        raise
    finally:
        ended.set()
        await asyncio.gather(updating, return_exceptions=True)


@asynccontextmanager
async def endpoints_artifact() -> AsyncIterator[None]:
    """The models on display, a row each, while the block runs: one table that is written over, not one each time."""
    artifact: UUID | None = None

    async def write() -> None:
        nonlocal artifact
        rows = display().rows()
        if artifact is None and rows:
            artifact = await acreate_table_artifact(
                table=rows,
                key="endpoints",
                description="How busy every model is kept; rates of the last half minute",
            )
        elif artifact is not None:
            async with get_client() as client:
                await client.update_artifact(artifact, ArtifactUpdate(data=json.dumps(rows)))

    async def keep_up() -> None:
        while True:
            await asyncio.sleep(TABLE)
            await write()

    updating = asyncio.create_task(keep_up())
    try:
        yield
    finally:
        updating.cancel()
        await asyncio.gather(updating, return_exceptions=True)
    await write()


async def publish_summary(facts: Facts) -> None:
    """Stages, pairs and, once there are some, models and their evaluation."""
    await acreate_markdown_artifact(
        key="summary", markdown=summary_markdown(facts.content), description="So far"
    )


async def publish_garbage(found: dict[str, Any]) -> None:
    """What can go, or has gone, see `flows.garbage`."""
    lines = [f"| {each['path']} | {each['why']} | {each['bytes']:,} |" for each in found["found"]]
    table = ["| path | why | bytes |", "|---|---|---|", *lines]
    done = "Removed" if found["deleted"] else "Can go"
    await acreate_markdown_artifact(
        key="garbage", markdown="\n".join(table), description=f"{done}: {found['bytes']:,} bytes"
    )


def summary_markdown(content: dict[str, Any]) -> str:
    lines = [
        f"# {content['recipe']}",
        "",
        "| stage | rows | answers | dropped | requests | tokens out |",
        "|---|---|---|---|---|---|",
    ]
    for name, stage in content.get("stages", {}).items():
        dropped = ", ".join(f"{n} {reason}" for reason, n in stage["dropped"].items()) or "0"
        lines.append(
            f"| {name} | {stage['rows']} | {stage['answers']} | {dropped} | {stage['requests']} "
            f"| {stage['completion_tokens']} |"
        )
    if dataset := content.get("dataset"):
        pairs = ", ".join(f"{n} {split}" for split, n in dataset["pairs"].items())
        lines += ["", f"**Pairs**: {pairs}; dataset digest `{dataset['digest'][:16]}`"]
    for name, model in content.get("models", {}).items():
        lines += ["", f"**{name}**: {training_line(model)}"]
    if evaluation := content.get("evaluation"):
        lines += ["", "| model | score | constraints kept |", "|---|---|---|"]
        for name, model in evaluation["models"].items():
            lines.append(f"| {name} | {interval(model['score'])} | {interval(model.get('kept'))} |")
    if suites := content.get("benchmark"):
        lines += ["", "```", *benchmark_lines(suites), "```"]
    return "\n".join(lines)


def summary_text(content: dict[str, Any]) -> str:
    """A finished run in a few lines of a terminal."""
    lines = []
    for name, stage in content.get("stages", {}).items():
        dropped = ", ".join(f"{n} {reason}" for reason, n in stage["dropped"].items())
        lines.append(
            f"{name:<12}{stage['answers']:>7} answers  {stage['completion_tokens']:>8,} tokens  {dropped}".rstrip()
        )
    if dataset := content.get("dataset"):
        dropped = ", ".join(f"{n} {reason}" for reason, n in dataset["dropped"].items())
        pairs = ", ".join(f"{n} {split}" for split, n in dataset["pairs"].items())
        lines.append(f"{'pairs':<12}{pairs}" + (f"  dropped: {dropped}" if dropped else ""))
    if best := content.get("best_of_n"):
        lines += best_of_n_lines(best)
    if check := content.get("best_of_n_check"):
        lines.append(
            f"{'':<12}{check['by']} on {check['prompts']} prompts: the best {interval(check['winner'])}, "
            f"above the mean candidate by {interval(check['gain'])}, a random one by {interval(check['random_gain'])}"
        )
    for row in content.get("rounds", ()):
        lines.append(
            f"{'round ' + str(row['round']):<12}{row['prompts']} prompts, score {interval(row['score'])}, best "
            f"{interval(row['best'])}; {training_line(row['model'])}"
        )
    for name, model in content.get("models", {}).items():
        lines.append(f"{name:<12}{training_line(model)}")
    if evaluation := content.get("evaluation"):
        for name, model in evaluation["models"].items():
            lines.append(
                f"{name:<12}score {interval(model['score'])}  constraints kept {interval(model.get('kept'))}"
            )
        for name, other in evaluation["against_base"].items():
            lines.append(
                f"{name} - base: kept {interval(other.get('kept_gain'))}, wins {interval(other['win_rate'])}"
            )
    if suites := content.get("benchmark"):
        lines += benchmark_lines(suites)
    for key in ("report", "folder"):
        if key in content:
            lines.append(f"{key:<12}{content[key]}")
    return "\n".join(lines)


def best_of_n_lines(best: dict[str, Any]) -> list[str]:
    """What rejection sampling came to: rows, candidates used, and the mean of the best of k."""
    rows = ", ".join(f"{n} {split}" for split, n in best["sft_rows"].items())
    dropped = ", ".join(f"{n} {reason}" for reason, n in best["dropped"].items())
    lines = [f"{'best of n':<12}{rows}" + (f"  dropped: {dropped}" if dropped else "")]
    used = ", ".join(f"{count} of {n}" for n, count in best["n"].items())
    candidates = best["candidates"]
    lines.append(f"{'':<12}prompts by candidates: {used}; {candidates['duplicates']} of the same text")
    curve = {point["k"]: point for point in best["curve"]}
    marks = [k for k in sorted({1, 2, 4, 8, 16, 32, 64, 128, 256, *list(curve)[-1:]}) if k in curve]
    shown = "  ".join(f"{k}: {curve[k]['value']:.3f}" for k in marks)
    return [*lines, f"{'':<12}mean of the best of k  {shown}"] if marks else lines


def training_line(model: dict[str, Any]) -> str:
    """A training stage in a few figures."""
    line = f"{model['steps']} steps, loss {model['loss_first']:.3f} -> {model['loss_last']:.3f}"
    after = model.get("eval_after") or {}
    accuracy = after.get("rewards/accuracies", after.get("accuracy"))
    if accuracy is not None:
        line += f", held-out reward accuracy {accuracy:.3f}"
    if looks := model.get("win_rates"):
        best = next((look for look in looks if look["step"] == model["kept_step"]), looks[-1])
        line += (
            f", wins {interval({**best, 'value': best['win_rate']})} of step {best['step']} over its start"
        )
    return "\n".join([line, *(f"{'':<12}alarm {alarm}" for alarm in model.get("alarms") or ())])


def interval(rate: dict[str, Any] | None) -> str:
    if rate is None:
        return "–"
    return f"{rate['value']:.3f} [{rate['low']:.3f}, {rate['high']:.3f}]"
