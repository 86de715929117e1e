"""Stored judgements -> scores -> pairs and best-of-n rows -> dataset folder. Asks no model, so policies are free."""

from collections import Counter, defaultdict, deque
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Any

from flows.answers import Answers
from flows.dataset_card import card_of
from flows.facts import Facts
from flows.recipe import Recipe
from flows.run import Run
from judges.jury import Member, combine_prompt, leave_one_out
from pairs.best_of_n import SftRow, best_of_n, each_once, eligible, may_win
from pairs.candidates import score_of
from pairs.card import FunnelStep
from pairs.dataset import DatasetReceipt, write_dataset
from pairs.gain import best_of_k
from pairs.policies import Candidate, Paired, pair_all
from pairs.preflight import Preflight, preflight
from pairs.splits import SPLITS, Split
from records.schema import Completion, Dropped, Judgement, Pair, Prompt
from records.stats import mean


class DatasetError(Exception):
    """The dataset cannot mean what it says; nothing was written. Every answer and judgement is kept."""


@dataclass(frozen=True)
class Judged:
    """A prompt with every completion of it and every judgement of each."""

    prompt: Prompt
    candidates: list[Candidate]
    judgements: dict[str, list[Judgement]]
    """By completion id; empty where they were let go."""
    rounds: int = 1
    """Times every sampler was asked for its n answers."""


def judged_prompts(run: Run, prompts: Iterable[Prompt], answers: list[Answers]) -> list[Judged]:
    """All answers of a run, joined by place and checked by id."""
    return list(each_judged(run, prompts, answers))


def each_judged(run: Run, prompts: Iterable[Prompt], answers: list[Answers]) -> Iterator[Judged]:
    """The same, a shard at a time."""
    every, size = list(prompts) if answers else [], run.recipe.shard_size
    for index, first in enumerate(range(0, len(every), size)):
        yield from judged_shard(run, every[first : first + size], answers, index)


def judged_shard(run: Run, prompts: Sequence[Prompt], answers: list[Answers], index: int) -> list[Judged]:
    """The same of one shard's prompts."""
    jury = run.recipe.jury
    rounds = answers[0].rounds
    cases = [Judged(prompt, [], {}, rounds.get(prompt.id, 1)) for prompt in prompts]
    per_round = {own.sampler.name: own.sampler.n for own in answers if not own.imported}
    wrote = {member.name: authors(run, member, answers) for member in jury.members}
    found: list[list[Completion]] = [[] for _ in cases]
    for own in (own for own in answers if index in own.receipts):
        judgements = own.judgements(index)
        for case, together, completions in zip(cases, found, own.completions(index), strict=True):
            for completion in completions:
                if completion.prompt_id != case.prompt.id:
                    raise DatasetError(
                        f"prompt {case.prompt.id[:12]} met a completion of {completion.prompt_id[:12]}: "
                        f"{own.stage.folder} is not of these prompts; delete it and run again"
                    )
                case.judgements[completion.id] = judgements.get(completion.id, [])
                together.append(completion)
    for case, together in zip(cases, found, strict=True):
        own = {name: [c.id for c in together if c.model in names] for name, names in wrote.items()}
        scores = combine_prompt(case.judgements, jury, own)
        for completion in together:
            score = scores[completion.id]
            each = per_round.get(completion.model)
            number = completion.sample // each + 1 if each else 1
            case.candidates.append(Candidate(completion, score.value, score.spread, score.why, number))
    return cases


def authors(run: Run, member: Member, answers: list[Answers]) -> set[str]:
    """Samplers whose answers the member's own model wrote."""
    if not member.asks:
        return set()
    judge = run.recipe.models[member.asks].identity
    return {
        own.sampler.name
        for own in answers
        if own.identity.get("model") == judge["model"] and own.identity.get("revision") == judge["revision"]
    }


@dataclass(frozen=True)
class Built:
    """A dataset and what is known of it."""

    receipt: DatasetReceipt
    pairs: dict[Split, list[Pair]]
    sft: dict[Split, list[SftRow]]
    preflight: Preflight
    dropped: list[Dropped]


def build_dataset(
    run: Run,
    prompts: Iterable[Prompt],
    dropped: list[Dropped],
    answers: list[Answers],
    facts: Facts,
    *,
    of_winners: bool = False,
) -> Built:
    """Pairs and best-of-n rows of every split, checked, written to `dataset/` with a card.

    `of_winners`: only prompts with a winner, who is then the chosen of every pair; to `best-of-n/`, and `dataset/`
    stays as it is.

    Raises:
        DatasetError: preflight found what would make a trained model meaningless.
    """
    recipe = run.recipe
    cases: list[Judged] = []
    sides: dict[Split, list[Judged]] = {split: [] for split in SPLITS}
    failures: defaultdict[str, Counter[str]] = defaultdict(Counter)

    def judgements() -> Iterator[dict[str, list[Judgement]]]:
        """Every prompt's, counted and let go: with several aspects they are most of a run."""
        for case in each_judged(run, prompts, answers):
            for each in case.candidates:
                failures[each.completion.model].update(j.status for j in case.judgements[each.completion.id])
            yield case.judgements
            cases.append(replace(case, judgements={}))
            sides[case.prompt.meta["split"]].append(cases[-1])

    if len(recipe.jury.members) > 1:
        agreement = leave_one_out(judgements(), recipe.jury)
        facts.put("agreement", {name: {"rate": a.rate, **a._asdict()} for name, a in agreement.items()})
    else:
        deque(judgements(), maxlen=0)
    pairs: dict[Split, list[Pair]] = {}
    sft: dict[Split, list[SftRow]] = {}
    lost: list[Dropped] = []
    without_pair: list[Dropped] = []
    for split, side in sides.items():
        best = [best_of_n(case.prompt, case.candidates, recipe.best_of_n, recipe.pairs) for case in side]
        sft[split] = [row for row in best if isinstance(row, SftRow)]
        if of_winners:
            lost += [row for row in best if isinstance(row, Dropped)]
            pairs[split], own = winners_pairs(recipe, side, sft[split])
            without_pair += own
        else:
            pairs[split], own = pair_all(((c.prompt, c.candidates) for c in side), recipe.pairs)
            lost += own
    asked: dict[Split, list[Prompt]] = {
        split: [case.prompt for case in side] for split, side in sides.items()
    }
    found = preflight(pairs, sft=sft, prompts=asked, dropped=lost, judgements=failures)
    if not of_winners:
        facts.put("preflight", found.model_dump(mode="json"))
    if found.errors:
        raise DatasetError("the dataset was not written: " + "; ".join(found.errors))
    steps = funnel(cases, dropped, lost, pairs)
    folder = run.folder / ("best-of-n" if of_winners else "dataset")
    receipt = write_dataset(pairs, sft, asked, folder, card_of(recipe, steps, found, facts.versions, dropped))
    figures = {
        "digest": receipt.digest,
        "rows": receipt.rows,
        "pairs": {split: len(own) for split, own in pairs.items()},
        "sft_rows": {split: len(own) for split, own in sft.items()},
        "dropped": dict(Counter(drop.reason for drop in (*dropped, *lost))),
        "funnel": [step.model_dump() for step in steps],
    }
    if of_winners:
        figures["without_pair"] = dict(Counter(drop.reason for drop in without_pair))
        figures |= pool_figures(recipe, cases)
    facts.put("best_of_n" if of_winners else "dataset", figures)
    return Built(receipt, pairs, sft, found, lost)


def winners_pairs(recipe: Recipe, cases: list[Judged], rows: list[SftRow]) -> Paired:
    """Pairs whose chosen is the prompt's winner and whose rejected is by the recipe's policy."""
    winners = {row.prompt.id: row.completion.id for row in rows}
    of_winners = [case for case in cases if case.prompt.id in winners]
    made = pair_all(
        ((case.prompt, each_once(case.candidates, recipe.pairs)) for case in of_winners), recipe.pairs
    )
    pairs = [pair for pair in made.pairs if pair.chosen.id == winners[pair.prompt.id]]
    return Paired(pairs, made.dropped)


def pool_figures(recipe: Recipe, cases: list[Judged]) -> dict[str, Any]:
    """How many candidates prompts got, what became of them, and what the best of k of them scores.

    `curve`: for each k the mean over prompts of the best of k, see `pairs.gain.best_of_k`; a prompt with fewer counts
    with the best of all it has, as its sampling ended there. `reached`: prompts that have k.
    """
    pools = [eligible(case.candidates, recipe.pairs) for case in cases]
    judged = [sum(c.score is not None for c in case.candidates) for case in cases]
    every = [[score_of(c) for c in case.candidates if may_win(c, recipe.pairs)] for case in cases]
    scores = [own for own in every if own]
    ids = [case.prompt.id for case, own in zip(cases, every, strict=True) if own]
    curve = []
    for k in range(1, max(map(len, scores), default=0) + 1):
        found = mean([best_of_k(own, min(k, len(own))) for own in scores], ids)
        curve.append(
            {"k": k, "reached": sum(len(own) >= k for own in scores)}
            | (found.model_dump() if found else {"value": best_of_k(scores[0], min(k, len(scores[0])))})
        )
    asked = [len(case.candidates) for case in cases]
    return {
        "candidates": {
            "asked": sum(asked),
            "unjudged": sum(asked) - sum(judged),
            "cut_off_or_empty": sum(judged) - sum(map(len, every)),
            "duplicates": sum(map(len, every)) - sum(map(len, pools)),
        },
        "n": {str(n): count for n, count in sorted(Counter(asked).items())},
        "rounds": {str(n): count for n, count in sorted(Counter(case.rounds for case in cases).items())},
        "curve": curve,
    }


def funnel(
    cases: list[Judged], dropped: list[Dropped], lost: list[Dropped], pairs: dict[Split, list[Pair]]
) -> list[FunnelStep]:
    """What went in and out of every step."""
    asked = sum(len(case.candidates) for case in cases)
    unjudged = Counter(
        each.why.split(":")[0] for case in cases for each in case.candidates if each.score is None
    )
    return [
        FunnelStep(
            stage="prompts",
            rows_in=len(cases) + len(dropped),
            rows_out=len(cases),
            dropped=dict(Counter(drop.reason for drop in dropped)),
        ),
        FunnelStep(
            stage="completions",
            rows_in=asked,
            rows_out=asked - sum(unjudged.values()),
            dropped=dict(unjudged),
        ),
        FunnelStep(
            stage="prompts with a pair",
            rows_in=len(cases),
            rows_out=len({pair.prompt.id for own in pairs.values() for pair in own}),
            dropped=dict(Counter(drop.reason for drop in lost)),
        ),
    ]
