"""Small folders in the layouts of the published datasets, as `datasets` reads them off the Hub."""

from collections.abc import Sequence
from hashlib import sha256
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

Row = dict[str, Any]


def user(text: str) -> dict[str, str]:
    return {"content": text, "role": "user"}


def assistant(text: str) -> dict[str, str]:
    return {"content": text, "role": "assistant"}


def write_splits(folder: Path, splits: dict[str, Sequence[Row]]) -> str:
    """A dataset folder: data/SPLIT-00000-of-00001.parquet, as the Hub has it."""
    (folder / "data").mkdir(parents=True)
    for name, rows in splits.items():
        pq.write_table(pa.Table.from_pylist(list(rows)), folder / "data" / f"{name}-00000-of-00001.parquet")
    return str(folder)


def binarized(i: int) -> Row:
    """A row of HuggingFaceH4/ultrafeedback_binarized."""
    prompt = f"What is {i} plus one?"
    chosen = [user(prompt), assistant(f"It is {i + 1}.")]
    return {
        "prompt": prompt,
        "prompt_id": sha256(prompt.encode()).hexdigest(),
        "chosen": chosen,
        "rejected": [user(prompt), assistant(f"I do not know{'.' * (i % 3)}")],
        "messages": chosen,
        "score_chosen": 8.5,
        "score_rejected": 8.5 if i % 6 == 0 else 4.0,
    }


def argilla(i: int) -> Row:
    """A row of argilla/ultrafeedback-binarized-preferences."""
    row = binarized(i)
    return {
        "source": "sharegpt",
        "instruction": row["prompt"],
        "chosen_response": row["chosen"][1]["content"],
        "rejected_response": row["rejected"][1]["content"],
        "chosen_avg_rating": 4.5,
        "rejected_avg_rating": 3.0,
        "chosen_model": "gpt-4",
    }


def argilla_cleaned(i: int) -> Row:
    """A row of argilla/ultrafeedback-binarized-preferences-cleaned: its columns have hyphens."""
    row = binarized(i)
    return {
        "source": "flan",
        "prompt": row["prompt"],
        "chosen": row["chosen"],
        "chosen-rating": 4.5,
        "chosen-model": "gpt-4",
        "rejected": row["rejected"],
        "rejected-rating": 3.0,
        "rejected-model": "alpaca-7b",
    }


def ultrachat_200k(i: int) -> Row:
    """A row of HuggingFaceH4/ultrachat_200k."""
    prompt = f"Tell me about number {i}."
    turns = [user(prompt), assistant(f"{i} is a number."), user("Why?"), assistant("People count.")]
    return {"prompt": prompt, "prompt_id": sha256(prompt.encode()).hexdigest(), "messages": turns}


def ultrachat(i: int, answer: str = "") -> Row:
    """A row of UltraChat as it was published: turns without roles."""
    return {"id": str(i), "data": [f"Hello. how are you, number {i}?", answer or f"fine. i am {i}."]}


def alpaca(i: int) -> Row:
    """A row of tatsu-lab/alpaca; two in five have an input."""
    return {
        "instruction": f"Add one to {'the number' if i % 5 < 2 else i}.",
        "input": str(i) if i % 5 < 2 else "",
        "output": str(i + 1),
        "text": "not read",
    }
