"""UltraFeedback's rows as published, for tests to plant defects in. No two answers of a clean row share a score."""

import json
import random
from pathlib import Path
from typing import Any

ASPECTS = ("instruction_following", "honesty", "truthfulness", "helpfulness")
MODELS = ("alpaca-7b", "bard", "gpt-4", "llama-2-7b-chat")
WORDS = [
    f"{a}{b}" for a in ("ri", "sto", "lan", "mea", "har", "vio") for b in ("ver", "ne", "tern", "dow", "bour")
]


def sentence(*seed: int, length: int = 18) -> str:
    """Words that no two seeds share for long."""
    return " ".join(random.Random(str(seed)).choices(WORDS, k=length))


def annotated(level: int, text: str = "It does what was asked.") -> dict[str, Any]:
    """All four aspects, with this rating."""
    found: dict[str, Any] = {}
    for aspect in ASPECTS:
        found[aspect] = {"Rating": str(level), "Rationale": text}
        if aspect in ("truthfulness", "helpfulness"):
            found[aspect] |= {"Type": ["None"], "Rationale For Rating": text}
    return found


def answer(model: str, text: str, level: int, overall: float, critique: str = "Clear.") -> dict[str, Any]:
    return {
        "model": model,
        "principle": "helpfulness",
        "custom_system_prompt": "Help.",
        "response": text,
        "critique": critique,
        "overall_score": overall,
        "fine-grained_score": float(level),
        "annotations": annotated(level),
    }


def clean(number: int) -> dict[str, Any]:
    """A row without a defect: the best is the answer number modulo 4, both by its aspects and over all."""
    levels = [(number + i) % 4 + 2 for i in range(4)]
    return {
        "source": "evol_instruct",
        "instruction": f"Task {number}: {sentence(number)}?",
        "models": list(MODELS),
        "completions": [
            answer(model, f"Answer {i} {sentence(number, i, length=12)}.", level, 2.0 * level - 1)
            for i, (model, level) in enumerate(zip(MODELS, levels, strict=True))
        ],
        "correct_answers": ["None"],
        "incorrect_answers": ["None"],
    }


def write(path: Path, rows: list[dict[str, Any]]) -> Path:
    path.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    return path
