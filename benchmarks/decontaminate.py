"""Decontamination and near-duplicate search over synthetic prompts with planted hits: seconds, recall, precision.

    python -m benchmarks.decontaminate --prompts 200000

Words are drawn by Zipf's law. Benchmark lists have the sizes of the real ones. Planted are benchmark prompts with other
case and punctuation, 13 of their words inside other prompts, and copies of prompts with some words changed; planted as
well, and not to be found, are 12 words in a row and copies with too many changes. What is near is told by a count of
Python sets that shares no code with the search.
"""

import argparse
import random
import resource
import time
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from benchmarks.report import finish, table
from pairs.decontaminate import Benchmarks
from pairs.near import near_duplicates

LISTS = {
    "mt_bench": 160,
    "alpaca_eval": 805,
    "arena_hard": 500,
    "ifeval": 541,
    "truthful_qa": 817,
    "humaneval": 164,
}
"""Prompts (of MT-Bench: turns)."""
THRESHOLD = 0.7
SHARE = 0.005
"""Of the prompts, for each kind of planted one."""


class Planted(NamedTuple):
    texts: list[str]
    benchmarks: dict[str, list[str]]
    contaminated: set[int]
    """Places of prompts that must be found; no other may be."""
    copies: dict[int, int]
    """Place of a changed copy -> of what it was copied from."""


def plant(count: int, seed: int) -> Planted:
    dice, rng = random.Random(seed), np.random.default_rng(seed)
    vocabulary = np.array([f"{chr(97 + i % 26)}{i:x}" for i in range(50_000)])
    weights = 1 / np.arange(1, len(vocabulary) + 1)
    drawn = vocabulary[rng.choice(len(vocabulary), size=count * 110, p=weights / weights.sum())]
    at = 0

    def fresh(low: int, high: int) -> list[str]:
        nonlocal at
        length = dice.randint(low, high)
        if at + length > len(drawn):
            at = 0
            rng.shuffle(drawn)
        at += length
        return drawn[at - length : at].tolist()

    benchmarks = {name: [" ".join(fresh(14, 120)) for _ in range(size)] for name, size in LISTS.items()}
    every = [line for lines in benchmarks.values() for line in lines]
    each = max(1, int(SHARE * count))
    texts = [" ".join(fresh(15, 180)) for _ in range(count - 5 * each)]
    contaminated: set[int] = set()
    copies: dict[int, int] = {}
    for _ in range(each):
        whole = dice.choice(every)
        contaminated.add(len(texts))
        texts.append(whole.upper().replace(" ", ", ", 3) + "!")
        words = dice.choice(every).split()
        start = dice.randrange(len(words) - 13 + 1)
        contaminated.add(len(texts))
        texts.append(" ".join([*fresh(5, 60), *words[start : start + 13], *fresh(5, 60)]))
        texts.append(" ".join([*fresh(5, 60), "other", *words[start : start + 12], "other", *fresh(5, 60)]))
        for changed in (dice.uniform(0.0, 0.07), dice.uniform(0.09, 0.2)):
            source = dice.randrange(count - 5 * each)
            copy = texts[source].split()
            for place in dice.sample(range(len(copy)), round(changed * len(copy))):
                copy[place] = "changed"
            copies[len(texts)] = source
            texts.append(" ".join(copy))
    return Planted(texts, benchmarks, contaminated, copies)


def share(one: str, other: str) -> float:
    """Of the runs of three words that either has."""
    a, b = (
        {tuple(words[i : i + 3]) for i in range(len(words) - 2)} for words in (one.split(), other.split())
    )
    return len(a & b) / len(a | b)


def measured(planted: Planted) -> dict[str, Any]:
    began, cpu = time.monotonic(), time.process_time()
    lists = Benchmarks(planted.benchmarks)
    hits = {i for i, text in enumerate(planted.texts) if lists.find(str(i), text)}
    middle = time.monotonic()
    near = near_duplicates(planted.texts, THRESHOLD)
    ended = time.monotonic()
    cpu = time.process_time() - cpu
    true = {
        i
        for i, source in planted.copies.items()
        if share(planted.texts[i], planted.texts[source]) >= THRESHOLD
    }
    found = {pair.later for pair in near}
    right = sum(share(planted.texts[p.later], planted.texts[p.earlier]) >= THRESHOLD for p in near)
    return {
        "prompts": len(planted.texts),
        "seconds": ended - began,
        "decontamination_seconds": middle - began,
        "near_duplicate_seconds": ended - middle,
        "cpu_seconds": cpu,
        "peak_mib": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024,
        "contaminated": {
            "planted": len(planted.contaminated),
            "found": len(hits),
            "recall": len(hits & planted.contaminated) / len(planted.contaminated),
            "precision": len(hits & planted.contaminated) / len(hits) if hits else None,
        },
        "near_duplicates": {
            "planted": len(true),
            "planted_too_far": len(planted.copies) - len(true),
            "found": len(near),
            "recall": len(found & true) / len(true) if true else None,
            "precision": right / len(near) if near else None,
        },
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--prompts", type=int, default=200_000)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--out", type=Path, help="write the result here, too")
    asked = parser.parse_args()
    found = measured(plant(asked.prompts, asked.seed))
    rows = []
    for kind, seconds in (("contaminated", "decontamination"), ("near_duplicates", "near_duplicate")):
        figures = [found[kind][figure] for figure in ("planted", "found", "recall", "precision")]
        rows.append([kind.replace("_", " "), found[f"{seconds}_seconds"], *figures])
    print(table(("", "seconds", "planted", "found", "recall", "precision"), rows))
    print(f"{found['prompts']:,} prompts, {found['seconds']:.1f} s, peak {found['peak_mib']:.0f} MiB")
    finish("decontaminate", found, asked.out)


if __name__ == "__main__":
    main()
