"""Labels of people in a run's store: written one by one, never changed, and read as answers a judge is measured on.

A person's labels are a stage of their own, `judgements/<fingerprint>/`, whose key stands for two answers. A label
given again is another line, and the later one holds. `gold_file` makes a gold file of everybody's.
"""

import json
from collections.abc import Iterable, Iterator, Mapping
from contextlib import ExitStack
from pathlib import Path

import fsspec

from flows.answers import stored
from flows.dataset import Judged, judged_prompts
from flows.inputs import gather_prompts
from flows.recipe import RecipeError
from flows.recipe_file import load_recipe
from flows.run import Run
from judges.gold import GoldError, GoldItem
from judges.human import Choice, asked, judgements_of, label_of, pair_key
from judges.layouts import Label, majority
from records.journal import replay
from records.lock import exclusive
from records.schema import Completion, Judgement, Prompt
from records.store import Row, Shard, Stage

FILE = "labels.jsonl"
"""In a run's folder: everybody's labels as a gold file."""


class Labels:
    """One person's labels of a run. The folder is held from the first label to `close`."""

    def __init__(self, run: Run, annotator: str) -> None:
        self.run, self.annotator = run, annotator
        stages = [stage for stage in people_of(run) if stage.asked["judge"]["annotator"] == annotator]
        self.rows = {row.key: row for stage in stages for row in rows_of(stage)}
        """By pair; the latest."""
        self._shard: Shard | None = None
        self._held = ExitStack()

    def put(
        self, prompt: Prompt, two: tuple[Completion, Completion], choice: Choice, picked_from: str
    ) -> Row:
        """Keep one label. It is on the disk when this returns.

        Raises:
            StoreError: another process labels under the same name, or the disk is full.
        """
        key = pair_key(prompt, two)
        found = judgements_of(self.annotator, key, two, choice, picked_from)
        row = Row(key, [judgement.model_dump(mode="json") for judgement in found])
        shard = self._open()
        if key not in shard.keys:
            shard.want([key])
        shard.put(row)
        shard.sync()
        self.rows[key] = row
        return row

    def close(self) -> None:
        """Seal what was labelled. A process that is killed leaves a journal, and the next one goes on with it."""
        if self._shard is not None:
            self._shard.seal()
            self._shard = None
        self._held.close()

    def _open(self) -> Shard:
        if self._shard is None:
            stage = Stage(self.run.store, "judgements", asked(self.annotator))
            self._held.enter_context(exclusive(stage.journals))
            index = len(list(receipts_of(stage)))
            journal = stage.journals / f"{index:05d}.jsonl"
            left = dict.fromkeys(row.key for row in replay(journal)) if journal.exists() else {}
            self._shard = stage.open(index, list(left))
        return self._shard


def receipts_of(stage: Stage) -> Iterator[int]:
    """Numbers of the sealed shards."""
    index = 0
    while stage.receipt(index) is not None:
        yield index
        index += 1


def rows_of(stage: Stage) -> Iterator[Row]:
    """Every label in the order they were given; of a pair labelled twice, the later one holds."""
    for index in receipts_of(stage):
        receipt = stage.receipt(index)
        if receipt is not None:
            yield from stage.rows(receipt)
    for journal in sorted(stage.journals.glob("*.jsonl")):
        yield from replay(journal)


def people_of(run: Run) -> list[Stage]:
    """The stages of everybody who labelled in this run, by name."""
    fs, base = fsspec.core.url_to_fs(run.store)
    found = {}
    for path in fs.glob(f"{base.rstrip('/')}/judgements/*/asked.json"):
        content = json.loads(fs.cat_file(path))
        if content["judge"]["kind"] == "human":
            found[content["judge"]["annotator"]] = Stage(run.store, "judgements", content)
    return [found[name] for name in sorted(found)]


def labels_of(stages: Iterable[Stage]) -> dict[str, list[list[Judgement]]]:
    """Pair -> the latest label of each person: two judgements by completion id. Without those who could not tell."""
    found: dict[str, list[list[Judgement]]] = {}
    for stage in stages:
        for key, row in {row.key: row for row in rows_of(stage)}.items():
            two = sorted((Judgement(**answer) for answer in row.answers), key=lambda one: one.completion_id)
            if label_of(two) is not None:
                found.setdefault(key, []).append(two)
    return found


def gold_items(cases: Iterable[Judged], labels: Mapping[str, list[list[Judgement]]]) -> Iterator[GoldItem]:
    """Labelled pairs of these prompts, each once, with what everybody said. Two who differ make a tie."""
    by_prompt: dict[str, list[tuple[str, list[list[Judgement]]]]] = {}
    for key, people in labels.items():
        by_prompt.setdefault(people[0][0].prompt_id, []).append((key, people))
    for case in cases:
        known = {one.completion.id: one.completion for one in case.candidates}
        for key, people in sorted(by_prompt.get(case.prompt.id, ())):
            two = [
                known[judgement.completion_id] for judgement in people[0] if judgement.completion_id in known
            ]
            if len(two) < 2 or pair_key(case.prompt, two) != key:
                continue  # answered anew since: other texts than those that were seen
            said: tuple[Label, ...] = tuple(label for one in people if (label := label_of(one)) is not None)
            yield GoldItem(
                prompt=case.prompt.messages,
                completions=tuple(completion.text for completion in two),
                label=majority(said),
                annotators=said,
                models=tuple(completion.model for completion in two),
                source=case.prompt.source,
                reference=case.prompt.meta.get("reference"),
                constraints=tuple(case.prompt.meta.get("constraints", ())),
                tags=tuple(sorted({one[0].detail for one in people})),
            )


def gold_file(folder: Path) -> Path:
    """Write everybody's labels of the run in `folder` as a gold file, `labels.jsonl`, and say where it is.

    Raises:
        RecipeError: there is no run in it.
        GoldError: nobody has labelled two of its answers.
    """
    if not (folder / "recipe.yaml").exists():
        raise RecipeError(
            f"{folder} holds no run: no recipe.yaml is in it; wanted a run's folder or a gold file"
        )
    run = Run(load_recipe(folder / "recipe.yaml"), folder, str(folder))
    labels = labels_of(people_of(run))
    prompts, _ = gather_prompts(run)
    items = list(gold_items(judged_prompts(run, prompts, stored(run)), labels)) if labels else []
    if not items:
        raise GoldError(f"{folder} has no labels of people; make some with `zephyr view {folder}`")
    lines = (item.model_dump_json(exclude_defaults=True) + "\n" for item in items)
    return run.write(FILE, "".join(lines))
