import numpy as np
import pytest
from scipy.spatial.distance import pdist

from flipnet.evaluation.feature_space import MAX_DIMENSIONS, fit_space
from flipnet.evaluation.scene_statistics import FEATURE_NAMES
from flipnet.types import FlipnetError

D = len(FEATURE_NAMES)
CHROMA = FEATURE_NAMES.index("chroma")


@pytest.fixture
def sets():
    rng = np.random.default_rng(0)
    mixing = rng.normal(size=(6, D))
    return [rng.normal(size=(n, 6)) @ mixing + rng.normal(size=D) for n in (30, 50)]


def test_units_of_features_do_not_matter(sets):
    units = np.random.default_rng(1).uniform(1, 10, D)
    before = pdist(fit_space(sets).project(sets[0]))
    scaled = [features * units + 3 for features in sets]
    np.testing.assert_allclose(pdist(fit_space(scaled).project(scaled[0])), before, rtol=1e-6)


def test_every_set_counts_the_same(sets):
    before = pdist(fit_space(sets).project(sets[1]))
    many = [np.tile(sets[0], (7, 1)), sets[1]]
    np.testing.assert_allclose(pdist(fit_space(many).project(sets[1])), before, rtol=1e-6)


def test_colour_counts_only_when_asked(sets):
    gray = [features.copy() for features in sets]
    for features in gray:
        features[:, CHROMA] = np.random.default_rng(2).normal(size=len(features))
    plain, other = (pdist(fit_space(s).project(s[0])) for s in (sets, gray))
    np.testing.assert_allclose(other, plain, rtol=1e-6)
    assert not np.allclose(pdist(fit_space(gray, colour=True).project(gray[0])), plain, rtol=1e-3)


def test_dimensions_are_as_many_as_needed_and_no_more(sets):
    space = fit_space(sets)
    assert 3 <= space.dimensions <= 7
    assert space.kept_variance >= 0.98
    rng = np.random.default_rng(0)
    assert fit_space([rng.normal(size=(500, D))]).dimensions == MAX_DIMENSIONS


def test_equal_images_are_refused():
    with pytest.raises(FlipnetError, match="nothing to compare"):
        fit_space([np.ones((30, D))])
