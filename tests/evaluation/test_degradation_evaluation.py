import numpy as np
import pytest

from flipnet.evaluation.degradation import MIN_IMAGES, REAL, compare_with_real
from flipnet.evaluation.scene_statistics import FEATURE_NAMES
from flipnet.types import FlipnetError

MIXING = np.random.default_rng(5).normal(size=(4, len(FEATURE_NAMES)))


def features(count, seed, low=0.0, high=1.0, shift=0.0):
    """Points of a cube in four dimensions, its first side from `low` to `high`, seen as features."""
    points = np.random.default_rng(seed).uniform(size=(count, 4))
    points[:, 0] = low + (high - low) * points[:, 0]
    return (points + shift) @ MIXING


@pytest.fixture(scope="module")
def comparison():
    methods = {
        "same": features(120, 1),
        "lower": features(120, 2, high=0.5),
        "upper": features(200, 3, low=0.5),
        "elsewhere": features(120, 4, shift=3.0),
    }
    return compare_with_real(features(200, 0), methods, {"both": ("lower", "upper")}, repetitions=8)


def row(comparison, name):
    return next(row for row in comparison.rows if row.name == name)


def test_rows_and_counts(comparison):
    assert [row.name for row in comparison.rows] == [REAL, "same", "lower", "upper", "elsewhere", "both"]
    assert (comparison.reference_images, comparison.drawn_images) == (100, 100)
    assert [row.images for row in comparison.rows] == [200, 120, 120, 200, 120, 320]
    assert row(comparison, "both").members == ("lower", "upper")
    assert row(comparison, REAL).recall_all is None


def test_as_good_as_real_is_what_real_against_real_gives(comparison):
    real, same = row(comparison, REAL), row(comparison, "same")
    for name in ("frechet", "precision", "recall", "density", "coverage"):
        floor, value = getattr(real, name), getattr(same, name)
        assert abs(value.mean - floor.mean) < 3 * (floor.deviation + value.deviation)
    assert real.coverage.mean > 0.9


def test_half_of_the_kinds_is_half_the_coverage_and_the_union_is_whole(comparison):
    lower, both, real = (row(comparison, name) for name in ("lower", "both", REAL))
    assert 0.4 < lower.coverage.mean < 0.75
    assert lower.precision.mean > 0.8
    assert lower.frechet.mean > 3 * real.frechet.mean
    assert abs(both.coverage.mean - real.coverage.mean) < 0.05
    assert both.frechet.mean < 0.5 * lower.frechet.mean
    assert both.coverage_all > lower.coverage_all + 0.2


def test_what_is_elsewhere_has_nothing_in_common(comparison):
    elsewhere = row(comparison, "elsewhere")
    assert elsewhere.precision.mean == elsewhere.coverage.mean == elsewhere.density.mean == 0
    assert elsewhere.coverage_all == elsewhere.recall_all == 0


def test_the_same_seed_gives_the_same_numbers():
    real, methods = features(60, 0), {"a": features(40, 1), "b": features(30, 2)}
    first, again, other = (compare_with_real(real, methods, seed=seed, repetitions=3) for seed in (0, 0, 1))
    assert first.rows == again.rows
    assert first.rows != other.rows
    assert first.drawn_images == 30


def test_sets_that_are_no_use_are_named():
    real, fine = features(60, 0), features(30, 1)
    with pytest.raises(FlipnetError, match=f"set 'few' has {MIN_IMAGES - 1} faces"):
        compare_with_real(real, {"few": fine[: MIN_IMAGES - 1]})
    with pytest.raises(FlipnetError, match=f"'real' has 30 faces.*{2 * MIN_IMAGES}"):
        compare_with_real(real[:30], {"fine": fine})
    with pytest.raises(FlipnetError, match="'bad' has features that are not finite"):
        compare_with_real(real, {"bad": np.where(np.arange(len(fine))[:, None] == 3, np.nan, fine)})
    with pytest.raises(FlipnetError, match="'one' holds the same image"):
        compare_with_real(real, {"one": np.repeat(fine[:1], 30, axis=0)})


@pytest.mark.parametrize(
    ("methods", "unions", "cause"),
    [
        ((), {}, "at least one method"),
        (("real",), {}, "'real' is taken"),
        (("a", "b"), {"a": ("a", "b")}, "'a' is taken"),
        (("a", "b"), {"u": ("a", "c")}, "union 'u'.*'c' is none"),
        (("a", "b"), {"u": ("a", "a")}, "two or more different"),
    ],
)
def test_names_that_say_nothing_are_refused(methods, unions, cause):
    with pytest.raises(FlipnetError, match=cause):
        compare_with_real(features(60, 0), {name: features(30, 1) for name in methods}, unions)
