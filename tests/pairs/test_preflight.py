"""Figures worked by hand, what stops a run and what only warns."""

import random
import time

import pytest

from pairs.decontaminate import Benchmarks
from pairs.preflight import Preflight, PreflightSettings, preflight
from pairs.splits import SplitSettings, by_split, find_leaks, split_of
from records.schema import Dropped
from records.stats import clustered, wilson
from tests.pairs.examples import pair, prompt

LENIENT = PreflightSettings(min_pairs=1)


def some_pairs(count: int, start: int = 0):
    return [pair(prompt(f"Question number {i}?")) for i in range(start, start + count)]


def test_wilson_on_numbers_worked_elsewhere():
    """8 of 10: 0.4902 to 0.9433 (Brown, Cai and DasGupta 2001); 0 of 10 ends at 0.2775."""
    eight = wilson(8, 10)
    assert eight and (round(eight.low, 4), round(eight.high, 4)) == (0.4902, 0.9433)
    none = wilson(0, 10)
    assert none and none.low == 0 and round(none.high, 4) == 0.2775
    assert wilson(0, 0) is None


def test_pairs_of_one_prompt_that_agree_do_not_make_the_interval_narrower():
    alone = clustered([1] * 60 + [0] * 40, [1] * 100)
    copied = clustered([6] * 60 + [0] * 40, [6] * 100)
    assert alone and copied and alone.value == copied.value == 0.6
    assert abs((alone.high - alone.low) - (copied.high - copied.low)) < 0.02


def test_length_margin_and_win_rate_are_counted():
    asked = [prompt(f"Question {i}") for i in range(4)]
    pairs = [
        pair(asked[0], "aaaa", "b", ("m0", "m1"), (5, 1)),
        pair(asked[1], "aaaa", "b", ("m0", "m2"), (5, 4)),
        pair(asked[2], "a", "bbbb", ("m1", "m0"), (3, 1)),
        pair(asked[3], "a", "b", ("m2", "m2"), (3, 2)),
    ]
    found = preflight({"train": pairs}, settings=LENIENT)
    assert found.longer_chosen and (found.longer_chosen.value, found.longer_chosen.n) == (2 / 3, 3)
    assert found.length_ratio == pytest.approx(4 ** (1 / 4))
    assert (found.mean_margin, found.median_margin) == (2.0, 1.5)
    assert {m: (r.value, r.n) for m, r in found.win_rates.items()} == {
        "m0": (2 / 3, 3),
        "m1": (0.5, 2),
        "m2": (0, 1),
    }
    assert found.errors == found.warnings == ()


def test_hard_errors_name_the_value_and_what_was_wanted():
    same = pair(prompt("Same?"), "Yes.", " Yes.\n")
    blank = pair(prompt("Blank?"), "Yes.", " ")
    leak = [pair(prompt("What is  tea?"))], [pair(prompt("what is tea"))]
    found = preflight({"train": [same, blank, *leak[0]], "test": leak[1]}, settings=LENIENT)
    assert len(found.errors) == 3
    assert found.errors[0].startswith("1 test prompts are also in train; wanted 0. The first: 'what is tea'")
    assert found.errors[1] == "1 pairs have the same text as chosen and rejected; wanted 0"
    assert found.errors[2] == "1 answers are empty; wanted 0"


def test_an_empty_dataset_is_an_error_that_says_where_the_rows_went():
    drops = [Dropped(id="a", stage="pairs", reason="tie"), Dropped(id="b", stage="pairs", reason="unjudged")]
    found = preflight({"train": [], "test": []}, dropped=drops)
    assert found.errors == ("0 train pairs and 0 train SFT rows; wanted at least one (1 tie, 1 unjudged)",)
    assert found.longer_chosen is None and found.mean_margin is None


def test_what_the_model_would_learn_besides_is_a_warning():
    drops = [Dropped(id=str(i), stage="pairs", reason="tie") for i in range(30)]
    judgements = {"m0": {"ok": 50, "parse_error": 7}, "m1": {"ok": 50}}
    found = preflight({"train": some_pairs(20)}, dropped=drops, judgements=judgements)
    assert found.errors == ()
    told = "\n".join(found.warnings)
    for words in (
        "20 train pairs; 200",
        "longer answer is chosen in 100%",
        "m0 is the chosen of 100%",
        "30 of 50 prompts are ties",
        "7 of 57 judgements of m0 have no score (7 parse_error)",
    ):
        assert words in told
    assert "m1 have no score" not in told
    assert Preflight.model_validate_json(found.model_dump_json()) == found


def test_a_tokenizer_shows_long_rows_broken_prompts_and_endings_that_differ():
    def encode(messages):
        return [ord(c) for m in messages for c in f"<{m['role']}>{m['content']}"] + [0]

    def ends_with_the_dialogue(messages):
        return [ord(c) for m in messages for c in f"<{m['role']}>{m['content']}"]

    settings = PreflightSettings(min_pairs=1, max_length=55)
    broken = preflight({"train": some_pairs(3)}, encode=encode, settings=settings)
    assert broken.tokens and (
        broken.tokens.broken_prefixes,
        broken.tokens.endings,
        broken.tokens.too_long,
    ) == (6, 1, 3)
    assert "changes the prompt's tokens in 6 of 6" in broken.errors[0]
    decode = "".join
    endings = [pair(prompt("Q?"), "Good", "Bad!")]
    found = preflight(
        {"train": endings}, encode=ends_with_the_dialogue, decode=lambda ids: decode(map(chr, ids))
    )
    assert found.errors == () and found.tokens and (found.tokens.endings, found.tokens.lost_texts) == (2, 0)
    lost = preflight({"train": endings}, encode=ends_with_the_dialogue, decode=lambda ids: "")
    assert "2 of 2 answers do not survive" in lost.errors[0]


def test_benchmark_prompts_are_found_whole_and_by_thirteen_words():
    question = (
        "If a train leaves the old station at noon and another train leaves an hour later, when do they meet?"
    )
    benchmarks = Benchmarks({"mt_bench": [question], "short": ["Why?"]})
    found = [
        benchmarks.find("a", question.upper().replace(",", " -")),
        benchmarks.find("b", f"Please help me. {question} Thanks, and be quick about it."),
        benchmarks.find(
            "c", "If a train leaves the old station at noon and another bus leaves an hour later"
        ),
        benchmarks.find("d", "why"),
        benchmarks.find("e", "why not"),
    ]
    assert [hit and (hit.benchmark, hit.kind) for hit in found] == [
        ("mt_bench", "exact"), ("mt_bench", "ngram"), None, ("short", "exact"), None,
    ]  # fmt: skip
    report = preflight({"train": [pair(prompt(question))]}, benchmarks=benchmarks, settings=LENIENT)
    assert "1 of 1 train prompts are in a benchmark (1 in mt_bench)" in "\n".join(report.warnings)


def test_thirteen_words_are_found_at_every_offset():
    run = [f"w{i}" for i in range(13)]
    benchmarks = Benchmarks({"b": [" ".join(run)]})
    for before in range(20):
        for after in (0, 1, 9):
            text = " ".join(["x"] * before + run + ["y"] * after)
            assert benchmarks.find("p", text), (before, after)
    assert not benchmarks.find("p", " ".join(run[:12]))


def test_decontamination_of_many_prompts_takes_seconds():
    dice = random.Random(0)
    vocabulary = [f"word{i}" for i in range(3000)]
    benchmarks = Benchmarks({"b": [" ".join(dice.choices(vocabulary, k=60)) for _ in range(2000)]})
    texts = [" ".join(dice.choices(vocabulary, k=150)) for _ in range(2000)]
    start = time.perf_counter()
    assert not any(benchmarks.find("p", text) for text in texts * 5)
    assert time.perf_counter() - start < 5  # 10 000 prompts; measured: a third of a second of CPU


def test_a_prompts_split_depends_on_its_words_alone_and_the_flows_word_counts():
    settings = SplitSettings(test=0.2)
    prompts = [prompt(f"Question number {i}?") for i in range(1000)]
    sides = by_split(prompts, settings)
    assert 150 < len(sides["test"]) < 250 and find_leaks(sides) == []
    for p in prompts[:50]:
        assert split_of(prompt(p.text.upper() + "!"), settings) == split_of(p, settings)
    assert split_of(prompt("Mine?", split="test"), SplitSettings(test=0)) == "test"
    with pytest.raises(ValueError, match="'dev'; wanted 'train' or 'test'"):
        split_of(prompt("Mine?", split="dev"), settings)
