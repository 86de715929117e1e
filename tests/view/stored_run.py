"""A finished run on disk in seconds: prompts, answers, judgements and dataset, without Prefect or a server."""

import asyncio
import json
import math
import threading
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import uvicorn

from flows.answers import Answers, cases_of, generate, judge_one, stages_of, stored
from flows.browse import Book
from flows.dataset import build_dataset
from flows.facts import Facts
from flows.inputs import Prompts, gather_prompts
from flows.labels import Labels
from flows.recipe import Recipe
from flows.run import Run
from flows.view import application, listen
from records.schema import Completion
from records.store import Row
from serving.chat import Choice, Reply, Request, Token
from tests.flows.fakes import luck, recipe, sentence

ATTACK = (
    "<script>document.title = 'broken in'</script><img src=x onerror=\"document.title = 'broken in'\"> & \"'"
)
"""What a model could answer to whoever looks at it."""
Write = Callable[[Request, int], str]


def words(request: Request, number: int) -> str:
    """2 to 10 words; the first prompt gets the attack from the hot sampler."""
    asked = request.messages[-1]["content"]
    if "number 0 " in asked and request.temperature > 1:
        return ATTACK
    return sentence(asked, request.temperature, number)


async def grade(request: Request) -> Reply:
    """Mass on 1 to 5, drawn from what is shown."""
    mean = 1 + 4 * luck("grade", request.messages[-1]["content"])
    weights = [math.exp(-((label - mean) ** 2)) for label in range(1, 6)]
    shares = {str(i): math.log(w / sum(weights)) for i, w in enumerate(weights, start=1)}
    best = max(shares, key=lambda label: shares[label])
    return Reply((Choice(best, "stop", (Token(best, shares),)),))


def stored_run(
    folder: Path, count: int = 12, write: Write = words, asks: Sequence[str] = (), **changes: Any
) -> Run:
    """The run `flowtest` in `folder`: two samplers, the jury `rules` and `rating`, prompts for at most 6 words.

    `asks`: what the prompts say, in place of `count` of them that are all alike.
    """
    asks = asks or [f"Say something about number {i} in at most 6 words." for i in range(count)]
    return asyncio.run(_store(folder, asks, write, changes))


async def _store(folder: Path, asks: Sequence[str], write: Write, changes: dict[str, Any]) -> Run:
    settings = recipe("http://127.0.0.1:9/v1", _prompts(folder / "prompts.jsonl", asks), **changes)
    with Run.opened(settings, folder) as run:
        prompts, dropped = gather_prompts(run)

        async def chat(request: Request) -> Reply:
            return Reply(tuple(Choice(write(request, i), "stop") for i in range(request.n)))

        answers = stages_of(run, settings.samplers, settings.judges)
        for own in answers:
            for index in range(len(prompts.receipts)):
                await _answer(own, index, prompts, settings, chat)
        build_dataset(run, prompts, dropped, stored(run), Facts.of(run))
        return run


async def _answer(own: Answers, index: int, prompts: Prompts, settings: Recipe, chat: Any) -> None:
    shard, asked = prompts.shard(index), own.stage.fingerprint
    rows = [await generate(prompt, own.sampler, asked, settings.seed, chat) for prompt in shard]
    texts = [[Completion(**answer) for answer in row.answers] for row in rows]
    _seal(own.stage, index, rows)
    for member in settings.judges:
        judge, stage = member.build(grade if member.asks else None), own.judge_stages[member.name]
        cases = cases_of(member, shard, texts).items()
        _seal(stage, index, [await judge_one(k, c, judge, member.name, stage.fingerprint) for k, c in cases])


def _seal(stage: Any, index: int, rows: Sequence[Row]) -> None:
    open_shard = stage.open(index, [row.key for row in rows])
    for row in rows:
        open_shard.put(row)
    open_shard.seal()


def _prompts(path: Path, asks: Sequence[str]) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    rows = [
        {
            "prompt": text,
            "split": "test" if i % 4 == 3 else "train",
            "constraints": [{"kind": "max_words", "n": 6}],
        }
        for i, text in enumerate(asks)
    ]
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return path


@contextmanager
def served(run: Run, annotator: str = "anna", against: Path | None = None) -> Iterator[tuple[str, Labels]]:
    """The viewer of a run on a port of its own: its address, and the labels that are made."""
    labels = Labels(run, annotator)
    listening = listen(0)
    app = application(Book(run), labels, against)
    server = uvicorn.Server(uvicorn.Config(app, log_level="warning", lifespan="off"))
    thread = threading.Thread(target=server.run, kwargs={"sockets": [listening]}, daemon=True)
    thread.start()
    try:
        yield f"http://127.0.0.1:{listening.getsockname()[1]}", labels
    finally:
        server.should_exit = True
        thread.join()
        labels.close()
