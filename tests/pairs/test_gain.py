"""What further candidates bring, against simulation and against arithmetic done by hand."""

import math
from itertools import combinations
from random import Random
from statistics import fmean

import pytest

from pairs.gain import Pool, best_of_k, expected_gain, pool_of


def test_best_of_k_is_the_mean_over_every_choice_of_k():
    scores = [0.3, 0.9, 0.1, 0.5, 0.5]
    for k in range(1, 6):
        wanted = fmean(max(chosen) for chosen in combinations(scores, k))
        assert best_of_k(scores, k) == pytest.approx(wanted)
    assert best_of_k(scores, 1) == pytest.approx(fmean(scores)) and best_of_k(scores, 5) == 0.9
    for k in (0, 6):
        with pytest.raises(ValueError, match="wanted 1 to 5"):
            best_of_k(scores, k)


def test_best_of_k_is_unbiased_where_the_plain_maximum_of_the_first_k_only_is_noisy():
    """Uniform scores: the best of 4 is 0.8 on average."""
    dice = Random(1)
    found = fmean(best_of_k([dice.random() for _ in range(12)], 4) for _ in range(4000))
    assert found == pytest.approx(4 / 5, abs=0.01)


@pytest.mark.parametrize("more", [1, 4, 16])
@pytest.mark.parametrize("best", [0.4, 0.7])
def test_the_expected_gain_is_what_simulated_samples_bring(more: int, best: float):
    """A prompt like all others, with scores from N(0.5, 0.1): a pool that is known, and no better score than 1."""
    pool = Pool(mean=0.5, within=0.01, between=0.0)
    scores = [best, 1.0 - best, 0.5, 0.5]
    squares = sum((x - 0.5) ** 2 for x in scores)
    deviation = math.sqrt((4 * 0.01 + squares) / (4 + 3))
    dice = Random(7)
    draws = [max(dice.gauss(0.5, deviation) for _ in range(more)) for _ in range(20_000)]
    top = max(scores)
    wanted = fmean(max(0.0, min(draw, 1.0) - top) for draw in draws)
    assert expected_gain(scores, more, pool, top=1.0) == pytest.approx(wanted, abs=0.002)


def test_the_gain_grows_with_the_samples_and_shrinks_with_the_best_so_far():
    pool = Pool(0.5, 0.02, 0.01)
    gains = [expected_gain([0.4, 0.6], more, pool, 1.0) for more in (1, 2, 4, 8)]
    assert gains == sorted(gains) and gains[0] > 0
    assert expected_gain([0.4, 0.9], 4, pool, 1.0) < expected_gain([0.4, 0.6], 4, pool, 1.0)


def test_a_prompt_with_the_best_score_there_is_gains_nothing():
    assert expected_gain([1.0, 0.2, 0.1], 100, Pool(0.5, 0.1, 0.1), top=1.0) == 0
    assert expected_gain([1.0, 0.2, 0.1], 100, Pool(0.5, 0.1, 0.1)) > 0, "a reward model has no best score"


def test_two_equal_scores_do_not_mean_that_all_will_be_equal():
    """A prompt's own variance of two samples is worth little; the other prompts' counts for more."""
    pool = Pool(0.5, 0.04, 0.0)
    assert expected_gain([0.5, 0.5], 4, pool, 1.0) > 0.05
    assert expected_gain([0.5] * 200, 4, pool, 1.0) < expected_gain([0.5, 0.5], 4, pool, 1.0) / 2


def test_a_prompt_whose_scores_never_differ_anywhere_gains_nothing_and_one_without_scores_everything():
    flat = pool_of([[0.5, 0.5], [0.7, 0.7]])
    assert flat is not None and expected_gain([0.7, 0.7], 8, flat, 1.0) == 0
    assert expected_gain([], 4, flat) == math.inf
    assert pool_of([[0.5], [0.2], []]) is None and expected_gain([0.5], 4, None) == math.inf


def test_the_pool_is_that_of_the_model_it_is_drawn_from():
    dice = Random(3)
    samples = []
    for _ in range(3000):
        mean = dice.gauss(2.0, 0.5)
        samples.append([dice.gauss(mean, 1.0) for _ in range(dice.choice((2, 4, 8)))])
    pool = pool_of(samples)
    assert pool is not None
    assert pool.mean == pytest.approx(2.0, abs=0.05)
    assert pool.within == pytest.approx(1.0, abs=0.05)
    assert pool.between == pytest.approx(0.25, abs=0.06)
