"""A jury's score exists only where its members' scores do."""

from typing import Any

import pytest
from pydantic import ValidationError

from judges import Jury, Pairwise, Rating, Rules
from judges.jury import Agreement, combine, combine_prompt, leave_one_out
from records.schema import Judgement

JURY = Jury(members=(Rules(), Rating(model="j")), weights={"rules": 3})


def judgement(
    judge: str, score: float | None, status: Any = "ok", low: float = 0, high: float = 1, **more: Any
) -> Judgement:
    return Judgement(
        id=judge,
        prompt_id="p",
        completion_id="c",
        judge=judge,
        aspect=more.pop("aspect", "a"),
        status=status,
        score=score,
        low=low,
        high=high,
        fingerprint="f",
        **more,
    )


def test_scales_are_moved_to_the_unit_before_they_are_weighed():
    score = combine([judgement("rules", 1.0), judgement("rating", 3.0, low=1, high=5)], JURY)
    assert score.value == pytest.approx((3 * 1.0 + 1 * 0.5) / 4)


def test_a_failed_member_leaves_the_completion_unjudged_not_average():
    score = combine([judgement("rules", 1.0), judgement("rating", None, "off_scale", 1, 5)], JURY)
    assert score.value is None
    assert score.why == "no_quorum: rating: off_scale"


def test_a_missing_judgement_is_a_failure_too():
    assert combine([judgement("rules", 1.0)], JURY).why == "no_quorum: rating: missing"


def test_with_a_quorum_the_others_decide():
    jury = JURY.model_copy(update={"quorum": 1})
    assert combine([judgement("rules", 0.25), judgement("rating", None, "refused", 1, 5)], jury).value == 0.25


def test_a_member_that_does_not_apply_is_set_aside():
    score = combine(
        [judgement("rules", None, "not_applicable"), judgement("rating", 5.0, low=1, high=5)], JURY
    )
    assert score.value == 1.0


def test_aspects_are_averaged_and_one_failed_aspect_is_no_score():
    both = [
        judgement("rating", s, low=1, high=5, aspect=a) for s, a in ((5.0, "helpfulness"), (3.0, "honesty"))
    ]
    jury = Jury(members=(Rating(model="j", aspects=("helpfulness", "honesty")),))
    assert combine(both, jury).value == pytest.approx(0.75)
    assert (
        combine([both[0], judgement("rating", None, "parse_error", 1, 5, aspect="honesty")], jury).value
        is None
    )


def test_an_aspect_that_was_never_judged_is_not_left_out_of_the_mean():
    jury = Jury(members=(Rating(model="j", aspects=("helpfulness", "honesty")),))
    one = judgement("rating", 5.0, low=1, high=5, aspect="helpfulness")
    assert combine([one], jury) == (None, None, "rating: missing")
    none = judgement("rating", None, "not_applicable", 1, 5, aspect="honesty")
    assert combine([none], jury).why == "rating: missing"
    assert combine([one, none], jury).value == 1.0


def test_the_judges_noise_is_carried_to_the_score():
    score = combine([judgement("rules", 1.0), judgement("rating", 3.0, low=1, high=5, spread=1.0)], JURY)
    assert score.spread == pytest.approx(0.25 / 4)


@pytest.mark.parametrize(
    ("fields", "said"),
    [
        ({"weights": {"ruls": 1}}, "'ruls': 1.0 must be above 0 for one of the members"),
        ({"weights": {"rules": 0}}, "must be above 0"),
        ({"quorum": 3}, "quorum=3 is more than the 2 members"),
    ],
)
def test_a_jury_that_cannot_mean_what_it_says_is_refused(fields: dict[str, Any], said: str):
    with pytest.raises(ValidationError, match=said):
        Jury(members=(Rules(), Rating(model="j")), **fields)
    with pytest.raises(ValidationError, match="same name"):
        Jury(members=(Rules(), Rules()))


RATING = Rating(model="j")
BOTH = Jury(members=(RATING, Pairwise(model="j")), standardise="prompt")


def ratings(**scores: float | None) -> dict[str, list[Judgement]]:
    return {
        id: [judgement("rating", score, "ok" if score is not None else "parse_error", 1, 5)]
        for id, score in scores.items()
    }


def test_a_generous_and_a_strict_member_count_alike_when_standardised():
    judged = ratings(a=4.8, b=4.9, c=5.0)
    for id, score in (("a", 0.2), ("b", 0.2), ("c", 0.8)):
        judged[id].append(judgement("pairwise", score))
    found = combine_prompt(judged, BOTH)
    z = (3 / 2) ** 0.5
    assert found["a"].value == pytest.approx((-z - 2**-0.5) / 2)
    assert found["c"].value == pytest.approx((z + 2**0.5) / 2)


def test_a_member_that_makes_no_difference_adds_none_when_standardised():
    jury = Jury(members=(RATING,), standardise="prompt")
    found = combine_prompt(ratings(a=0.1 + 0.2 + 1, b=1.3, c=1.3), jury)
    assert [score.value for score in found.values()] == [0, 0, 0], "rounding is no preference"
    assert combine_prompt(ratings(a=4.0), jury)["a"].value == 0, "nobody to differ from"


def test_a_failed_judgement_stays_none_when_standardised_and_moves_no_mean():
    jury = Jury(members=(RATING,), standardise="prompt")
    found = combine_prompt(ratings(a=5.0, b=None, c=1.0), jury)
    assert (found["a"].value, found["b"].value, found["c"].value) == (1, None, -1)
    assert found["b"].why == "rating: parse_error"


def test_spread_is_standardised_with_the_score():
    judged = ratings(a=5.0, b=1.0)
    judged["a"] = [judgement("rating", 5.0, low=1, high=5, spread=1.0)]
    found = combine_prompt(judged, Jury(members=(RATING,), standardise="prompt"))
    assert found["a"].spread == pytest.approx(0.25 / 0.5)


def test_without_standardising_a_prompts_scores_are_those_of_its_completions():
    judged = ratings(a=5.0, b=2.0)
    jury = Jury(members=(RATING,))
    assert combine_prompt(judged, jury) == {id: combine(own, jury) for id, own in judged.items()}


def test_a_member_does_not_judge_what_its_own_model_wrote():
    jury = Jury(members=(RATING, Rules()), exclude_own=True, standardise="prompt")
    judged = ratings(mine=5.0, good=5.0, bad=1.0)
    for id, score in (("mine", 0.0), ("good", 1.0), ("bad", 0.5)):
        judged[id].append(judgement("rules", score))
    found = combine_prompt(judged, jury, {"rating": ["mine"]})
    assert found["mine"].value == pytest.approx(-((3 / 2) ** 0.5)), "rules alone, as far below their mean"
    assert found["good"].value == pytest.approx((1 + (3 / 2) ** 0.5) / 2), (
        "rating compares good and bad alone"
    )
    found = combine_prompt(judged, jury.model_copy(update={"exclude_own": False}), {"rating": ["mine"]})
    assert (found["mine"].value or -1.0) > -0.5
    alone = Jury(members=(RATING,), exclude_own=True)
    assert combine_prompt(ratings(mine=5.0), alone, {"rating": ["mine"]})["mine"].why == "no judge applies"


def test_leaving_a_member_out_of_a_mean_of_other_scales_is_refused():
    """A generous rating left out of one answer would put it below siblings that are worse."""
    with pytest.raises(
        ValueError, match=r"exclude_own=True with standardise='none'.*set standardise: prompt"
    ):
        Jury(members=(RATING, Rules()), exclude_own=True)


def test_a_juror_that_stands_alone_is_seen_without_labels():
    members = tuple(Rating(model="j", name=name) for name in ("one", "two", "odd"))
    scores = {"a": (5, 4, 1), "b": (3, 3, 3), "c": (1, 2, 5)}
    judged = {
        id: [judgement(m.name, s, low=1, high=5) for m, s in zip(members, own, strict=True)]
        for id, own in scores.items()
    }
    found = leave_one_out([judged, judged], Jury(members=members))
    assert found["odd"] == Agreement(0, 6, 0)
    assert found["one"].rate is None, "the other two cancel out exactly"
    two = leave_one_out([judged], Jury(members=members[:2]))
    assert two["one"].rate == two["two"].rate == 1.0
