"""How published files of compared answers lie, and a row of each as the fields of a `GoldItem`."""

import re
from collections import Counter
from collections.abc import Callable
from typing import Any, Literal, get_args

from records.ids import chance

Layout = Literal["gold", "pandalm", "hhh", "judgebench", "llmbar", "autoj"]
Label = int | Literal["tie"]
"""The place of the better completion, from 0, or that none is better."""


def majority(labels: tuple[Label, ...]) -> Label:
    """What more than half of the people say; a tie where they do not agree."""
    label, count = Counter(labels).most_common(1)[0]
    return label if 2 * count > len(labels) else "tie"


def _pandalm(row: dict[str, Any]) -> dict[str, Any]:
    """PandaLM's human-labelled set: three people, 1 or 2 for the better response, 0 for similar quality."""
    said: dict[int, Label] = {0: "tie", 1: 0, 2: 1}
    annotators: tuple[Label, ...] = tuple(said[row[f"annotator{i}"]] for i in (1, 2, 3))
    wrote = row.get("cmp_key", "").split("_")
    return {
        "prompt": f"{row['instruction']}\n\n{row['input']}" if row.get("input") else row["instruction"],
        "completions": (row["response1"], row["response2"]),
        "label": majority(annotators),
        "annotators": annotators,
        "models": tuple(wrote) if len(wrote) == 2 else (),
        "source": "pandalm",
        "tags": (row["motivation_app"],) if row.get("motivation_app") else (),
    }


_GRADED = re.compile(
    r"###The instruction to evaluate:\n(.*?)\n\n###Response to evaluate:\n(.*?)\n\n###Score Rubrics:",
    re.DOTALL,
)


def _hhh(row: dict[str, Any]) -> dict[str, Any]:
    """HHH as two filled grading prompts of Prometheus. The file has the better first; here a coin decides."""
    chosen, rejected = _GRADED.search(row["chosen_instruction"]), _GRADED.search(row["rejected_instruction"])
    if chosen is None or rejected is None or chosen[1] != rejected[1]:
        raise ValueError("the two grading prompts do not hold one instruction and one response each")
    swapped = chance(0, "hhh", chosen[1], chosen[2]).random() < 0.5
    completions = (rejected[2], chosen[2]) if swapped else (chosen[2], rejected[2])
    return {
        "prompt": chosen[1],
        "completions": completions,
        "label": int(swapped),
        "source": "hhh",
        "tags": (row["source"],),
    }


def _judgebench(row: dict[str, Any]) -> dict[str, Any]:
    """JudgeBench: one model's right and wrong answer to a hard question."""
    return {
        "prompt": row["question"],
        "completions": (row["response_A"], row["response_B"]),
        "label": {"A>B": 0, "B>A": 1}[row["label"]],
        "models": (row["response_model"],) * 2 if row.get("response_model") else (),
        "source": "judgebench",
        "tags": (row["source"],) if row.get("source") else (),
    }


def _llmbar(row: dict[str, Any]) -> dict[str, Any]:
    return {
        "prompt": row["input"],
        "completions": (row["output_1"], row["output_2"]),
        "label": {1: 0, 2: 1}[row["label"]],
        "source": "llmbar",
    }


def _autoj(row: dict[str, Any]) -> dict[str, Any]:
    return {
        "prompt": row["prompt"],
        "completions": (row["response 1"], row["response 2"]),
        "label": {0: 0, 1: 1, 2: "tie"}[row["label"]],
        "source": "autoj",
        "tags": (row["scenario"],) if row.get("scenario") else (),
    }


READERS: dict[str, Callable[[dict[str, Any]], dict[str, Any]]] = {
    "pandalm": _pandalm,
    "hhh": _hhh,
    "judgebench": _judgebench,
    "llmbar": _llmbar,
    "autoj": _autoj,
}
SAYS: dict[str, str] = {
    "gold": "prompt, completions, label",
    "pandalm": "instruction, response1, response2 and annotator1 to 3 of 0, 1 or 2",
    "hhh": "chosen_instruction and rejected_instruction",
    "judgebench": "question, response_A, response_B and label A>B or B>A",
    "llmbar": "input, output_1, output_2 and label 1 or 2",
    "autoj": "prompt, response 1, response 2 and label 0, 1 or 2",
}
MARKS = {
    "completions": "gold",
    "annotator1": "pandalm",
    "chosen_instruction": "hhh",
    "response_A": "judgebench",
    "output_1": "llmbar",
    "response 1": "autoj",
}
"""A field that only this layout has."""
assert set(SAYS) == set(get_args(Layout))
