from pathlib import Path

import numpy as np
import pytest
from scipy import ndimage, stats

from flipnet.data.colour import to_grayscale
from flipnet.data.datasets import FaceDataset
from flipnet.data.filters import jpeg_round_trip
from flipnet.evaluation.feature_space import fit_space
from flipnet.evaluation.scene_statistics import (
    FEATURE_NAMES,
    GROUP_WEIGHTS,
    REGION_PX,
    fit_asymmetric,
    mscn,
    scene_statistics,
)
from flipnet.faces.align import TEMPLATE_512
from flipnet.types import FlipnetError

VAL = Path(__file__).parents[2] / "../shared/data/faces512/val.tar"


def value(face, name):
    return scene_statistics(face)[FEATURE_NAMES.index(name)]


def blur(face, sigma):
    return np.rint(ndimage.gaussian_filter(face.astype(np.float32), (sigma, sigma, 0))).astype(np.uint8)


def noise(face, sigma):
    added = np.random.default_rng(0).normal(0, sigma, face.shape)
    return np.rint(face + added).clip(0, 255).astype(np.uint8)


@pytest.fixture(scope="module")
def faces():
    if not VAL.exists():
        pytest.skip("the shared face shards are not present")
    dataset = FaceDataset(VAL)
    return [dataset.read(index) for index in range(0, len(dataset), 19)]


@pytest.fixture
def made():
    """A picture of soft blobs with fine texture, no face needed."""
    rng = np.random.default_rng(0)
    layers = [ndimage.gaussian_filter(rng.normal(size=(512, 512, 3)), (s, s, 0)) * s for s in (1, 4, 16, 40)]
    return (128 + 25 * sum(layers)).clip(0, 255).astype(np.uint8)


@pytest.mark.parametrize("shape", [0.5, 1.0, 2.0, 4.0])
def test_the_fit_recovers_scipys_generalised_gaussian(shape):
    samples = 3 * stats.gennorm.rvs(shape, size=(1, 200_000), random_state=0)
    fit = fit_asymmetric(samples)
    assert fit.shape[0] == pytest.approx(shape, rel=0.04)
    assert fit.left[0] == pytest.approx(3, rel=0.08)
    assert fit.right[0] == pytest.approx(3, rel=0.08)
    assert abs(fit.mean[0]) < 0.02 * samples.std()


def test_the_fit_recovers_two_scales():
    # exp(-|x|) left of zero, exp(-x / 3) right of it: a quarter of the mass lies left, the mean is -1/4 + 9/4.
    rng = np.random.default_rng(0)
    left = rng.random(400_000) < 0.25
    samples = np.where(left, -rng.exponential(1.0, 400_000), rng.exponential(3.0, 400_000))
    fit = fit_asymmetric(samples[None])
    assert fit.shape[0] == pytest.approx(1, rel=0.03)
    assert (fit.left[0], fit.right[0]) == (pytest.approx(1, rel=0.05), pytest.approx(3, rel=0.05))
    assert fit.mean[0] == pytest.approx(2, rel=0.05)
    assert samples.mean() == pytest.approx(2, rel=0.02)


def test_mscn_takes_brightness_and_contrast_away():
    y = np.random.default_rng(0).normal(0, 40, (64, 64))
    np.testing.assert_allclose(mscn(y + 70), mscn(y), atol=1e-9)
    assert np.abs(mscn(2 * y) - mscn(y)).max() < 0.1
    np.testing.assert_array_equal(mscn(np.full((16, 16), 9.0)), 0)


def test_features_are_named_finite_and_weighted(made):
    features = scene_statistics(made)
    assert features.shape == (len(FEATURE_NAMES),) == (43,)
    assert np.isfinite(features).all()
    assert {name.split(".")[0] for name in FEATURE_NAMES} == GROUP_WEIGHTS.keys()


def test_the_region_holds_eyes_nose_and_mouth_only():
    x0, y0, x1, y1 = REGION_PX
    assert ((x0 + 40, y0 + 40) < TEMPLATE_512).all()
    assert ((x1 - 40, y1 - 40) > TEMPLATE_512).all()


def test_what_lies_outside_the_face_does_not_count(made):
    other = made.copy()
    other[:100], other[:, 460:] = 0, 255
    np.testing.assert_array_equal(scene_statistics(other), scene_statistics(made))


def test_each_feature_sees_its_own_fault(made):
    assert value(blur(made, 3), "band.0") < value(made, "band.0") - 0.3
    assert value(noise(blur(made, 3), 12), "flat.1") > value(blur(made, 3), "flat.1") + 0.5
    assert abs(value(made, "blocking")) < 0.05
    assert value(jpeg_round_trip(made, 10), "blocking") > 0.15
    gray = to_grayscale(made)
    assert value(gray, "chroma") == pytest.approx(np.log10(0.3), abs=0.01)
    assert value(made, "chroma") > 0.5


def test_blocking_needs_the_grid_where_a_jpeg_has_it(made):
    moved = np.roll(jpeg_round_trip(np.roll(made, (3, 3), axis=(0, 1)), 10), (-3, -3), axis=(0, 1))
    assert value(moved, "blocking") < value(jpeg_round_trip(made, 10), "blocking") - 0.1


@pytest.mark.parametrize("face", [np.zeros((512, 512, 3)), np.zeros((64, 64, 3), np.uint8)])
def test_other_types_and_sizes_are_refused(face):
    with pytest.raises(FlipnetError, match="uint8 512x512"):
        scene_statistics(face)


def test_a_flat_face_is_refused():
    with pytest.raises(FlipnetError, match="flat"):
        scene_statistics(np.full((512, 512, 3), 90, np.uint8))


@pytest.mark.parametrize(
    ("change", "levels"),
    [(blur, (1, 2, 4, 8)), (noise, (3, 6, 12, 24)), (jpeg_round_trip, (80, 50, 25, 10))],
)
def test_known_levels_stand_in_order_and_people_do_not_matter(faces, change, levels):
    table = np.array([[scene_statistics(change(face, level)) for face in faces] for level in levels])
    flat = table.reshape(-1, table.shape[-1])
    points = fit_space([flat]).project(table)
    direction = np.linalg.svd(points.reshape(len(flat), -1) - points.mean((0, 1)))[2][0]
    along = points @ direction
    ranks = [stats.spearmanr(range(4), along[:, person]).statistic for person in range(len(faces))]
    assert abs(np.mean(ranks)) > 0.95
    # Another person at the same level is nearer than the same person at the other end of the axis.
    others = ~np.eye(len(faces), dtype=bool)
    for level, other in ((0, 3), (3, 0)):
        people = np.linalg.norm(points[level][:, None] - points[level][None], axis=-1)
        levels_apart = np.linalg.norm(points[level] - points[other], axis=-1)
        assert (people < levels_apart[:, None])[others].mean() > 0.8
