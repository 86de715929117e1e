"""`zephyr import`, `audit` and `pairs` over a dataset as large as UltraFeedback: seconds, memory, and what was found.

    python -m benchmarks.imports --rows 63967

The file has UltraFeedback's layout, its four answers a row and its mean lengths (arXiv 2310.01377: prompt 185 tokens,
answer 305, critique 143). Planted are scores of 1 stored as 10, ties at the top and copies of prompts; each must be
counted.
"""

import argparse
import json
import os
import random
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from benchmarks.report import finish, table

LETTERS = {"prompt": 740, "answer": 1220, "critique": 570, "rationale": 200}
"""Of a text; four to a token. The rationales' are our guess."""
ASPECTS = ("instruction_following", "honesty", "truthfulness", "helpfulness")
MODELS = [f"model-{i}" for i in range(17)]
PLANTED = {"wrong_ten": 100, "tie_at_top": 8, "duplicate": 500}
"""Every so many rows has one."""
CHUNK = 1000


class Texts:
    """Prose of words by Zipf's law: slices of one long text, so that a gigabyte is written in seconds."""

    def __init__(self, seed: int) -> None:
        self.dice = random.Random(seed)
        words = [f"{chr(97 + i % 26)}{i:x}" for i in range(20_000)]
        weights = [1 / (i + 1) for i in range(len(words))]
        self.source = " ".join(self.dice.choices(words, weights, k=400_000))

    def __call__(self, kind: str) -> str:
        length = max(20, round(self.dice.expovariate(1 / LETTERS[kind])))
        start = self.dice.randrange(len(self.source) - length)
        return self.source[start : start + length].strip()


def row(i: int, texts: Texts) -> dict[str, Any]:
    """One row; the best answer by every score is the first where nothing is planted."""
    models = texts.dice.sample(MODELS, 4)
    answers = [_answer(model, level, texts) for model, level in zip(models, (5, 4, 3, 1), strict=True)]
    if i % PLANTED["wrong_ten"] == 1:
        answers[3]["overall_score"] = 10.0
    elif i % PLANTED["tie_at_top"] == 2:
        answers[1]["overall_score"] = answers[0]["overall_score"]
    return {
        "source": "evol_instruct",
        "instruction": f"{i}: {texts('prompt')}",
        "models": models,
        "completions": answers,
        "correct_answers": ["None"],
        "incorrect_answers": ["None"],
    }


def _answer(model: str, level: int, texts: Texts) -> dict[str, Any]:
    cells = {aspect: {"Rating": str(level), "Rationale": texts("rationale")} for aspect in ASPECTS}
    return {
        "model": model,
        "principle": "helpfulness",
        "custom_system_prompt": "Be helpful.",
        "response": texts("answer"),
        "critique": texts("critique"),
        "overall_score": float(2 * level - 1),
        "fine-grained_score": float(level),
        "annotations": cells,
    }


def write(path: Path, rows: int) -> dict[str, int]:
    """The dataset as Parquet; how many of each defect are in it."""
    texts, planted, before, writer = Texts(0), dict.fromkeys(PLANTED, 0), "", None
    for start in range(0, rows, CHUNK):
        made = []
        for i in range(start, min(start + CHUNK, rows)):
            one = row(i, texts)
            if i % PLANTED["duplicate"] == 3:
                one["instruction"] = before
                planted["duplicate"] += 1
            before = one["instruction"]
            planted["wrong_ten"] += one["completions"][3]["overall_score"] == 10
            planted["tie_at_top"] += one["completions"][1]["overall_score"] == 9
            made.append(one)
        chunk = pa.Table.from_pylist(made)
        writer = writer or pq.ParquetWriter(path, chunk.schema)
        writer.write_table(chunk)
    if writer is not None:
        writer.close()
    return planted


def run(*command: str) -> dict[str, Any]:
    """A command of zephyr: what it said, and what it took."""
    began = time.monotonic()
    with tempfile.TemporaryFile() as said:
        process = subprocess.Popen([sys.executable, "-m", "flows.cli", *command, "--json"], stdout=said)
        _, status, used = os.wait4(process.pid, 0)
        said.seek(0)
        answer = json.loads(said.read().splitlines()[-1])
    assert status == 0 and answer["ok"], answer
    took = {"seconds": time.monotonic() - began, "cpu_seconds": used.ru_utime + used.ru_stime}
    return {"took": took | {"peak_mib": used.ru_maxrss / 1024}, "said": answer}


def measure(rows: int) -> dict[str, Any]:
    with tempfile.TemporaryDirectory() as folder:
        file, out = Path(folder) / "set.parquet", ["--out", f"{folder}/runs"]
        planted = write(file, rows)
        print(f"{rows:,} rows, {file.stat().st_size / 1e6:,.0f} MB", file=sys.stderr, flush=True)
        done = {"import": run("import", str(file), "--as", "set", *out)}
        recipe = f"{folder}/runs/set/import.yaml"
        done["pairs"] = run("pairs", recipe, *out)
        done["pairs by overall score"] = run("pairs", recipe, *out, "--set", "judge.aspects=[overall]")
        done["audit"] = run("audit", str(file))
        found = {each["name"]: each["rows"] for each in done["audit"]["said"]["findings"]}
        return {
            "rows": rows,
            "file_mb": file.stat().st_size / 1e6,
            "steps": {name: each["took"] for name, each in done.items()},
            "planted": planted,
            "found": {name: found.get(name, 0) for name in planted},
            "prompts": done["import"]["said"]["prompts"],
            "pairs": sum(done["pairs"]["said"]["dataset"]["pairs"].values()),
        }


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--rows", type=int, default=63_967)
    parser.add_argument("--out", type=Path, help="write the result here, too")
    asked = parser.parse_args()
    found = measure(asked.rows)
    figures = ("seconds", "cpu_seconds", "peak_mib")
    print(table(("", *figures), [[step, *map(took.get, figures)] for step, took in found["steps"].items()]))
    print(table(("", "planted", "found"), [[n, c, found["found"][n]] for n, c in found["planted"].items()]))
    finish("imports", found, asked.out)


if __name__ == "__main__":
    main()
