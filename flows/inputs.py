"""What a recipe starts from: its prompts, each once and with its split, and the models it asks. No Prefect here.

Prompts are read once, sealed in the run's folder and from then on opened shard by shard, so a list of any length
costs no memory. As long as their sources have not changed, a later run does not read those again.
"""

import hashlib
from collections.abc import Iterable, Iterator
from functools import lru_cache
from itertools import islice
from typing import Any

import orjson

from flows.recipe import Recipe
from flows.run import Run
from judges.rules import RuleError, Rules, read_constraints
from pairs.cleaning import to_drop
from pairs.splits import split_of
from prompts.load import PromptError
from prompts.principle import is_table, odds_of, origin_of
from prompts.sources import read_prompts, short, state_of
from records.arrow import plain_prompt, to_prompt
from records.ids import digest, fingerprint
from records.schema import Dropped, Prompt
from records.store import GATHERED, Receipt, Row, Stage, StoreError
from serving.settings import Adapter, Model


class Prompts:
    """Sealed prompts, in order. Of all of them only a few shards are in memory."""

    def __init__(self, stage: Stage, receipts: list[Receipt]) -> None:
        self.receipts = receipts
        """One for each shard."""
        self._open = lru_cache(maxsize=8)(
            lambda index: [to_prompt(row.answers[0]) for row in stage.rows(self.receipts[index])]
        )

    def __len__(self) -> int:
        return sum(receipt.rows for receipt in self.receipts)

    def __iter__(self) -> Iterator[Prompt]:
        for index in range(len(self.receipts)):
            yield from self.shard(index)

    def shard(self, index: int) -> list[Prompt]:
        """One shard's prompts.

        Raises:
            StoreError: its file is gone or was edited.
        """
        return self._open(index)


def gather_prompts(run: Run) -> tuple[Prompts, list[Dropped]]:
    """The recipe's prompts, each once and with its split, sealed in the run's folder.

    Raises:
        PromptError: a source cannot be read, or a prompt's constraint cannot be checked; nothing was asked.
    """
    recipe, stage = run.recipe, run.prompts_stage()
    states = [state_of(source) for source in recipe.prompts]
    rules = [member.asked() for member in recipe.judges if isinstance(member, Rules)]
    states += [benchmark.state() for benchmark in recipe.cleaning.benchmarks]
    how = (recipe.splits, recipe.shard_size, rules, recipe.cleaning)
    state = fingerprint(states, *how) if all(states) else None
    known = stage.note(GATHERED)
    if state is not None and known is not None and known["state"] == state:
        receipts = [stage.receipt(index) for index in range(len(known["shards"]))]
        if [receipt and receipt.digest for receipt in receipts] == known["shards"]:
            return Prompts(stage, [r for r in receipts if r]), [Dropped(**drop) for drop in known["dropped"]]
    dropped: list[Dropped] = []
    prompts = store_prompts(stage, each_prompt(recipe, dropped), recipe.shard_size)
    found: dict[str, Any] = {"state": state, "shards": [receipt.digest for receipt in prompts.receipts]}
    stage.note(GATHERED, found | {"dropped": [drop.model_dump() for drop in dropped]})
    return prompts, dropped


def stored_prompts(run: Run) -> Prompts:
    """The prompts that another run of the recipe has sealed; their sources may be out of reach here.

    Raises:
        StoreError: they are not there.
    """
    stage = run.prompts_stage()
    digests = (stage.note(GATHERED) or {"shards": []})["shards"]
    receipts = [stage.receipt(index) for index in range(len(digests))]
    if not digests or [receipt and receipt.digest for receipt in receipts] != digests:
        raise StoreError(
            f"{stage.folder} has no sealed prompts; `store`, or `out` without one, has to be a place that this machine "
            "and the run that sent this range both see"
        )
    return Prompts(stage, [receipt for receipt in receipts if receipt])


def each_prompt(recipe: Recipe, dropped: list[Dropped]) -> Iterator[Prompt]:
    """What the recipe's `cleaning` leaves. Where there is something to look for, the sources are read again for it."""
    out = to_drop(lambda: _each_once(recipe, []), recipe.cleaning) if recipe.cleaning.does_something else {}
    for prompt in _each_once(recipe, dropped):
        if prompt.id in out:
            dropped.append(out[prompt.id])
        else:
            yield prompt


def _each_once(recipe: Recipe, dropped: list[Dropped]) -> Iterator[Prompt]:
    """Every source's prompts, with their splits; `dropped` takes what is left out."""
    seen: set[int] = set()
    for source in recipe.prompts:
        for found in read_prompts(source):
            if isinstance(found, Dropped):
                dropped.append(found)
                continue
            check_constraints(recipe, source.label, found)
            check_principles(recipe, source.label, found)
            if len(recipe.prompts) > 1:  # a source by itself has no duplicates
                if short(found.id) in seen:
                    dropped.append(
                        Dropped(id=found.id, stage="prompts", reason="duplicate", detail=source.label)
                    )
                    continue
                seen.add(short(found.id))
            split = split_of(found, recipe.splits)
            yield found.model_copy(update={"meta": found.meta | {"split": split}})


def check_constraints(recipe: Recipe, source: str, prompt: Prompt) -> None:
    """Whether the judge `rules`, where there is one, can read all that it will check.

    Raises:
        PromptError: it cannot; names the source, the prompt and the constraint.
    """
    for rules in (member for member in recipe.judges if isinstance(member, Rules)):
        try:
            read_constraints(prompt, rules.reference)
        except RuleError as error:
            raise PromptError(f"{source}: {error}") from error


def check_principles(recipe: Recipe, source: str, prompt: Prompt) -> None:
    """Whether every table of principles has odds for where the prompt comes from.

    Raises:
        PromptError: it has not; names the source.
    """
    for table in {s.principle for s in recipe.samplers if isinstance(s.principle, str)}:
        if is_table(table):
            try:
                odds_of(table, origin_of(prompt))
            except PromptError as error:
                raise PromptError(f"{source}: {error}") from error


def models_of(recipe: Recipe, *, judged: bool = True) -> dict[str, Model]:
    """The models that samplers, and judges, of a recipe ask."""
    used = {sampler.model for sampler in recipe.samplers}
    if judged:
        used |= {member.asks for member in recipe.judges if member.asks}
    used |= {model.served_by for name in used if isinstance(model := recipe.models[name], Adapter)}
    return {name: model for name, model in recipe.models.items() if name in used}


def store_prompts(stage: Stage, prompts: Iterable[Prompt], size: int) -> Prompts:
    """Seal prompts before anything is asked, so that a run can be read without their source."""
    receipts: list[Receipt] = []
    waiting = iter(prompts)
    while chunk := list(islice(waiting, size)):
        rows = [Row(prompt.id, [plain_prompt(prompt)]) for prompt in chunk]
        keys = [prompt.id for prompt in chunk]
        of = hashlib.sha256(orjson.dumps([row.answers for row in rows])).hexdigest()
        index = len(receipts)
        receipt = stage.finished(index, key_digest=digest(keys), of=of)
        if receipt is None:
            # what the source says now holds, whatever an earlier list said
            shard = stage.open(index, keys, without=lambda row: True)
            for row in rows:
                shard.put(row)
            receipt = shard.seal(of=of)
        receipts.append(receipt)
    return Prompts(stage, receipts)
