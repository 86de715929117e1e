"""A jury's score exists only where its members' scores do."""

from typing import Any

import pytest
from pydantic import ValidationError

from judges import Jury, Rating, Rules
from judges.jury import combine
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
