"""Near copies are found however they are ordered, and what is reported is near by an exact count."""

import random
import subprocess
import sys
from itertools import combinations
from pathlib import Path

import pytest

from pairs.near import bands_of, near_duplicates

ROOT = Path(__file__).parent.parent.parent


def share(one: str, other: str) -> float:
    a, b = ({tuple(w[i : i + 3]) for i in range(len(w) - 2)} for w in (one.split(), other.split()))
    return len(a & b) / len(a | b)


def some_texts(count: int, seed: int = 0) -> list[str]:
    """Half of them copies of another with up to a third of the words changed."""
    dice = random.Random(seed)
    texts = [
        " ".join(f"w{dice.randrange(500)}" for _ in range(dice.randint(12, 90))) for _ in range(count // 2)
    ]
    for source in list(texts):
        words = source.split()
        for place in dice.sample(range(len(words)), dice.randrange(len(words) // 3)):
            words[place] = "changed"
        texts.append(" ".join(words))
    dice.shuffle(texts)
    return texts


@pytest.mark.parametrize("threshold", [0.5, 0.7, 0.9])
def test_what_is_found_is_what_every_two_texts_compared_give(threshold: float):
    texts = some_texts(400)
    near = {(j, i) for i, j in combinations(range(len(texts)), 2) if share(texts[i], texts[j]) >= threshold}
    found = near_duplicates(texts, threshold)
    assert {(pair.later, pair.earlier) for pair in found} == near and len(near) > 20
    assert all(pair.share == pytest.approx(share(texts[pair.later], texts[pair.earlier])) for pair in found)


def test_of_copies_of_copies_those_near_a_kept_one_go():
    words = [f"w{i}" for i in range(60)]
    texts = [" ".join([f"x{k}" if k < 3 * step else w for k, w in enumerate(words)]) for step in range(4)]
    found = near_duplicates(texts, 0.83)
    assert [(pair.later, pair.earlier) for pair in found] == [(1, 0), (3, 2)], (
        "2 is near 1 alone, and 1 is gone"
    )


def test_case_and_punctuation_do_not_count_and_short_texts_are_compared_whole():
    texts = [
        "Tell me a joke, please.",
        "tell me a joke PLEASE",
        "Why?",
        "why",
        "Why not?",
        "",
        "?!",
        "为什么",
        "为什么",
    ]
    found = [(pair.later, pair.earlier, pair.share) for pair in near_duplicates(texts, 0.7)]
    assert found == [(1, 0, 1.0), (3, 2, 1.0), (8, 7, 1.0)]


def test_many_copies_of_one_text_leave_one():
    texts = ["The quick brown fox jumps over the lazy dog today."] * 300
    assert [pair.later for pair in near_duplicates(texts)] == list(range(1, 300))


def test_nothing_is_near_nothing_and_a_wrong_threshold_is_refused():
    assert near_duplicates([]) == near_duplicates(["one text alone"]) == []
    with pytest.raises(ValueError, match="threshold=0"):
        near_duplicates(["a"], 0)


@pytest.mark.parametrize("threshold", [0.3, 0.5, 0.6, 0.7, 0.8, 0.9, 1.0])
def test_two_texts_at_the_threshold_meet(threshold: float):
    rows = bands_of(threshold)
    assert 1 - (1 - threshold**rows) ** (128 // rows) >= 0.999


def test_another_process_finds_the_same():
    look = (
        "from tests.pairs.test_near import some_texts; from pairs.near import near_duplicates;"
        "print(near_duplicates(some_texts(200), 0.6))"
    )
    said = set()
    for seed in ("1", "2"):
        env = {"PYTHONHASHSEED": seed, "PATH": ""}
        command = [sys.executable, "-c", look]
        said.add(subprocess.run(command, cwd=ROOT, env=env, capture_output=True, check=True).stdout)
    assert said == {f"{near_duplicates(some_texts(200), 0.6)}\n".encode()}
