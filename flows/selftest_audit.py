"""What a run stored against what the oracle meant: judgements, scores and the pairs in the dataset's files.

Wrong is a judgement with a score that was not said, a score where no verdict could be told, and a pair whose chosen the
judge or the truth puts below its rejected by more than the judge's own noise. Lost is a verdict that could be told and
was not read.
"""

from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any

from flows.answers import Answers, Case
from flows.dataset import Judged, authors, judged_prompts
from flows.expected import SAME, SCALES, Expected, combined, expected
from flows.run import Run
from judges.jury import Member
from judges.rules import Rules
from oracle.oracle import Oracle
from oracle.tasks import Answer
from records.schema import Completion, Judgement, Prompt

EQUAL = 1e-9
EXAMPLES = 20
"""Of lost verdicts, listed; what is wrong is listed whole."""


@dataclass
class Pairs:
    """The pairs that were made of a judge's scores."""

    made: int = 0
    better: int = 0
    """The chosen is truly the better one."""
    equal: int = 0
    """Neither is."""
    noise: int = 0
    """The rejected is truly better, and the judge's noise hid it: the pair is what the judge said."""
    wrong: int = 0


@dataclass
class Found:
    """One judge's audit."""

    judgements: int = 0
    recoverable: int = 0
    """A careful reader could tell the verdict from the replies."""
    recovered: int = 0
    """Of these, those that were."""
    unjudged: Counter[str] = field(default_factory=Counter)
    pairs: Pairs = field(default_factory=Pairs)
    wrong: list[dict[str, Any]] = field(default_factory=list)
    lost: list[dict[str, Any]] = field(default_factory=list)
    complaints: dict[str, int] = field(default_factory=dict)
    """What the judge's prompts lack."""

    @property
    def ok(self) -> bool:
        return not self.wrong and self.recovered == self.recoverable and not self.complaints

    def content(self) -> dict[str, Any]:
        pairs = {name: getattr(self.pairs, name) for name in ("made", "better", "equal", "noise", "wrong")}
        return {
            "ok": self.ok,
            "judgements": self.judgements,
            "recoverable": self.recoverable,
            "recovered": self.recovered,
            "unjudged": dict(sorted(self.unjudged.items())),
            "wrong": len(self.wrong),
            "pairs": pairs,
            "wrong_labels": self.wrong,
            "lost_labels": self.lost[:EXAMPLES],
            "complaints": self.complaints,
        }


def audit(
    run: Run, prompts: Iterable[Prompt], answers: list[Answers], oracle: Oracle, *, pairs: bool = True
) -> Found:
    """Everything that the run holds of its prompts; reads the files, asks nothing. `pairs`: there is a dataset."""
    found = Found()
    members = run.recipe.jury.members
    why = _dropped(answers)
    rows = _pair_rows(run) if pairs else {}
    wrote = {member.name: authors(run, member, answers) for member in members}
    for case in judged_prompts(run, prompts, answers):
        verdicts: dict[str, dict[str, dict[str, Expected]]] = {
            candidate.completion.id: {member.name: {} for member in members} for candidate in case.candidates
        }
        for member in members:
            for seen in _together(member, case):
                for aspect in member.aspects:
                    said = expected(member, case.prompt, seen, aspect, oracle)
                    reason = why.get(Case(case.prompt, tuple(seen), aspect).key(member), "missing")
                    for completion in seen:
                        own = _judgement(case, completion, member, aspect)
                        verdicts[completion.id][member.name][aspect] = _judged(
                            found, member, aspect, case, completion, own, said[completion.id], reason, oracle
                        )
        own_ids = {
            name: {c.completion.id for c in case.candidates if c.completion.model in names}
            for name, names in wrote.items()
        }
        jury = run.recipe.jury
        scores = combined(verdicts, jury, own_ids, lambda one: one.low)
        unbiased = combined(verdicts, jury, own_ids, lambda one: one.unbiased)
        for candidate in case.candidates:
            _scored(found, case, candidate, scores[candidate.completion.id])
        rules = all(isinstance(member, Rules) for member in members)
        marked = any(isinstance(member, Rules) and member.reference != "ignore" for member in members)
        for row in rows.get(case.prompt.id, ()):
            chosen, rejected = (oracle.writer.find(row[side]) for side in ("chosen", "rejected"))
            truths = [_truth(answer, rules, marked) for answer in (chosen, rejected)]
            _paired(found, run, case, row, scores, unbiased, truths)
    return found


def _together(member: Member, case: Judged) -> list[list[Completion]]:
    seen = sorted((candidate.completion for candidate in case.candidates), key=lambda c: c.id)
    if member.scope == "prompt":
        return [seen] if seen else []
    return [[completion] for completion in seen]


def _judgement(case: Judged, completion: Completion, member: Member, aspect: str) -> Judgement | None:
    own = [j for j in case.judgements[completion.id] if j.judge == member.name and j.aspect == aspect]
    return own[0] if own else None


def _judged(
    found: Found,
    member: Member,
    aspect: str,
    case: Judged,
    completion: Completion,
    stored: Judgement | None,
    wanted: Expected,
    reason: str,
    oracle: Oracle,
) -> Expected:
    """Count one judgement; what it must have come to, rules' scores by what is stored."""
    found.judgements += 1
    status = stored.status if stored else reason
    value = stored.score if stored and stored.status == "ok" else None
    if value is None:
        found.unjudged[status] += 1
    if wanted.asked and wanted.readable:
        found.recoverable += 1
    low, high = SCALES.get(member.kind, (0.0, 0.0))
    near = SAME * ((high - low) or max(1.0, abs(wanted.low or 0.0)))

    def told(what: str) -> dict[str, Any]:
        answer = oracle.writer.find(completion.text)
        return {
            "what": what,
            "judge": member.name,
            "aspect": aspect,
            "prompt": case.prompt.id,
            "completion": completion.id,
            "quality": answer.quality if answer else None,
            "stored": f"{status} {value}"
            if value is not None
            else f"{status}: {stored.detail if stored else ''}",
            "wanted": wanted.low if wanted.readable else "no score",
            "said": wanted.said[:2000],
        }

    if value is None:
        if wanted.readable and wanted.asked:
            if wanted.low is None and status == "not_applicable":
                found.recovered += 1
            else:
                found.lost.append(told("a verdict that can be told was not read"))
        return wanted
    if not wanted.readable:
        found.wrong.append(told("no verdict can be told from the reply, and it became a score"))
    elif wanted.low is None or wanted.high is None:
        found.wrong.append(told("the judge gave no score, and there is one"))
    elif not wanted.low - near <= value <= wanted.high + near:
        found.wrong.append(told("the score is not what the judge said"))
    elif wanted.high != wanted.low and (wanted.low == 1.0) != (value == 1.0):
        found.wrong.append(told("1 must stand for all rules kept and for nothing else"))
    else:
        found.recovered += 1
        if wanted.high != wanted.low:  # how nearly a broken rule was kept is the judge's to say
            return Expected(True, value, value, value, said=wanted.said)
    return wanted


def _scored(found: Found, case: Judged, candidate: Any, wanted: float | None) -> None:
    """The panel's score of a completion, combined here once more."""
    if candidate.score is None or (
        wanted is not None and abs(candidate.score - wanted) <= SAME * max(1, abs(wanted))
    ):
        return
    found.wrong.append(
        {
            "what": "the panel's score is not what its judges' verdicts come to",
            "prompt": case.prompt.id,
            "completion": candidate.completion.id,
            "stored": candidate.score,
            "wanted": "no score" if wanted is None else wanted,
        }
    )


def _paired(
    found: Found,
    run: Run,
    case: Judged,
    row: Mapping[str, Any],
    scores: Mapping[str, float | None],
    unbiased: Mapping[str, float | None],
    truths: list[float],
) -> None:
    found.pairs.made += 1
    texts = {candidate.completion.id: candidate.completion.text for candidate in case.candidates}
    ids = row["chosen_id"], row["rejected_id"]
    said = [scores.get(id) for id in ids]
    plain = [unbiased.get(id) for id in ids]

    def wrong(what: str) -> None:
        found.pairs.wrong += 1
        found.wrong.append(
            {
                "what": what,
                "prompt": case.prompt.id,
                "chosen": ids[0],
                "rejected": ids[1],
                "qualities": truths,
                "said": said,
                "without_order": plain,
                "stored": [row["score_chosen"], row["score_rejected"]],
            }
        )

    if [texts.get(id) for id in ids] != [row["chosen"], row["rejected"]]:
        return wrong("the texts of the pair are not those of its completions")
    if said[0] is None or said[1] is None or plain[0] is None or plain[1] is None:
        return wrong("an answer without a verdict is in a pair")
    gap = said[0] - said[1]
    if gap < -EQUAL:
        return wrong("the judge said that the rejected is better")
    if gap <= EQUAL:
        if run.recipe.pairs.ties == "drop":
            return wrong("the judge said that both are equal")
        found.pairs.equal += 1
    elif truths[0] > truths[1]:
        found.pairs.better += 1
    elif truths[0] == truths[1]:
        found.pairs.equal += 1
    elif plain[0] - plain[1] > EQUAL:
        found.pairs.noise += 1
    else:
        wrong("the first place decided: without the judge's liking for it the rejected is better")
    return None


def _truth(answer: Answer | None, rules: bool, marked: bool) -> float:
    """Of an answer: how many rules it keeps where nothing else is asked, else its quality; empty is the worst."""
    if answer is None:
        return -1.0
    return float(sum(answer.kept) + (marked and answer.right)) if rules else answer.quality


def _dropped(answers: list[Answers]) -> dict[str, str]:
    """Key of a judge's row -> why it has no judgement."""
    return {
        row.key: row.dropped["reason"]
        for own in answers
        for name, receipts in own.judged.items()
        for receipt in receipts.values()
        if receipt.dropped
        for row in own.judge_stages[name].rows(receipt)
        if row.dropped
    }


def _pair_rows(run: Run) -> dict[str, list[dict[str, Any]]]:
    """The rows of the dataset's files, by prompt."""
    import pyarrow.parquet as pq

    found: dict[str, list[dict[str, Any]]] = {}
    for file in sorted((run.folder / "dataset/data").glob("*_prefs.parquet")):
        for row in pq.read_table(file).to_pylist():
            texts = {side: row[side][-1]["content"] for side in ("chosen", "rejected")}
            found.setdefault(row["prompt_id"], []).append(row | texts)
    return found
