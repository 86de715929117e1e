"""Rejection sampling on hand-made scores: who wins, who cannot, and what is said of it."""

import pytest

from pairs.best_of_n import BestOfN, SftRow, best_of_n, each_once
from pairs.policies import Candidate, PairSettings, Selection, make_pairs
from records.schema import Dropped
from tests.pairs.examples import candidates, completion, prompt

RANDOM, ALONE = BestOfN(ties="random"), BestOfN(min_completions=1)


def won(made: SftRow | Dropped) -> SftRow:
    assert isinstance(made, SftRow), made
    return made


def lost(made: SftRow | Dropped) -> Dropped:
    assert isinstance(made, Dropped), made
    return made


def test_the_winner_is_above_every_other_candidate_and_all_scores_are_kept():
    asked = prompt()
    row = won(best_of_n(asked, candidates(asked, [2, None, 4.5, 4])))
    assert (row.n, row.score, row.lead) == (3, 4.5, 0.5)
    assert [s.score for s in row.scores] == [2, 4.5, 4], "by sampler, the unjudged left out"
    assert row.scores[row.winner].completion_id == row.completion.id
    assert [m.role for m in row.messages] == ["user", "assistant"]


def test_a_tie_at_the_top_has_no_winner_unless_one_is_to_be_drawn():
    wins = set()
    for i in range(30):
        asked = prompt(f"question {i}")
        found = candidates(asked, [4, 2, 4])
        tie = lost(best_of_n(asked, found))
        assert tie.reason == "tie" and "2 of 3 share the best score 4: m0, m2" in tie.detail
        row = won(best_of_n(asked, found, RANDOM))
        assert row.lead == 0 and row == best_of_n(asked, found[::-1], RANDOM), "order decides nothing"
        wins.add(row.completion.model)
    assert wins == {"m0", "m2"}, "never the first alone"


def test_with_the_same_settings_the_pairs_have_the_same_chosen():
    for i in range(30):
        asked = prompt(f"question {i}")
        found = candidates(asked, [2, None, 4, 4, 5], cut=[4])
        row = won(best_of_n(asked, found, RANDOM))
        for given in (found, each_once(found, Selection())):
            made = make_pairs(asked, given, PairSettings(policy="best_vs_worst"))
            assert isinstance(made, list) and made[0].chosen == row.completion


def test_a_text_counts_once_with_the_mean_of_its_scores():
    """Taking the best of its scores would let the text win that came most often."""
    asked = prompt()
    texts = [("a", "Yes.", 5.0), ("b", " Yes. ", 1.0), ("c", "No.", 4.0)]
    row = won(best_of_n(asked, [Candidate(completion(asked, m, text), s) for m, text, s in texts]))
    assert (row.completion.model, row.n, row.lead) == ("c", 2, 1.0)
    assert [s.score for s in row.scores] == [3.0, 4.0]


def test_what_was_not_judged_neither_wins_nor_loses():
    asked = prompt()
    found = candidates(asked, [3, None, None])
    assert lost(best_of_n(asked, found)).reason == "unjudged", "one judged answer has beaten nobody"
    assert won(best_of_n(asked, found, ALONE)).lead is None
    kept = each_once(candidates(asked, [3, None, 1]), Selection())
    assert [c.completion.model for c in kept] == ["m0", "m2"]


def test_an_answer_that_was_cut_off_is_no_candidate_unless_allowed():
    asked = prompt()
    found = candidates(asked, [3, 2, 5], cut=[2])
    row = won(best_of_n(asked, found))
    assert (row.completion.model, row.n) == ("m0", 2)
    allowed = won(best_of_n(asked, found, selection=Selection(chosen_may_be_cut_off=True)))
    assert allowed.completion.model == "m2"
    assert lost(best_of_n(asked, candidates(asked, [3, 2], cut=[0, 1]))).reason == "cut_off"
    assert lost(best_of_n(asked, candidates(asked, [3, 2], cut=[1]))).reason == "cut_off"


def test_best_of_identical_is_none_and_of_one_that_one_where_it_may():
    asked = prompt()
    same = [Candidate(completion(asked, m, "Yes."), s) for m, s in [("a", 1), ("b", 5)]]
    assert lost(best_of_n(asked, same)).reason == "identical"
    assert lost(best_of_n(asked, candidates(asked, [2]))).reason == "too_few_completions"
    row = won(best_of_n(asked, candidates(asked, [2]), ALONE))
    assert (row.n, row.winner, row.completion.model) == (1, 0, "m0")


def test_the_round_is_that_of_the_winner():
    asked = prompt()
    first, second = candidates(asked, [3, 4])
    late = Candidate(second.completion, second.score, round=2)
    assert won(best_of_n(asked, [first, late])).round == 2


@pytest.mark.parametrize(("field", "value"), [("ties", "first"), ("stop_gain", 0), ("min_completions", 0)])
def test_settings_that_mean_nothing_are_refused(field: str, value: object):
    with pytest.raises(ValueError, match=field):
        BestOfN.model_validate({field: value})
