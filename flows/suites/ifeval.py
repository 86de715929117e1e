"""IFEval: instructions that a machine can check (arXiv 2311.07911), by prompt and by instruction, strictly and loosely.

Loosely, an answer also counts without its first or last line or its asterisks. Nothing is asked but the answers.
"""

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from flows.suites.result import Answered, Result, Sheets, Values, counts_of, grouped, tabled
from flows.suites.settings import IFEval
from judges.rules import read_constraints
from prompts.questions import HUB, Question
from prompts.sources import PromptSource, load_prompts
from records.ids import prompt_id
from records.schema import Message, Prompt

if TYPE_CHECKING:
    from flows.suites.asking import Sitter


def prompts_of(suite: IFEval) -> list[Prompt]:
    """IFEval's prompts with their instructions as constraints.

    Raises:
        PromptError: the file cannot be read, or has an instruction that cannot be checked.
    """
    kept: dict[str, str | None] = {"instructions": "instruction_id_list"}
    hub, file = HUB.fullmatch(suite.questions), Path(suite.questions)
    if file.is_file() or hub is None or file.suffix in (".jsonl", ".json", ".csv", ".parquet"):
        source = PromptSource(file=str(file.resolve()), meta=kept)
    else:
        source = PromptSource(
            dataset=hub["name"], revision=hub["revision"], split=hub["split"] or "train", meta=kept
        )
    found = load_prompts(source).prompts
    for prompt in found:
        read_constraints(prompt)
    return found


def question_of(prompt: Prompt) -> Question:
    return Question(id=prompt.id, turns=(prompt.text,))


def with_system(prompt: Prompt, system: str | None) -> Prompt:
    if system is None:
        return prompt
    messages = (Message(role="system", content=system), *prompt.messages)
    return prompt.model_copy(update={"id": prompt_id(messages), "messages": messages})


async def sit(
    name: str, suite: IFEval, prompts: Sequence[Prompt], system: str | None, who: "Sitter"
) -> list[Answered]:
    """One model's answers, in the prompts' order."""
    asked = [with_system(prompt, system) for prompt in prompts]
    found = await who.answers(name, asked, suite.temperature, suite.max_tokens)
    return [
        Answered(question_of(prompt), 0, shown, found.get(shown.id))
        for prompt, shown in zip(prompts, asked, strict=True)
    ]


def kept(one: Answered) -> list[tuple[bool, bool]]:
    """Whether the answer follows each of its prompt's instructions, strictly and loosely; an empty one follows none."""
    assert one.completion is not None
    text, found = one.completion.text, []
    for rule in read_constraints(one.prompt):
        strict = rule.grade(text).kept
        found.append(
            (strict, strict or rule.grade(text, loose=True).kept)
        )  # loosely, the whole answer is tried too
    return found


def result(sheets: Sheets) -> Result:
    """The four published accuracies; the strict one per prompt is the suite's own."""
    values: dict[str, dict[str, dict[tuple[str, int], float]]] = {}
    family: dict[str, str] = {}
    for model, answered in sheets.items():
        for one in answered:
            if one.completion is None:
                continue
            for reading, verdicts in zip(("strict", "loose"), zip(*kept(one), strict=True), strict=True):
                whole = values.setdefault(f"{reading}, per prompt", {}).setdefault(model, {})
                each = values.setdefault(f"{reading}, per instruction", {}).setdefault(model, {})
                whole[one.question.id, 0] = float(all(verdicts))
                each |= {(one.question.id, i): float(verdict) for i, verdict in enumerate(verdicts)}
    answered = next(iter(sheets.values()))
    for one in answered:
        ids = one.prompt.meta["instructions"]
        own = len(read_constraints(one.prompt)) - len(ids)  # constraints the row itself has come first
        for i, id in enumerate([*["own"] * own, *ids]):
            family[f"{one.question.id}/{i}"] = id.split(":")[0]
    families: dict[str, Values] = {
        model: {(f"{id}/{i}", 0): value for (id, i), value in own.items()}
        for model, own in values["strict, per instruction"].items()
    }
    return Result(
        kind="ifeval",
        scale="share",
        questions=len(answered),
        groups=grouped(families, family),
        counts={model: counts_of(own) for model, own in sheets.items()},
        **tabled(values),
    )
