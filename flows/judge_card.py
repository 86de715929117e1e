"""Human-labelled answers in, a judge's card out: start at `judge_card`, at the bottom.

    <out>/<name>/judge-card/<gold file>/judgements/  sealed shards, see `records.store`
                                        card.json    `judges.card.Card`
                                        card.html    the same for people
                                        spent.json   seconds of the runs it took
                                        endpoints.json  how busy the models were kept, see `flows.load`

A card that was stopped goes on, and a larger --limit asks only for what is new.
"""

import datetime
import json
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Literal

from prefect import task

from flows.conduct import JUDGE
from flows.facts import versions
from flows.failures import StageFailed
from flows.flow import flow
from flows.gold import Asked, ask, cost_of, judged_items, plan
from flows.gpus import hold
from flows.load import figures, metered
from flows.progress import display
from flows.readings import Readings
from flows.stage import fill
from flows.subject import Subject, model_name
from flows.tasks import SHARD
from judges.canaries import best_of
from judges.card import GoldFacts, make_card, status_counts
from judges.gold import Gold, GoldItem, drawn, load_gold
from judges.layouts import Layout
from records.ids import chance
from records.lock import exclusive
from records.store import Receipt, Row
from reports.judge_card import render_card
from serving.chat import Chat
from serving.models import open_models
from serving.placement import JUDGE as TURN

SHARD_ROWS = 1000
MAX_FAILED = 0.1
"""Share of rows that may fail on the way to the model. Other failures are the judge's own: the card counts them."""


@task(name="judge-gold-shard", task_run_name="judge-gold-{asked.member.name}-{index:05d}", **SHARD)
async def judge_gold_shard(asked: Asked, index: int, keys: list[str], chat: Chat | None) -> Receipt:
    """One judge's verdicts on one shard of gold answers and canaries."""
    step = display().add(f"judge {asked.member.name}", len(keys), model_name(asked.member) or "")
    receipt = asked.stage.sealed(index, keys)
    if receipt is not None:
        step(len(keys), there=True)
    else:
        shard = asked.stage.open(index, keys)
        step(shard.taken_over, there=True)
        judge = asked.member.build(chat)

        async def verdicts(key: str) -> Row:
            return await ask(key, asked.questions[key], judge, asked.member, asked.stage.fingerprint)

        receipt = await fill(shard, verdicts, step)
    asked.rows |= {row.key: row for row in asked.stage.rows(receipt)}
    return receipt


def with_canaries(items: Sequence[GoldItem], most: int) -> frozenset[int]:
    """The places of at most `most` items with a best answer, drawn by chance."""
    clear = [i for i, item in enumerate(items) if best_of(item) is not None]

    def luck(i: int) -> tuple[float, int]:
        return chance(0, "canaries", items[i].to_prompt().id, *items[i].completions).random(), i

    return frozenset(sorted(clear, key=luck)[:most])


async def ask_all(subject: Subject, members: Sequence[Asked], folder: Path) -> dict[str, list[Receipt]]:
    """Every member's rows, asked or from the folder.

    Raises:
        StageFailed: too many requests failed on the way to the model; what was answered is kept.
    """
    receipts: dict[str, list[Receipt]] = {}
    began, readings = time.monotonic(), Readings(folder, subject.models)
    async with (
        open_models(subject.served, folder / "servers", display().say, hold=hold) as engine,
        metered(engine, folder, "judge gold"),
    ):
        try:
            for own in members:
                name, keys = model_name(own.member), list(own.questions)
                chat = None
                if name:
                    chat = readings.chat(own.member.name, name, own.stage, engine.chat(name, JUDGE))
                # one judge after the other, each alone on the GPUs
                await engine.turns.begin([], [name] if name else [])
                receipts[own.member.name] = [
                    await judge_gold_shard(own, index, keys[start : start + SHARD_ROWS], chat)
                    for index, start in enumerate(range(0, len(keys), SHARD_ROWS))
                ]
                await engine.turns.finished(name, TURN)
        finally:
            if engine.usage.requests:
                seconds_spent(folder, time.monotonic() - began)
    for own in members:
        lost = sum(receipt.dropped.get("transport_error", 0) for receipt in receipts[own.member.name])
        if lost > MAX_FAILED * len(own.rows):
            raise StageFailed(
                f"judge {own.member.name}: {lost} of {len(own.rows)} requests failed on the way to the model; "
                "the answers are kept, run the same command to ask only the failed ones again"
            )
    return receipts


@flow(name="judge-card", flow_run_name="judge-card-{subject.name}")
async def judge_card(
    subject: Subject,
    gold: Path,
    layout: Layout | Literal["auto"] = "auto",
    limit: int | None = None,
    margin: float = 0.0,
    canary_items: int = 50,
    out: Path | None = None,
) -> dict[str, Any]:
    """Gold answers -> judgements -> card. Returns the card and where it lies.

    `limit`: items, drawn by chance. `margin`: scores nearer than this, on the scale 0 to 1, are a tie.
    `canary_items`: items whose better answer is put against canaries.

    Raises:
        GoldError: the file cannot be read.
        StageFailed: too many requests failed on the way to the model; what was answered is kept.
    """
    labelled = load_gold(gold, layout)
    items = drawn(labelled.items, limit)
    tried = with_canaries(items, canary_items)
    folder = (out or Path("runs")) / subject.name / "judge-card" / gold.stem
    with exclusive(folder):
        members = plan(subject, items, tried, folder)
        receipts = await ask_all(subject, members, folder)
        judged = judged_items(subject, members, items, tried)
        own_names = {name for key, what in subject.identities.items() for name in (key, str(what["model"]))}
        card = make_card(
            judged,
            name=subject.name,
            jury=subject.jury,
            identities=subject.identities,
            gold=facts_of(gold, labelled, len(items)),
            margin=margin,
            statuses=status_counts({own.member.name: own.statuses() for own in members}),
            cost=cost_of(subject, members, receipts).model_copy(update={"seconds": seconds_spent(folder)}),
            own=own_names,
            dialects=Readings(folder, subject.models).known,
            versions=versions(),
            date=datetime.date.today().isoformat(),
        )
        write(folder, "card.json", card.model_dump_json(indent=1) + "\n")
        content = card.model_dump(mode="json")
        write(folder, "card.html", render_card(content))
    return content | {
        "card": str(folder / "card.json"),
        "page": str(folder / "card.html"),
        "endpoints": figures(folder),
    }


def facts_of(path: Path, gold: Gold, items: int) -> GoldFacts:
    return GoldFacts(
        name=path.name,
        layout=gold.layout,
        digest=gold.digest,
        items=items,
        in_file=len(gold.items),
        prompts=0,
        pairs=0,
        ties=0,
        dropped=gold.dropped,
    )


def seconds_spent(folder: Path, more: float = 0.0) -> float:
    """Seconds of all runs that asked something, kept beside the card."""
    path = folder / "spent.json"
    before = json.loads(path.read_text())["seconds"] if path.exists() else 0.0
    if more:
        write(folder, "spent.json", json.dumps({"seconds": round(before + more, 1)}) + "\n")
    return round(before + more, 1)


def write(folder: Path, name: str, text: str) -> None:
    """A small file, whole or not at all."""
    part = folder / f".{name}.part"
    part.write_text(text, encoding="utf-8")
    part.replace(folder / name)
