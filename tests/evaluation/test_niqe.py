import numpy as np
import pytest
import safetensors
import skimage.data
from scipy import ndimage

from flipnet.evaluation.niqe import BUNDLED, NiqeModel, fit_model, load_model, niqe, niqe_features, save_model
from flipnet.types import FlipnetError

MODEL = NiqeModel(np.linspace(0.2, 1.2, 36), np.diag(np.linspace(0.05, 0.4, 36)))


def astronaut(sigma=0.0):
    levels = ndimage.gaussian_filter(skimage.data.astronaut().astype(float), (sigma, sigma, 0))
    return np.rint(levels).astype(np.uint8)


# BasicSR 1.4.2, metrics/niqe.py `niqe`, with the mean and covariance of MODEL in place of its own.
@pytest.mark.parametrize(("sigma", "expected"), [(0, 11.70920), (1, 11.42600), (3, 11.29887)])
def test_the_score_equals_basicsr(sigma, expected):
    assert niqe(astronaut(sigma), MODEL) == pytest.approx(expected, rel=2e-3)


@pytest.fixture(scope="module")
def faces_model():
    return load_model()


def test_more_blur_is_worse(faces_model):
    scores = [niqe(astronaut(sigma), faces_model) for sigma in (0, 1, 2, 4)]
    assert scores == sorted(scores)
    assert scores[-1] > 2 * scores[0]


def test_more_noise_is_worse(faces_model):
    rng = np.random.default_rng(0)
    noise = rng.normal(size=(512, 512, 3))
    noisy = [np.rint(astronaut() + s * noise).clip(0, 255).astype(np.uint8) for s in (0, 10, 25, 50)]
    scores = [niqe(image, faces_model) for image in noisy]
    assert scores == sorted(scores)


def test_mirroring_hardly_matters_and_colour_does_not(faces_model):
    image = astronaut()[:480, :480]
    assert niqe(image[:, ::-1], faces_model) == pytest.approx(niqe(image, faces_model), rel=0.05)
    gray = np.repeat(np.rint(image @ [0.299, 0.587, 0.114])[..., None], 3, axis=2).astype(np.uint8)
    assert niqe(gray, faces_model) == pytest.approx(niqe(image, faces_model), rel=0.05)


def test_what_is_over_after_whole_blocks_does_not_count():
    features, sharpness = niqe_features(astronaut())
    assert features.shape == (25, 36)
    assert sharpness.shape == (25,)
    same, _ = niqe_features(astronaut()[:490, :481])
    np.testing.assert_array_equal(features, same)


def test_a_model_is_fitted_to_the_sharp_blocks_and_read_back(tmp_path):
    rng = np.random.default_rng(0)
    plain = [rng.integers(0, 256, (384, 384, 3), dtype=np.uint8) for _ in range(7)]
    for image in plain:
        image[:96] = 128 + image[:96] // 32  # a row of blocks with hardly any texture
    images = [ndimage.gaussian_filter(image, (0.7, 0.7, 0)) for image in plain]
    model = fit_model(images)
    kept = []
    for image in images:
        features, sharpness = niqe_features(image)
        kept.append(features[sharpness > 0.75 * sharpness.max()])
    assert [len(features) for features in kept] == [12] * 7
    np.testing.assert_allclose(model.mean, np.concatenate(kept).mean(0))
    save_model(model, tmp_path / "model.safetensors", "noise")
    again = load_model(tmp_path / "model.safetensors")
    np.testing.assert_array_equal(again.covariance, model.covariance)
    # BasicSR's file holds the same under other names.
    np.savez(tmp_path / "params.npz", mu_pris_param=model.mean[None], cov_pris_param=model.covariance)
    np.testing.assert_array_equal(load_model(tmp_path / "params.npz").mean, model.mean)


def test_the_bundled_model_says_what_it_was_fitted_on(faces_model):
    assert np.isfinite(faces_model.covariance).all()
    assert np.linalg.eigvalsh(faces_model.covariance).min() > 0
    with safetensors.safe_open(BUNDLED, framework="numpy") as file:
        assert file.metadata() == {"fitted_on": "560 congress, 170 faker, 560 synthetic faces at 512 px"}


def test_what_cannot_be_scored_is_refused(tmp_path):
    with pytest.raises(FlipnetError, match="192 px"):
        niqe(astronaut()[:191], MODEL)
    with pytest.raises(FlipnetError, match="flat"):
        niqe(np.full((256, 256, 3), 90, np.uint8), MODEL)
    with pytest.raises(FlipnetError, match="uint8"):
        niqe(astronaut().astype(float), MODEL)
    with pytest.raises(FlipnetError, match="sharp blocks"):
        fit_model([astronaut()])
    np.savez(tmp_path / "other.npz", mean=np.zeros(3))
    with pytest.raises(FlipnetError, match=r"other\.npz"):
        load_model(tmp_path / "other.npz")
