import numpy as np
import pytest
from scipy.linalg import sqrtm

from flipnet.evaluation.distributions import (
    density_coverage,
    frechet_distance,
    frechet_of_gaussians,
    kernel_distance,
    precision_recall,
)
from flipnet.types import FlipnetError

# On a line, with k = 1: the real balls are [-1, 1], [0, 2], [1, 3], [2, 18]; the others' are
# [-4, 5], [0.5, 9.5], [19, 21], [20, 22].
REAL = np.array([[0.0], [1.0], [2.0], [10.0]])
OTHER = np.array([[0.5], [5.0], [20.0], [21.0]])


def test_precision_and_recall_by_hand():
    # 0.5 and 5 lie in real balls; 0, 1 and 2 lie in the others' balls, 10 in none.
    assert precision_recall(REAL, OTHER, neighbours=1) == (0.5, 0.75)


def test_density_and_coverage_by_hand():
    # 0.5 lies in two balls and 5 in one: 3 of 4 points; the balls of 0, 1 and 10 hold a point.
    assert density_coverage(REAL, OTHER, neighbours=1) == (0.75, 0.75)


def test_second_neighbours_by_hand():
    # k = 2: real radii 2, 1, 2, 9, so 20 and 21 stay outside; 0.5 lies in three balls, 5 in that of 10 only.
    assert density_coverage(REAL, OTHER, neighbours=2) == (pytest.approx((3 + 1) / (2 * 4)), 1.0)
    # The others' radii are 19.5, 15, 15, 16: every real point lies within.
    assert precision_recall(REAL, OTHER, neighbours=2) == (0.5, 1.0)


def test_a_stray_point_inflates_recall_and_not_coverage():
    rng = np.random.default_rng(0)
    real = rng.normal(size=(200, 2))
    far = np.concatenate([rng.normal(6, 0.1, size=(20, 2)), rng.normal(-30, 30, size=(20, 2))])
    assert precision_recall(real, far)[1] > 0.9
    assert density_coverage(real, far)[1] < 0.2


def test_equal_sets_are_perfect_and_distant_ones_share_nothing():
    points = np.random.default_rng(0).normal(size=(40, 3))
    assert precision_recall(points, points) == (1, 1)
    assert density_coverage(points, points)[1] == 1
    assert frechet_distance(points, points) == pytest.approx(0, abs=1e-9)
    assert precision_recall(points, points + 100) == (0, 0)
    assert density_coverage(points, points + 100) == (0, 0)


def test_frechet_in_one_dimension_by_hand():
    # Means 0 and 4, variances (over N - 1) 2 and 8: 16 + (√2 - √8)² = 16 + 2.
    assert frechet_distance(np.array([[-1.0], [1.0]]), np.array([[2.0], [6.0]])) == pytest.approx(18)


def test_frechet_against_the_closed_form_of_diagonal_gaussians():
    rng = np.random.default_rng(0)
    turn = np.linalg.qr(rng.normal(size=(4, 4)))[0]
    a, b, shift = np.array([4.0, 1, 9, 0]), np.array([1.0, 1, 4, 25]), np.array([1.0, 0, 2, 0])
    expected = 5 + ((np.sqrt(a) - np.sqrt(b)) ** 2).sum()  # 5 + 1 + 0 + 1 + 25
    assert expected == 32
    spread = [turn @ np.diag(v) @ turn.T for v in (a, b)]
    assert frechet_of_gaussians(np.zeros(4), spread[0], turn @ shift, spread[1]) == pytest.approx(32)
    samples = [rng.normal(size=(200_000, 4)) * np.sqrt(v) for v in (a, b)]
    assert frechet_distance(samples[0], samples[1] + shift) == pytest.approx(32, rel=0.02)


def test_frechet_of_covariances_that_do_not_commute():
    rng = np.random.default_rng(1)
    one, two = (m @ m.T for m in rng.normal(size=(2, 5, 5)))
    expected = np.trace(one + two - 2 * sqrtm(one @ two).real)
    assert frechet_of_gaussians(np.zeros(5), one, np.zeros(5), two) == pytest.approx(expected)
    assert frechet_of_gaussians(np.zeros(5), two, np.zeros(5), one) == pytest.approx(expected)


def test_unusable_sets_are_refused():
    points = np.zeros((3, 2))
    with pytest.raises(FlipnetError, match="more than 3 points"):
        precision_recall(points, np.ones((9, 2)))
    with pytest.raises(FlipnetError, match="not finite"):
        density_coverage(np.full((9, 2), np.nan), np.ones((9, 2)))
    with pytest.raises(FlipnetError, match="2 and 3 dimensions"):
        frechet_distance(points, np.ones((9, 3)))


def test_kernel_distance_equals_torchmetrics():
    rng = np.random.default_rng(0)
    real, other = rng.normal(size=(40, 16)), rng.normal(0.3, 1.2, size=(30, 16))
    # torchmetrics 1.9.0, image.kid.poly_mmd.
    assert kernel_distance(real[:30], other) == pytest.approx(0.14165709486, abs=1e-10)


def test_kernel_distance_is_unbiased_and_symmetric():
    rng = np.random.default_rng(1)
    draws = [kernel_distance(rng.normal(size=(20, 4)), rng.normal(size=(25, 4))) for _ in range(200)]
    assert abs(np.mean(draws)) < 3 * np.std(draws) / np.sqrt(200)
    real, other = rng.normal(size=(20, 4)), rng.normal(1, 1, size=(25, 4))
    assert kernel_distance(real, other) == pytest.approx(kernel_distance(other, real))


def test_large_sets_are_drawn_down_with_the_seed(monkeypatch):
    monkeypatch.setattr("flipnet.evaluation.distributions.KERNEL_SUBSET", 50)
    rng = np.random.default_rng(2)
    real, other = rng.normal(size=(200, 4)), rng.normal(0.5, 1, size=(120, 4))
    drawn = kernel_distance(real, other, seed=3)
    assert drawn == kernel_distance(real, other, seed=3)
    assert drawn != kernel_distance(real, other, seed=4)
    monkeypatch.undo()
    assert drawn == pytest.approx(kernel_distance(real, other), rel=0.15)
