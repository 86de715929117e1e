"""Stored judgements -> scores -> pairs and best-of-n rows -> dataset folder. Asks no model, so policies are free."""

from collections import Counter
from dataclasses import dataclass

from flows.answers import Answers
from flows.facts import Facts
from flows.recipe import Recipe
from flows.run import Run
from judges.jury import Member, combine_prompt, leave_one_out
from pairs.best_of_n import SftRow, best_of_n
from pairs.card import Card, CardModel, FunnelStep
from pairs.dataset import DatasetReceipt, write_dataset
from pairs.policies import Candidate, Selection, pair_all
from pairs.preflight import Preflight, preflight
from pairs.splits import SPLITS, Split
from records.schema import Completion, Dropped, Judgement, Pair, Prompt


class DatasetError(Exception):
    """The dataset cannot mean what it says; nothing was written. Every answer and judgement is kept."""


@dataclass(frozen=True)
class Judged:
    """A prompt with every completion of it and every judgement of each."""

    prompt: Prompt
    candidates: list[Candidate]
    judgements: dict[str, list[Judgement]]
    """By completion id."""


def judged_prompts(run: Run, prompts: list[Prompt], answers: list[Answers]) -> list[Judged]:
    """All answers of a run, joined by place and checked by id."""
    jury = run.recipe.jury
    cases = [Judged(prompt, [], {}) for prompt in prompts]
    wrote = {member.name: authors(run, member, answers) for member in jury.members}
    found: list[list[Completion]] = [[] for _ in prompts]
    for own in answers:
        for index in own.receipts:
            first = index * run.recipe.shard_size
            rows, judgements = own.completions(index), own.judgements(index)
            chunk = slice(first, first + len(rows))
            for case, together, completions in zip(cases[chunk], found[chunk], rows, strict=True):
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
            case.candidates.append(Candidate(completion, score.value, score.spread, score.why))
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
    prompts: list[Prompt],
    dropped: list[Dropped],
    answers: list[Answers],
    facts: Facts,
    *,
    pairs_too: bool = True,
) -> Built:
    """Pairs and best-of-n rows of every split, checked, written to `dataset/` with a card.

    Without `pairs_too` only the best-of-n rows and the prompts, to `best-of-n/`; a dataset with pairs stays as it is.

    Raises:
        DatasetError: preflight found what would make a trained model meaningless.
    """
    recipe = run.recipe
    cases = judged_prompts(run, prompts, answers)
    sides: dict[Split, list[Judged]] = {split: [] for split in SPLITS}
    for case in cases:
        sides[case.prompt.meta["split"]].append(case)
    pairs: dict[Split, list[Pair]] = {}
    sft: dict[Split, list[SftRow]] = {}
    lost: list[Dropped] = []
    settings = recipe.pairs
    one = Selection(seed=settings.seed, chosen_may_be_cut_off=settings.chosen_may_be_cut_off)
    for split, side in sides.items():
        pairs[split], own = (
            pair_all(((c.prompt, c.candidates) for c in side), settings) if pairs_too else ([], [])
        )
        lost += own
        best = [best_of_n(case.prompt, case.candidates, one) for case in side]
        sft[split] = [row for row in best if isinstance(row, SftRow)]
        if not pairs_too:
            lost += [row for row in best if isinstance(row, Dropped)]
    failures: dict[str, Counter[str]] = {sampler.name: Counter() for sampler in recipe.samplers}
    for case in cases:
        for each in case.candidates:
            for judgement in case.judgements[each.completion.id]:
                failures[each.completion.model][judgement.status] += 1
    asked: dict[Split, list[Prompt]] = {
        split: [case.prompt for case in side] for split, side in sides.items()
    }
    found = preflight(pairs, sft=sft, prompts=asked, dropped=lost, judgements=failures)
    if pairs_too:
        facts.put("preflight", found.model_dump(mode="json"))
    if len(recipe.jury.members) > 1:
        agreement = leave_one_out((case.judgements for case in cases), recipe.jury)
        facts.put("agreement", {name: {"rate": a.rate, **a._asdict()} for name, a in agreement.items()})
    if found.errors:
        raise DatasetError("the dataset was not written: " + "; ".join(found.errors))
    steps = funnel(cases, dropped, lost, pairs)
    folder = run.folder / ("dataset" if pairs_too else "best-of-n")
    receipt = write_dataset(pairs, sft, asked, folder, _card(recipe, steps, found, facts.versions))
    facts.put(
        "dataset" if pairs_too else "best_of_n",
        {
            "digest": receipt.digest,
            "rows": receipt.rows,
            "pairs": {split: len(own) for split, own in pairs.items()},
            "sft_rows": {split: len(own) for split, own in sft.items()},
            "dropped": dict(Counter(drop.reason for drop in (*dropped, *lost))),
            "funnel": [step.model_dump() for step in steps],
        },
    )
    return Built(receipt, pairs, sft, found, lost)


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


def _card(recipe: Recipe, steps: list[FunnelStep], found: Preflight, versions: dict[str, str]) -> Card:
    return Card(
        name=recipe.name,
        recipe=f"{recipe.name}, fingerprint {recipe.fingerprint}",
        description=recipe.description,
        sources={source.label: source.revision or "" for source in recipe.prompts},
        samplers=tuple(
            CardModel(
                name=sampler.name,
                model=recipe.models[sampler.model].model,
                revision=recipe.models[sampler.model].revision,
                settings=sampler.model_dump(mode="json", exclude={"name", "model"}, exclude_none=True),
            )
            for sampler in recipe.samplers
        ),
        judges=tuple(
            CardModel(
                name=member.name,
                model=recipe.models[member.asks].model if member.asks else "none",
                settings=member.model_dump(mode="json", exclude={"name", "model"}, exclude_none=True),
            )
            for member in recipe.jury.members
        ),
        pairs=recipe.pairs,
        funnel=tuple(steps),
        preflight=found,
        command=f"zephyr run recipes/{recipe.name}.yaml",
        versions=versions,
    )
