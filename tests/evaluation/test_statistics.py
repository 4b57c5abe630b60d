import numpy as np
import pytest
from scipy import stats

from flipnet.evaluation.statistics import estimate_mean, paired_difference


def test_the_interval_agrees_with_scipys_bootstrap():
    values = np.random.default_rng(0).gamma(2, 3, size=80)
    found = estimate_mean(values)
    expected = stats.bootstrap(
        (values,), np.mean, n_resamples=20000, method="percentile", rng=np.random.default_rng(1)
    ).confidence_interval
    assert found.mean == pytest.approx(values.mean())
    assert found.low == pytest.approx(expected.low, abs=0.12)
    assert found.high == pytest.approx(expected.high, abs=0.12)


def test_the_interval_covers_the_truth_about_as_often_as_it_says():
    rng = np.random.default_rng(2)
    hits = 0
    for _ in range(200):
        found = estimate_mean(rng.normal(5, 2, size=40))
        hits += found.low <= 5 <= found.high
    assert 180 <= hits <= 199


def test_missing_numbers_are_left_out_and_counted():
    found = estimate_mean(np.array([1.0, np.nan, 3.0]))
    assert (found.mean, found.count) == (2.0, 2)
    assert np.isnan(estimate_mean(np.array([np.nan])).mean)
    assert estimate_mean(np.array([4.0])).low is None


def test_pairing_finds_what_independent_intervals_cannot():
    rng = np.random.default_rng(3)
    difficulty = rng.normal(25, 3, size=60)
    worse, better = difficulty, difficulty + rng.normal(0.3, 0.2, size=60)
    difference, verdict = paired_difference(better, worse, "higher")
    assert verdict == "better"
    assert 0.2 < difference.low < difference.high < 0.4
    assert estimate_mean(better).low < estimate_mean(worse).high
    assert paired_difference(better, worse, "lower")[1] == "worse"


def test_verdicts():
    rng = np.random.default_rng(4)
    values = rng.normal(size=50)
    assert paired_difference(values, values, "lower")[1] == "equal"
    assert paired_difference(values, values + rng.normal(0, 1, 50), "lower")[1] == "undecided"
    assert paired_difference(np.array([1.0]), np.array([2.0]), "lower")[1] == "undecided"


def test_best_at_one_compares_distances_to_one():
    over, under = np.full(20, 1.1), np.full(20, 0.6)
    difference, verdict = paired_difference(over, under, "one")
    assert verdict == "better"
    assert difference.mean == pytest.approx(-0.3)


def test_infinite_numbers_of_equal_pictures_do_not_break_anything():
    infinite = np.full(5, np.inf)
    assert estimate_mean(infinite).mean == np.inf
    assert paired_difference(infinite, infinite, "higher")[1] == "equal"
    mixed = np.array([np.inf, 30.0, 31.0])
    assert paired_difference(mixed, np.array([np.inf, 29.0, 29.0]), "higher")[0].mean == pytest.approx(1.0)
