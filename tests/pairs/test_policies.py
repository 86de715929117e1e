"""Who is chosen, who is rejected, and that nothing but the scores and the seed decides it."""

import random
import subprocess
import sys
from collections import Counter

import pytest
from pydantic import ValidationError

from pairs.policies import Candidate, PairSettings, Policy, make_pairs, pair_all
from records.schema import Dropped, Pair
from tests.pairs.examples import candidates, completion, prompt

POLICIES: tuple[Policy, ...] = ("best_vs_random", "best_vs_random_lower", "best_vs_worst", "all_pairs")


def models(made: list[Pair] | Dropped) -> list[tuple[str, str]]:
    assert isinstance(made, list), made
    return sorted((p.chosen.model, p.rejected.model) for p in made)


def reason(made: list[Pair] | Dropped) -> str:
    assert isinstance(made, Dropped), made
    return made.reason


def chi_square(counts: list[int]) -> float:
    expected = sum(counts) / len(counts)
    return sum((count - expected) ** 2 / expected for count in counts)


def test_best_against_random_draws_the_rejected_uniformly_from_all_others():
    """Two degrees of freedom: chi-square above 13.8 has probability 0.001."""
    rejected = Counter()
    for i in range(1500):
        asked = prompt(f"question {i}")
        [(chosen, other)] = models(make_pairs(asked, candidates(asked, [1, 4, 2, 3]), PairSettings()))
        assert chosen == "m1"
        rejected[other] += 1
    assert set(rejected) == {"m0", "m2", "m3"}
    assert chi_square(list(rejected.values())) < 13.8, rejected


def test_a_tie_at_the_top_is_drawn_and_not_given_to_the_first_in_the_list():
    chosen = Counter()
    for i in range(1500):
        asked = prompt(f"question {i}")
        [(winner, loser)] = models(
            make_pairs(asked, candidates(asked, [5, 5, 5, 1]), PairSettings(policy="best_vs_worst"))
        )
        assert loser == "m3"
        chosen[winner] += 1
    assert chi_square(list(chosen.values())) < 13.8 and len(chosen) == 3, chosen


@pytest.mark.parametrize("ties", ["drop", "random"])
@pytest.mark.parametrize("length_control", ["none", "matched"])
@pytest.mark.parametrize("policy", POLICIES)
def test_neither_the_order_of_candidates_nor_of_prompts_changes_a_pair(policy, length_control, ties):
    settings = PairSettings(policy=policy, length_control=length_control, ties=ties)
    dice = random.Random(7)
    cases = []
    for i in range(60):
        asked = prompt(f"question {i}")
        scores = [dice.choice([None, 1.0, 2.0, 2.0, 3.0]) for _ in range(5)]
        cases.append((asked, candidates(asked, scores, cut=[dice.randrange(5)])))
    there = {asked.id: make_pairs(asked, found, settings) for asked, found in cases}
    shuffled = [(asked, dice.sample(found, len(found))) for asked, found in dice.sample(cases, len(cases))]
    assert there == {asked.id: make_pairs(asked, found, settings) for asked, found in shuffled}
    together = pair_all(cases, settings)
    halves = [pair_all(cases[:23], settings), pair_all(cases[23:], settings)]
    assert together.pairs == halves[0].pairs + halves[1].pairs


@pytest.mark.parametrize("policy", POLICIES)
def test_the_chosen_never_scores_lower_and_never_says_the_same(policy):
    """The 2 628 rows of UltraFeedback: a score of 1 must not end as chosen against higher ones."""
    dice = random.Random(3)
    for i in range(300):
        asked = prompt(f"question {i}")
        found = [
            Candidate(
                completion(asked, f"m{j}", dice.choice("abc") * 9, dice.choice(["stop", "length"])), score
            )
            for j, score in enumerate(dice.choices([None, 1.0, 2.0, 5.0], k=4))
        ]
        made = make_pairs(asked, found, PairSettings(policy=policy))
        for made_pair in made if isinstance(made, list) else []:
            assert made_pair.margin > 0 and made_pair.score_chosen > 1
            assert made_pair.chosen.text.split() != made_pair.rejected.text.split()
            assert made_pair.chosen.finish_reason == "stop"
            if policy != "all_pairs":
                whole = [c.score for c in found if c.score and c.completion.finish_reason == "stop"]
                assert made_pair.score_chosen == max(whole)


def test_best_against_random_may_draw_a_tie_and_then_drops_the_prompt():
    seen = Counter()
    for i in range(300):
        asked = prompt(f"question {i}")
        made = make_pairs(asked, candidates(asked, [5, 5, 1]), PairSettings())
        seen["pair" if isinstance(made, list) else made.reason] += 1
        lower = make_pairs(asked, candidates(asked, [5, 5, 1]), PairSettings(policy="best_vs_random_lower"))
        assert models(lower)[0][1] == "m2"
    assert seen.keys() == {"pair", "tie"} and 110 < seen["tie"] < 190, seen


def test_ties_can_be_kept_and_their_chosen_is_drawn():
    kept = PairSettings(policy="best_vs_worst", ties="random")
    chosen = Counter()
    for i in range(400):
        asked = prompt(f"question {i}")
        assert reason(make_pairs(asked, candidates(asked, [3, 3]), PairSettings())) == "tie"
        made = make_pairs(asked, candidates(asked, [3, 3]), kept)
        assert models(
            make_pairs(asked, candidates(asked, [3, 3]), kept.model_copy(update={"policy": "all_pairs"}))
        )
        assert isinstance(made, list) and len(made) == 1 and made[0].margin == 0
        chosen[made[0].chosen.model] += 1
    assert chi_square(list(chosen.values())) < 10.8, chosen


def test_all_pairs_are_all_pairs_with_different_scores():
    asked = prompt()
    made = make_pairs(asked, candidates(asked, [5, 5, 3, 1]), PairSettings(policy="all_pairs"))
    assert models(made) == [("m0", "m2"), ("m0", "m3"), ("m1", "m2"), ("m1", "m3"), ("m2", "m3")]
    kept = make_pairs(asked, candidates(asked, [5, 5, 3, 1]), PairSettings(policy="all_pairs", ties="random"))
    assert len(models(kept)) == 6


def test_unjudged_completions_are_in_no_pair():
    asked = prompt()
    for policy in POLICIES:
        for m in models(make_pairs(asked, candidates(asked, [None, 1, 2]), PairSettings(policy=policy))):
            assert "m0" not in m
    dropped = make_pairs(asked, candidates(asked, [None, 1, None]), PairSettings())
    assert isinstance(dropped, Dropped) and dropped.reason == "unjudged"
    assert dropped.detail == "1 judged of 3, 2 wanted: m0 parse_error, m2 parse_error"


def test_too_few_identical_and_narrow_prompts_are_dropped_with_their_reason():
    asked = prompt()
    assert reason(make_pairs(asked, candidates(asked, [1]), PairSettings())) == "too_few_completions"
    same = [
        Candidate(completion(asked, m, text), s) for m, text, s in [("a", "Yes. ", 1), ("b", "Yes.\n", 5)]
    ]
    assert reason(make_pairs(asked, same, PairSettings())) == "identical"
    blank = [Candidate(completion(asked, m, text), s) for m, text, s in [("a", " \n", 1), ("b", "Yes.", 5)]]
    assert reason(make_pairs(asked, blank, PairSettings())) == "too_few_completions"
    dropped = make_pairs(asked, candidates(asked, [3, 2.5]), PairSettings(min_margin=1))
    assert isinstance(dropped, Dropped) and dropped.reason == "margin"
    assert dropped.detail == "m0 3, m1 2.5: 0.5 apart, 1 wanted"


def test_a_margin_can_be_asked_for_in_units_of_the_judges_noise():
    asked, settings = prompt(), PairSettings(min_margin_noise=1)
    assert reason(make_pairs(asked, candidates(asked, [3, 2], spread=0.8), settings)) == "margin"
    assert models(make_pairs(asked, candidates(asked, [3, 2], spread=0.7), settings)) == [("m0", "m1")]
    dropped = make_pairs(asked, candidates(asked, [3, 2]), settings)
    assert isinstance(dropped, Dropped) and "no spread" in dropped.detail


def test_rounding_does_not_make_a_preference():
    asked = prompt()
    assert reason(make_pairs(asked, candidates(asked, [0.1 + 0.2, 0.3]), PairSettings())) == "tie"


def test_a_cut_off_answer_can_lose_but_not_win_unless_allowed():
    asked = prompt()
    best_is_cut = candidates(asked, [5, 3, 1], cut=[0])
    worst = PairSettings(policy="best_vs_worst")
    assert models(make_pairs(asked, best_is_cut, worst)) == [("m1", "m2")]
    allowed = worst.model_copy(update={"chosen_may_be_cut_off": True})
    assert models(make_pairs(asked, best_is_cut, allowed)) == [("m0", "m2")]
    assert models(make_pairs(asked, candidates(asked, [5, 1], cut=[1]), worst)) == [("m0", "m1")]
    assert reason(make_pairs(asked, candidates(asked, [5, 1], cut=[0]), worst)) == "cut_off"
    assert reason(make_pairs(asked, candidates(asked, [5, 1], cut=[0, 1]), worst)) == "cut_off"


def test_matched_takes_the_rejected_nearest_in_length():
    asked = prompt()
    texts = [("best", "x" * 100, 5), ("near", "y" * 90, 2), ("far", "z" * 10, 1), ("tie", "t" * 100, 5)]
    found = [Candidate(completion(asked, m, text), s) for m, text, s in texts]
    wanted: dict[Policy, str] = {
        "best_vs_random": "near",
        "best_vs_random_lower": "near",
        "best_vs_worst": "far",
    }
    for policy, rejected in wanted.items():
        settings = PairSettings(policy=policy, length_control="matched")
        assert models(make_pairs(asked, found, settings))[0][1] == rejected
    each = make_pairs(asked, found, PairSettings(policy="all_pairs", length_control="matched"))
    assert models(each) == [("best", "near"), ("near", "far"), ("tie", "near")]


def test_stratified_leaves_as_many_longer_as_shorter_chosen_at_every_ratio():
    cases = []
    for i in range(200):
        asked = prompt(f"question {i}")
        long, short = (5, 1) if i % 4 else (1, 5)
        found = [("a", "x" * (12 + 10 * (i % 7)), long), ("b", "y" * 10, short)]
        cases.append((asked, [Candidate(completion(asked, m, text), s) for m, text, s in found]))
    settings = PairSettings(length_control="stratified")
    made = pair_all(cases, settings)
    longer = Counter(len(p.chosen.text) > len(p.rejected.text) for p in made.pairs)
    assert longer[True] == longer[False] > 30
    assert {d.reason for d in made.dropped} == {"length"} and len(made.pairs) + len(made.dropped) == 200
    backwards = pair_all(cases[::-1], settings)
    assert backwards.pairs[::-1] == made.pairs


def test_settings_that_contradict_each_other_are_refused():
    with pytest.raises(ValidationError, match=r"min_margin=0\.5"):
        PairSettings(ties="random", min_margin=0.5)


def test_a_candidate_of_another_prompt_or_one_twice_is_a_fault():
    asked, other = prompt(), prompt("Another?")
    with pytest.raises(ValueError, match="answers"):
        make_pairs(asked, candidates(other, [1, 2]), PairSettings())
    with pytest.raises(ValueError, match="2 candidates but 1"):
        make_pairs(asked, candidates(asked, [1]) * 2, PairSettings())
    with pytest.raises(ValueError, match="finite or None"):
        candidates(asked, [float("nan")])


def test_importing_the_policies_loads_nothing_heavy():
    heavy = {"numpy", "pandas", "pyarrow", "datasets", "torch", "transformers"}
    names = "pairs.policies, pairs.preflight, pairs.dataset, pairs.gain"
    code = f"import sys, {names}; assert not {heavy} & set(sys.modules)"
    subprocess.run([sys.executable, "-c", code], check=True)
