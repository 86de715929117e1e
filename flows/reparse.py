"""Stored replies -> judgements, read again by today's judges. Asks no model.

A reading that comes to something else replaces the stored judgement; the replaced one stays beside it.
"""

from dataclasses import replace
from pathlib import Path
from typing import Any

from flows.answers import Answers, Case, cases_of, row_of, side_by_side, stored
from flows.facts import Facts
from flows.flow import Given, flow
from flows.inputs import gather_prompts
from flows.run import Run
from judges.base import Asking, Judge, Verdict
from judges.jury import Member
from judges.published import Brought
from records.schema import Completion, Prompt, Usage
from records.store import Row, Stage
from serving.chat import unpack


@flow(name="reparse-judgements", flow_run_name="reparse-{recipe.name}")
async def reparse(recipe: Given, out: Path | None = None, store: str | None = None) -> dict[str, Any]:
    """Read every stored reply of a run again. What was never judged stays so."""
    with Run.opened(recipe, out, store) as run:
        facts = Facts.of(run)
        prompts, _ = gather_prompts(run)
        answers = stored(run)
        counts: dict[str, dict[str, int]] = {}
        for member in recipe.jury.members:
            count = counts[member.name] = {"read": 0, "changed": 0}
            for stage, index, completions in _work(member, answers):
                read, changed = await _reread(member, stage, index, prompts.shard(index), completions)
                count["read"] += read
                count["changed"] += changed
        facts.put("reparsed", counts)
        return facts.content


def reparse_text(summary: dict[str, Any]) -> str:
    return "\n".join(
        f"{name:<12}{count['read']:>7} read again  {count['changed']:>7} changed"
        for name, count in summary["reparsed"].items()
    )


def _work(member: Member, answers: list[Answers]) -> list[tuple[Stage, int, list[list[Completion]]]]:
    """The member's judged shards: where they lie, and each prompt's completions as they were judged."""
    if member.scope == "completion":
        return [
            (own.judge_stages[member.name], index, own.completions(index))
            for own in answers
            for index in own.judged.get(member.name, {})
        ]
    together = set.intersection(*(set(own.judged.get(member.name, {})) for own in answers))
    return [
        (
            answers[0].judge_stages[member.name],
            index,
            side_by_side([own.completions(index) for own in answers]),
        )
        for index in sorted(together)
    ]


async def _reread(
    member: Member, stage: Stage, index: int, prompts: list[Prompt], completions: list[list[Completion]]
) -> tuple[int, int]:
    """Rows read and rows that came to something else, in one shard."""
    cases = cases_of(member, prompts, completions)
    held, judge = stage.find(list(cases)), member.build(None)
    again: dict[str, Row] = {}
    for key, case in cases.items():
        row = held.get(key)
        if row and row.answers and (verdicts := await _read(judge, case, row)) is not None:
            again[key] = row_of(key, case, verdicts, member.name, stage.fingerprint)
    changed = {key: row for key, row in again.items() if _differ(row, held[key])}
    if changed:
        shard = stage.open(index, list(cases), without=lambda row: row.key in changed)
        for row in changed.values():
            shard.put(row)
        if shard.missing:
            shard.close()
        else:
            shard.seal()
    return len(again), len(changed)


def _differ(new: Row, old: Row) -> bool:
    """Whether the readings differ. A judge's name in the recipe is not part of one."""
    return any(
        a | {"judge": ""} != {"replies": ""} | b | {"judge": ""}
        for a, b in zip(new.answers, old.answers, strict=True)
    )


async def _read(judge: Judge, case: Case, row: Row) -> list[Verdict] | None:
    """Today's verdicts; what was asked, spent and came back is what it was. None where no replies were kept."""
    if isinstance(judge, Brought):  # what it knows is what is stored
        return None
    if isinstance(judge, Asking):
        text = row.answers[0].get("replies") or ""
        replies = unpack(text) if text else []
        if len(replies) != len(judge.requests(case.prompt, case.completions, case.aspect)):
            return None
        verdicts = judge.read(case.prompt, case.completions, case.aspect, replies)
    else:
        text = ""
        verdicts = await judge(case.prompt, case.completions, case.aspect)
    verdicts = [
        replace(verdict, usage=Usage(**answer["usage"]))
        for verdict, answer in zip(verdicts, row.answers, strict=True)
    ]
    return [replace(verdicts[0], replies=text), *verdicts[1:]]
