"""Metrics on numbers worked by hand."""

import random

import pytest

from judges.agreement import (
    Compared,
    Side,
    agreement,
    coin,
    compare,
    first_wins,
    kappa,
    longer_wins,
    mcnemar,
)
from judges.bias import for_first, for_lists, for_longer, for_own, has_list, length_slope
from judges.compared import EQUAL, side
from judges.jury import Score
from judges.orders import Twice, orders
from judges.scores import by_margin, calibration, chance_first_is_better, spread
from records.stats import estimate, mean, share, wilson


def pairs(*said: tuple[Side, Side | None]) -> list[Compared]:
    return [Compared(str(i), gold, judged, ("ab", "a")) for i, (gold, judged) in enumerate(said)]


def test_a_failure_is_wrong_in_one_figure_and_left_out_of_the_other():
    found = agreement(
        pairs(("first", "first"), ("second", None), ("tie", "tie"), ("first", "tie"), ("second", "first"))
    )
    assert (found.n, found.failed) == (5, 1)
    assert found.accuracy and found.accuracy.value == 2 / 5
    assert found.accuracy_judged and found.accuracy_judged.value == 2 / 4
    assert found.decided and found.decided.value == 1 / 4
    assert found.decided_judged and found.decided_judged.value == 1 / 3
    assert found.decided_only and found.decided_only.value == 1 / 2


def test_kappa_by_hand():
    """Both say first 3 of 4 times, agree on 2: po 1/2, pe 9/16 + 1/16 = 10/16, kappa (8 - 10) / 6 = -1/3."""
    gold: list[Side] = ["first", "first", "first", "second"]
    judged: list[Side | None] = ["first", "first", "second", "first"]
    found = kappa(gold, judged, list("abcd"))
    assert found and found.value == pytest.approx(-1 / 3)
    assert kappa(["first", "first"], ["first", "first"], ["a", "b"]) is None, "nothing to agree on by chance"


def test_nothing_judged_has_no_figure_and_is_no_zero():
    found = agreement(pairs(("first", None), ("second", None)))
    assert found.accuracy and found.accuracy.value == 0
    assert found.accuracy_judged is None and found.decided_only is None and found.ties is None


def test_intervals_are_over_prompts_so_repeated_rows_of_one_prompt_do_not_narrow_them():
    dice = random.Random(1)
    flags = [dice.random() < 0.6 for _ in range(60)]
    once = share(flags, list(range(60)))
    often = share([flag for flag in flags for _ in range(20)], [i for i in range(60) for _ in range(20)])
    assert once and often and often.n == 1200
    assert often.high - often.low == pytest.approx(once.high - once.low, rel=0.15)


def test_the_bootstrap_interval_of_a_rate_is_wilsons_about():
    flags = [i % 5 < 3 for i in range(200)]
    boot, exact = mean([float(flag) for flag in flags], list(range(200))), wilson(120, 200)
    assert boot and exact
    assert (boot.low, boot.high) == pytest.approx((exact.low, exact.high), abs=0.015)


def test_one_prompt_alone_has_no_interval_and_so_no_figure():
    assert mean([1.0, 0.0], ["same", "same"]) is None
    assert estimate([], [], lambda sums: sums[:, 0]) is None


def test_two_judges_are_compared_on_the_pairs_where_they_differ():
    """4 to 1: p = 2 (C(5,0) + C(5,1)) / 32 = 12 / 32."""
    a: tuple[Side, Side] = ("first", "first")
    b: tuple[Side, Side] = ("first", "second")
    gold, other = pairs(a, a, a, a, a, b), pairs(b, b, b, b, a, a)
    found = compare(gold, other)
    assert (found.only_first, found.only_second, found.p) == (4, 1, pytest.approx(12 / 32))
    assert found.difference and found.difference.value == pytest.approx(3 / 6)
    assert mcnemar(0, 0) == 1.0 and mcnemar(10, 0) == pytest.approx(2 / 1024)


def test_orders_are_told_apart():
    def twice(forward: Side | None, backward: Side | None) -> Twice:
        return Twice(f"{forward}{backward}", "first", forward, backward)

    found = orders(
        [
            twice("first", "second"),
            twice("second", "first"),
            twice("tie", "tie"),
            twice("first", "first"),
            twice("second", "second"),
            twice("tie", "first"),
            twice(None, "first"),
        ]
    )
    assert (found.same_winner, found.same_winner_right, found.both_tie) == (2, 1, 1)
    assert (found.first_twice, found.second_twice, found.tie_and_winner, found.failed) == (1, 1, 1, 1)
    assert found.consistent and (found.consistent.value, found.consistent.n) == (0.5, 6)


def test_baselines_know_only_length_and_place():
    own = [Compared("a", "first", None, ("long", "s")), Compared("b", "second", None, ("x", "y"))]
    assert [pair.judged for pair in longer_wins(own)] == ["first", "tie"]
    assert [pair.judged for pair in first_wins(own)] == ["first", "first"]
    many = [Compared(str(i), "first", None) for i in range(400)]
    guessed = agreement(coin(many)).decided
    assert guessed and guessed.low < 0.5 < guessed.high


def test_a_preference_is_what_exceeds_that_of_people():
    """The longer wins 3 of 4 for the judge and 1 of 4 for people: +0.5."""
    gold: list[Side] = ["first", "second", "second", "second"]
    judged: list[Side] = ["first", "first", "first", "second"]
    own = [
        Compared(str(i), g, j, ("long\n- a\n- b", "s"), ("me", "other"))
        for i, (g, j) in enumerate(zip(gold, judged, strict=True))
    ]
    for found in (for_longer(own), for_lists(own), for_first(own), for_own(own, ["org/Me"])):
        assert found and found.judge and found.people and found.excess
        assert (found.judge.value, found.people.value, found.excess.value) == (0.75, 0.25, 0.5)
    assert for_own(pairs(("first", "first")), ["me"]) is None
    assert has_list("1. a\n2) b") and not has_list("- one line\nthen text")


def test_the_length_slope_finds_a_judge_that_counts_letters_and_clears_one_that_does_not():
    dice = random.Random(3)

    def built(by_length: bool) -> list[Compared]:
        made = []
        for i in range(300):
            texts = ("x" * dice.randint(1, 200), "x" * dice.randint(1, 200))
            gold: Side = dice.choice(("first", "second"))
            longer: Side = "first" if len(texts[0]) > len(texts[1]) else "second"
            made.append(Compared(str(i), gold, longer if by_length else gold, texts))
        return made

    biased, fair = length_slope(built(True)), length_slope(built(False))
    assert biased and biased.low > 0.5
    assert fair and abs(fair.value) < 1e-6
    assert length_slope(pairs(("first", None))) is None


def test_saturated_scores_are_seen():
    """Units 1, 1 | 1, 0.75: marks 5, 5, 5, 4; all at the top two; one of two prompts ties for best."""
    found = spread([[1.0, 1.0], [1.0, 0.75]])
    assert found.top_two and found.top_two.value == 1
    assert found.tied_for_best and found.tied_for_best.value == 0.5
    assert found.distinct and found.distinct.value == 1.5
    assert found.entropy and found.entropy.value == pytest.approx(0.8113, abs=1e-4)


def test_a_coin_is_half_sure_and_a_sure_judge_that_errs_is_badly_calibrated():
    assert chance_first_is_better(Score(0.5, 0.1, ""), Score(0.5, 0.1, "")) == 0.5
    assert chance_first_is_better(Score(0.9, 0.0, ""), Score(0.1, 0.0, "")) == 1.0
    assert chance_first_is_better(Score(0.9, None, ""), Score(0.1, 0.1, "")) is None
    assert chance_first_is_better(Score(None, None, "x"), Score(0.1, 0.1, "")) is None
    sure = [Compared(str(i), "first" if i % 2 else "second", "first", p_first=1.0) for i in range(20)]
    found = calibration(sure)
    assert found and found.ece and found.brier
    assert (found.ece.value, found.brier.value) == (pytest.approx(0.5), pytest.approx(0.5))
    (bin,) = found.bins
    assert (bin.low, bin.high, bin.right.value) == (pytest.approx(0.95), pytest.approx(1.0), 0.5)
    assert calibration(pairs(("first", "first"))) is None


def test_a_margin_leaves_fewer_pairs_and_a_tie_is_within_it():
    own = [
        Compared("a", "first", "first", gap=0.3),
        Compared("b", "second", "first", gap=0.05),
        Compared("c", "tie", "first", gap=0.2),
        Compared("d", "first", None),
    ]
    none, some = by_margin(own, (0.0, 0.1))
    assert none.usable and some.usable and (none.usable.value, some.usable.value) == (0.75, 0.5)
    assert none.right and some.right and (none.right.value, some.right.value) == (0.5, 1.0)
    assert [side(gap, 0.1) for gap in (0.1, 0.11, -0.2, None)] == ["tie", "first", "second", None]
    assert side(EQUAL / 2, 0.0) == "tie"
