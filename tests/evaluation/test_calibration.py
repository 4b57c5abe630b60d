import numpy as np
import pytest

from flipnet.evaluation.calibration import BINS, calibrate, plot_reliability
from flipnet.types import FlipnetError

SIZE = 128


def ideal(seed, sigma):
    """A face whose samples and truth are all drawn alike around one mean, with spread `sigma` at each pixel."""
    rng = np.random.default_rng(seed)
    mean = rng.uniform(100, 150, (SIZE, SIZE, 3))
    draw = [(mean + rng.normal(size=mean.shape) * sigma[..., None]).round().clip(0, 255) for _ in range(2)]
    return sigma, draw[0].astype(np.uint8), draw[1].astype(np.uint8)


@pytest.fixture
def faces():
    x = np.linspace(2, 16, SIZE)
    return [ideal(seed, np.tile(x * (1 + seed / 4), (SIZE, 1))) for seed in range(3)]


def test_an_ideal_sampler_lies_on_the_line_of_samples(faces):
    found = calibrate(*zip(*faces, strict=True))
    assert found.faces == 3
    assert found.ratio == pytest.approx(np.sqrt(2), rel=0.03)
    assert len(found.bins) == BINS
    for one in found.bins:
        assert one.error == pytest.approx(np.sqrt(2) * one.spread, rel=0.1)
    spreads = [one.spread for one in found.bins]
    assert spreads == sorted(spreads)
    assert found.spearman > 0.6
    assert found.between_faces == 1


def test_a_map_that_says_nothing_has_no_correlation(faces):
    rng = np.random.default_rng(9)
    blind = [rng.permutation(spread.ravel()).reshape(spread.shape) for spread, _, _ in faces]
    found = calibrate(blind, [f[1] for f in faces], [f[2] for f in faces])
    assert abs(found.spearman) < 0.1
    errors = [one.error for one in found.bins]
    assert max(errors) < 1.5 * min(errors)


def test_too_sure_means_a_larger_ratio(faces):
    found = calibrate([f[0] / 4 for f in faces], [f[1] for f in faces], [f[2] for f in faces])
    assert found.ratio == pytest.approx(4 * np.sqrt(2), rel=0.03)


def test_no_spread_at_all():
    face = np.zeros((SIZE, SIZE, 3), np.uint8)
    found = calibrate([np.zeros((SIZE, SIZE))], [face], [face + 3])
    assert np.isnan(found.spearman)
    assert found.ratio == float("inf")
    assert found.between_faces is None


def test_the_plot_is_a_picture(faces):
    pytest.importorskip("matplotlib", reason="matplotlib (extra 'evaluation') is not installed")
    picture = plot_reliability(calibrate(*zip(*faces, strict=True)))
    assert picture.shape == (540, 720, 3)
    assert picture.std() > 10


def test_misfits_are_refused(faces):
    spread, face, truth = faces[0]
    for arguments in (([], [], []), ([spread], [face], []), ([spread[:-1]], [face], [truth])):
        with pytest.raises(FlipnetError):
            calibrate(*arguments)
    with pytest.raises(FlipnetError, match="negative or not finite"):
        calibrate([-spread], [face], [truth])
