"""How much there is before it is read: prompts and training rows as they lie here, else as the recipe knows them.

A plan reads no dataset off the Hub whose size the recipe gives. Prompts that are not read yet are stood in for by texts
of the usual length, so that everything after them is counted in one way.
"""

import math
from pathlib import Path
from typing import Any, Literal

from flows.inputs import each_prompt, gather_prompts
from flows.run import Run
from flows.tokens import LETTERS_PER_TOKEN, USUAL_PROMPT
from flows.training_plan import TrainingPlan
from pairs.splits import split_of
from pairs.training_data import DATA, TrainingData, count_rows, prepared
from prompts.principle import is_table, table_sources
from prompts.sources import PromptSource
from records.ids import prompt_id
from records.schema import Message, Prompt
from trainers.settings import SFTSettings

Stage = Literal["sft", "reward", "dpo"]


def prompts_of(run: Run) -> tuple[list[Prompt], list[str]]:
    """The recipe's prompts, and which sources were not read but counted as the recipe knows them."""
    recipe, read_before = run.recipe, bool(run.read_json("summary.json").get("prompts"))
    unread = [] if read_before else [s for s in recipe.prompts if s.rows and not _is_here(s.dataset)]
    if not unread:
        return list(gather_prompts(run)[0]), []
    rest = tuple(source for source in recipe.prompts if source not in unread)
    prompts = list(each_prompt(recipe.model_copy(update={"prompts": rest}), []))
    notes = []
    for source in unread:
        tables = [
            s.principle for s in recipe.samplers if isinstance(s.principle, str) and is_table(s.principle)
        ]
        stood_in = _stand_ins(source, sorted(table_sources(tables[0])) if tables else [source.label])
        for prompt in stood_in:
            split = split_of(prompt, recipe.splits)
            prompts.append(prompt.model_copy(update={"meta": prompt.meta | {"split": split}}))
        notes.append(
            f"{source.label} is not read yet: counted as {len(stood_in):,} prompts of about {USUAL_PROMPT} tokens, as "
            "the recipe says"
        )
    return prompts, notes


def _is_here(dataset: str | None) -> bool:
    return dataset is None or Path(dataset).exists()


def _stand_ins(source: PromptSource, origins: list[str]) -> list[Prompt]:
    count = min(source.rows or 0, source.limit or source.rows or 0)
    if source.part is not None:
        number, parts = source.part
        count = len(range(number - 1, count, parts))
    found = []
    for i in range(count):
        text = f"{source.label} {i} ".ljust(round(USUAL_PROMPT * LETTERS_PER_TOKEN), "x")
        messages = (Message(role="user", content=text),)
        found.append(Prompt(id=prompt_id(messages), messages=messages, source=origins[i % len(origins)]))
    return found


def training_size(run: Run, plan: TrainingPlan, stage: Stage, own: int) -> dict[str, Any]:
    """Rows, optimizer steps and batch of a stage. `own`: rows it gets at most where it learns from the run itself.

    `rows`, `sequences` and `steps` are None where nobody knows them; `note` says why, or whose figures they are.
    """
    settings = getattr(plan, stage)
    source: TrainingData | None = getattr(plan, DATA[stage])
    batch = settings.batch
    if source is None:
        return {"rows_at_most": own, "steps_at_most": settings.steps(own), "batch": batch}
    rows, note = _rows(run, source, stage)
    sequences = rows
    if isinstance(settings, SFTSettings) and settings.packing:
        sequences = None
        if rows is not None and source.tokens is not None:
            sequences = math.ceil(rows * source.tokens / settings.max_length)
        elif rows is not None:
            note = "steps are not counted: dialogues are packed, and training.dialogues.tokens is not given"
    return {
        "source": source.label,
        "rows": rows,
        "sequences": sequences,
        "steps": None if sequences is None else settings.steps(sequences),
        "batch": batch,
        "note": note,
    }


def _rows(run: Run, source: TrainingData, stage: Stage) -> tuple[int | None, str]:
    kind = DATA[stage]
    if (receipt := prepared(source, kind, run.training_data(kind))) is not None:
        return receipt["train"]["rows"], ""
    if source.dataset is None or Path(source.dataset).exists():
        count = count_rows(source, "train")
        return min(count, source.limit or count), ""
    if (known := source.known("train")) is not None:
        return known, "as the recipe says; it is not read yet"
    return None, f"not counted: {source.label} is not read yet, and training.{kind}.rows is not given"


def training_line(stage: str, size: dict[str, Any]) -> str:
    """A stage's size as people read it."""
    batch = size["batch"]
    if "rows_at_most" in size:
        return f"train {stage}: at most {size['steps_at_most']:,} steps of {batch}"
    if size["rows"] is None:
        return f"train {stage}: steps of {batch}, {size['note']}"
    from_ = f"{size['rows']:,} rows of {size['source']}"
    if size["steps"] is None:
        return f"train {stage}: {from_}; {size['note']}"
    if size["sequences"] != size["rows"]:
        from_ = f"about {size['sequences']:,} sequences packed from {from_}"
    return f"train {stage}: {size['steps']:,} steps of {batch}, {from_}" + (
        f" ({size['note']})" if size["note"] else ""
    )
