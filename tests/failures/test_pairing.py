"""Scores were turned into the wrong pair, or into one where there is none."""

from collections import Counter
from pathlib import Path
from typing import get_args

import pytest

from flows.inputs import store_prompts
from judges.jury import Jury, combine_prompt
from judges.rating import Rating
from pairs.best_of_n import SftRow, best_of_n
from pairs.candidates import Candidate
from pairs.policies import PairSettings, Policy, make_pairs, pair_all
from pairs.rows import pair_row
from pairs.splits import find_leaks
from records.schema import Dropped, Judgement, Pair
from records.store import Stage
from tests.pairs.examples import candidates, completion, prompt

POLICIES: tuple[Policy, ...] = get_args(Policy)


def pairs_of(made: list[Pair] | Dropped) -> list[Pair]:
    assert isinstance(made, list), made
    return made


@pytest.mark.parametrize("policy", POLICIES)
@pytest.mark.parametrize("scores", [(1.0, 5.0), (5.0, 1.0)])
def test_the_first_answer_is_chosen_whatever_the_judge_says(policy: Policy, scores: tuple[float, float]):
    """allenai/open-instruct, open_instruct/rejection_sampling/synthetic_preference_dataset.py:156: the condition for
    exchanging wants the answer to be both `0` and `1`, so the vote counts for nothing."""
    asked = prompt()
    [pair] = pairs_of(make_pairs(asked, candidates(asked, scores), PairSettings(policy=policy)))
    assert pair.chosen.model == f"m{scores.index(5.0)}" and pair.rejected.model == f"m{scores.index(1.0)}"
    assert (pair.score_chosen, pair.score_rejected) == (5.0, 1.0)


@pytest.mark.parametrize("policy", POLICIES)
def test_chosen_and_rejected_are_the_same_where_all_scores_are_equal(policy: Policy):
    """argilla-io/distilabel, steps/formatting/dpo.py:173: argmax and argmin both give index 0; so do the scripts of
    princeton-nlp/SimPO and magpie-align/magpie."""
    asked = prompt()
    made = make_pairs(asked, candidates(asked, [4, 4, 4, 4]), PairSettings(policy=policy))
    assert isinstance(made, Dropped) and made.reason == "tie"


@pytest.mark.parametrize("policy", POLICIES)
@pytest.mark.parametrize("scores", [(5, 1), (1, 5)])
def test_an_answer_is_better_than_its_own_copy(policy: Policy, scores: tuple[float, float]):
    """princeton-nlp/SimPO, on_policy_data_gen, and allenai/open-instruct drop a prompt only where all samples are
    equal; two equal ones among others become a pair."""
    asked = prompt()
    same = [
        Candidate(completion(asked, f"m{i}", text), score)
        for i, (text, score) in enumerate(zip(("Tea.", " Tea.\n"), scores, strict=True))
    ]
    other = Candidate(completion(asked, "m2", "Something else."), 3.0)
    for pair in pairs_of(make_pairs(asked, [*same, other], PairSettings(policy="all_pairs"))):
        assert "m2" in (pair.chosen.model, pair.rejected.model)
    alone = make_pairs(asked, same, PairSettings(policy=policy))
    assert isinstance(alone, Dropped) and alone.reason == "identical"


def test_a_tie_for_best_goes_to_the_first_model_in_the_list():
    """argmax, in argilla-io/distilabel, princeton-nlp/SimPO, magpie-align/magpie and UltraFeedback's binarisations:
    the first generator wins every tie. 0.001 of fair coins are further from half."""
    wins: Counter[str] = Counter()
    for i in range(1000):
        asked = prompt(f"question {i}")
        made = make_pairs(asked, candidates(asked, [5, 5, 1]), PairSettings(policy="best_vs_worst"))
        wins[pairs_of(made)[0].chosen.model] += 1
    assert abs(wins["m0"] - 500) < 53, wins


def test_a_random_rejected_is_the_first_or_second_always():
    """RLHFlow/Online-RLHF, dpo_iteration/run_dpo.py:113: `max_random` takes index 0 or 1."""
    drawn = set()
    for i in range(200):
        asked = prompt(f"question {i}")
        made = make_pairs(asked, candidates(asked, [1, 2, 3, 9, 4, 5]), PairSettings())
        drawn.add(pairs_of(made)[0].rejected.model)
    assert drawn == {"m0", "m1", "m2", "m4", "m5"}


@pytest.mark.parametrize("policy", POLICIES)
def test_an_answer_that_could_not_be_judged_is_the_worst_one(policy: Policy):
    """allenai/open-instruct, open_instruct/rejection_sampling/generation.py:134 (-1) and scripts/synth_pref (1): the
    parser's failures are the rejected answers. argilla-io/distilabel, steps/formatting/dpo.py: one None among the
    ratings raises, and the batch is None."""
    asked = prompt()
    for i in range(20):
        asked = prompt(f"question {i}")
        made = make_pairs(asked, candidates(asked, [4, None, 3, 2]), PairSettings(policy=policy))
        models = {m for pair in pairs_of(made) for m in (pair.chosen.model, pair.rejected.model)}
        assert "m1" not in models and len(models) >= 2
    best = best_of_n(asked, candidates(asked, [None, 3, 2]))
    assert isinstance(best, SftRow) and best.completion.model == "m1" and best.n == 2


def test_one_unreadable_judgement_throws_away_the_other_answers():
    """NVIDIA-NeMo/DataDesigner drops the row; allenai/open-instruct, scripts/synth_pref/create_annotation_mix.py,
    keeps only rows that every model answered; RLHFlow/Online-RLHF skips prompts with fewer than K answers."""
    asked = prompt()
    made = make_pairs(asked, candidates(asked, [4, None, 2]), PairSettings(policy="best_vs_worst"))
    assert [(p.chosen.model, p.rejected.model) for p in pairs_of(made)] == [("m0", "m2")]
    too_few = make_pairs(asked, candidates(asked, [4, None, None]), PairSettings())
    assert (
        isinstance(too_few, Dropped) and too_few.reason == "unjudged" and "m1 parse_error" in too_few.detail
    )


def test_judgements_and_answers_are_glued_together_by_their_places():
    """allenai/open-instruct, scripts/synth_pref/parse_preferences.py:110: after the first dropped row, prompts and
    answers belong to different rows. princeton-nlp/SimPO merges its seeds by place."""
    ids, scores = ["a", "b", "c"], {"a": 1.0, "b": 5.0, "c": 3.0}

    def judged(order: list[str]) -> dict[str, list[Judgement]]:
        return {
            id: [
                Judgement(
                    id=f"j-{id}", prompt_id="p", completion_id=id, judge="rating", aspect="quality", status="ok",
                    score=scores[id], low=1, high=5, fingerprint="f",
                )
            ]
            for id in order
        }  # fmt: skip

    jury = Jury(members=(Rating(model="j"),))
    whole = combine_prompt(judged(ids), jury)
    assert combine_prompt(judged(["c", "b"]), jury) == {id: whole[id] for id in ("c", "b")}
    asked, other = prompt("one"), prompt("two")
    with pytest.raises(ValueError, match=r"answers .*, not"):
        make_pairs(asked, [*candidates(asked, [5]), *candidates(other, [1])], PairSettings())


@pytest.mark.parametrize("policy", POLICIES)
def test_what_is_left_out_is_left_out_in_silence(policy: Policy):
    """meta-llama/synthetic-data-kit and magpie-align/magpie drop what they cannot parse without a record."""
    table: list[list[float | None]] = [[5, 1], [3, 3], [None, 4], [None, None], [2], []]
    cases = []
    for i, scores in enumerate(table):
        asked = prompt(f"question {i}")
        cases.append((asked, candidates(asked, scores)))
    found = pair_all(cases, PairSettings(policy=policy))
    ids = [pair.prompt.id for pair in found.pairs] + [dropped.id for dropped in found.dropped]
    assert sorted(ids) == sorted(asked.id for asked, _ in cases)
    assert [dropped.reason for dropped in found.dropped] == [
        "tie",
        "unjudged",
        "unjudged",
        *["too_few_completions"] * 2,
    ]


@pytest.mark.parametrize(("count", "size"), [(7, 8), (8, 8), (9, 8), (100, 8), (1, 500)])
def test_the_remainder_of_a_division_vanishes(count: int, size: int, tmp_path: Path):
    """RLHFlow/Online-RLHF, generation/gen_hf2.py:110: shares are cut by integer division, up to 7 prompts are
    lost."""
    prompts = [prompt(f"question {i}") for i in range(count)]
    assert list(store_prompts(Stage(tmp_path, "prompts", {}), prompts, size)) == prompts


def test_what_is_trained_on_is_evaluated_on():
    """RLHFlow/Online-RLHF evaluates on its training file."""
    asked = prompt("What is tea?")
    assert find_leaks({"train": [asked], "test": [asked]})
    assert find_leaks({"train": [asked], "test": [prompt("what is TEA")]})
    assert not find_leaks({"train": [asked], "test": [prompt("What is salt?")]})


def test_a_pair_does_not_say_which_score_it_rests_on():
    """OpenBMB/UltraFeedback and HuggingFaceH4/ultrafeedback_binarized: `overall_score` or the mean of the aspects,
    which differ on 30,000 of 63,000 prompts (argilla-io/notus)."""
    asked = prompt()
    [pair] = pairs_of(make_pairs(asked, candidates(asked, [4, 2]), PairSettings(policy="best_vs_worst")))
    row = pair_row(pair)
    assert (row["score_chosen"], row["score_rejected"], row["margin"], row["policy"]) == (
        4,
        2,
        2,
        "best_vs_worst",
    )
    assert {"chosen_model", "rejected_model", "chosen_id", "rejected_id"} <= row.keys()


def test_the_prompt_is_text_and_the_answers_are_whole_dialogues():
    """argilla-io/distilabel's formatters and HuggingFaceH4's shape: a string `prompt` beside conversations, which
    TRL since its pull request 3906 neither splits nor joins. What a trainer is given is messages everywhere, see
    tests/pairs/test_dataset_trains.py for TRL itself."""
    from pairs.rows import VIEWS

    assert VIEWS["trl"]["prompt"] == VIEWS["trl"]["chosen"] == VIEWS["trl"]["rejected"]
    assert VIEWS["trl"]["prompt"] == [("role", "string"), ("content", "string")]
