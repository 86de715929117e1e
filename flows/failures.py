"""How much may fail before a run stops. Everything that was answered is kept."""

from collections import Counter
from collections.abc import Collection, Mapping

from records.store import Receipt
from serving.engine import Engine
from serving.purse import BudgetSpent

JUDGED = frozenset({"ok", "tie", "not_applicable", "no_answer", "missing"})
"""Statuses of a judgement that did not fail."""


class StageFailed(Exception):
    """More rows failed than the recipe allows. Everything that was answered is kept."""


def check_failed(who: str, receipts: Collection[Receipt], max_failed: float) -> None:
    """Rows without an answer, of a sampler or a judge.

    Raises:
        StageFailed: they are more than this share.
    """
    rows = sum(receipt.rows for receipt in receipts)
    failed = sum((Counter(receipt.dropped) for receipt in receipts), Counter[str]())
    del failed["budget"]  # not asked, so not failed
    if rows and sum(failed.values()) > max_failed * rows:
        reasons = ", ".join(f"{count} {reason}" for reason, count in sorted(failed.items()))
        raise StageFailed(
            f"{who}: {sum(failed.values())} of {rows} rows failed ({reasons}), max_failed={max_failed} allows "
            f"{int(max_failed * rows)}; the answers are kept, run the same command to ask only the failed ones again"
        )


def check_budget(engine: Engine, receipts: Collection[Receipt]) -> None:
    """Whether rows were left unasked for want of money, in a run that is not to go on without them.

    Raises:
        BudgetSpent: they were.
    """
    missing, rows = sum(r.dropped.get("budget", 0) for r in receipts), sum(r.rows for r in receipts)
    purse = next((lane.purse for lane in engine.lanes.values()), None)
    if missing and purse is not None and not purse.budget.partial:
        name, more = purse.tightest()
        raise BudgetSpent(
            f"budget: {purse.shown()} are spent, and the next request could exceed it. {rows - missing} of {rows} rows "
            f"are there and kept, {missing} were not asked. Add --set budget.{name}={more:g} to the same command to go "
            "on from here, or --set budget.partial=true to go on with what is there"
        )


def half_unread(statuses: Mapping[str, int], max_unjudged: float, expected: int) -> bool:
    """Whether half as many verdicts are none as would stop the run. `expected`: how many verdicts there will be."""
    failed = sum(count for status, count in statuses.items() if status not in JUDGED)
    return failed > max_unjudged * max(sum(statuses.values()), expected) / 2


def check_read(judge: str, statuses: Mapping[str, int], max_unjudged: float, expected: int = 0) -> None:
    """Verdicts that are none, by status. `expected`: how many verdicts there will be.

    Raises:
        StageFailed: they are more than this share already.
    """
    failed = {status: count for status, count in sorted(statuses.items()) if status not in JUDGED}
    verdicts = sum(statuses.values())
    if sum(failed.values()) > max_unjudged * max(verdicts, expected):
        reasons = ", ".join(f"{count} {status}" for status, count in failed.items())
        allowed = int(max_unjudged * max(verdicts, expected))
        raise StageFailed(
            f"judge {judge}: {sum(failed.values())} of {verdicts} verdicts are none ({reasons}), max_unjudged="
            f"{max_unjudged} allows {allowed}; all are kept. `zephyr show` prints what was asked and answered; "
            "`zephyr judge --retry-failed` asks those again, another judge asks anew"
        )
