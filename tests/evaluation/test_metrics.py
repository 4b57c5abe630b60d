import numpy as np
import pytest
import skimage.data
from scipy import ndimage
from skimage.metrics import structural_similarity

from flipnet.evaluation.metrics import (
    gradient_energy,
    gradient_energy_ratio,
    ms_ssim,
    psnr,
    psnr_luma,
    psnr_matched,
    ssim,
    ssim_luma,
    studio_luma,
)
from flipnet.types import FlipnetError


def picture(seed=0, size=64):
    return np.random.default_rng(seed).integers(40, 200, (size, size, 3), dtype=np.uint8)


def flat(level):
    return np.full((32, 32, 3), level, np.uint8)


# 20 log10(255 / difference)
@pytest.mark.parametrize(("difference", "decibels"), [(1, 48.1308), (16, 24.0484), (255, 0.0)])
def test_psnr_of_a_constant_difference(difference, decibels):
    assert psnr(flat(0), flat(difference)) == pytest.approx(decibels, abs=1e-4)


def test_psnr_averages_over_channels_and_is_infinite_for_equal_images():
    red = flat(100)
    red[..., 0] += 3
    assert psnr(red, flat(100)) == pytest.approx(10 * np.log10(255**2 / 3))
    assert psnr(red, red) == float("inf")


def test_ssim_of_flat_images_is_the_luminance_term():
    stabiliser = (0.01 * 255) ** 2
    expected = (2 * 100 * 120 + stabiliser) / (100**2 + 120**2 + stabiliser)
    assert ssim(flat(100), flat(120)) == pytest.approx(expected, abs=1e-6)


def test_ssim_against_its_definition():
    image, reference = picture(1), picture(2)
    x, y = image.astype(np.float64), reference.astype(np.float64)

    def window(values):
        return ndimage.gaussian_filter(values, (1.5, 1.5, 0), radius=(5, 5, 0))

    mean_x, mean_y = window(x), window(y)
    var_x, var_y = window(x * x) - mean_x**2, window(y * y) - mean_y**2
    covariance = window(x * y) - mean_x * mean_y
    c1, c2 = (0.01 * 255) ** 2, (0.03 * 255) ** 2
    index = (2 * mean_x * mean_y + c1) * (2 * covariance + c2)
    index /= (mean_x**2 + mean_y**2 + c1) * (var_x + var_y + c2)
    assert ssim(image, reference) == pytest.approx(index[5:-5, 5:-5].mean(), abs=1e-6)


def test_ssim_ends():
    image = picture()
    assert ssim(image, image) == pytest.approx(1)
    assert ssim(255 - image, image) < 0


def test_gradient_energy_of_a_ramp():
    ramp = np.repeat(np.arange(0, 64, 2, dtype=np.uint8)[None, :, None], 32, axis=0).repeat(3, axis=2)
    assert gradient_energy(ramp) == pytest.approx(4, rel=1e-5)
    assert gradient_energy(ramp.transpose(1, 0, 2)) == pytest.approx(4, rel=1e-5)


def test_gradient_ratio_of_half_contrast_blur_and_noise():
    reference = 2 * (picture() // 2)
    assert gradient_energy_ratio(reference // 2, reference) == pytest.approx(0.25, rel=1e-5)
    assert gradient_energy_ratio(reference, reference) == 1
    blurred = ndimage.gaussian_filter(reference, (2, 2, 0))
    assert gradient_energy_ratio(blurred, reference) < 0.1
    assert gradient_energy_ratio(reference, blurred) > 10


@pytest.mark.parametrize(
    "metric", [psnr, psnr_luma, psnr_matched, ssim, ssim_luma, ms_ssim, gradient_energy_ratio]
)
def test_unlike_images_are_refused(metric):
    with pytest.raises(FlipnetError, match="one size"):
        metric(picture(size=64), picture(size=32))
    with pytest.raises(FlipnetError, match="uint8"):
        metric(picture().astype(np.float32), picture())


def test_what_cannot_be_measured_is_refused():
    with pytest.raises(FlipnetError, match="not flat"):
        gradient_energy_ratio(picture(size=32), flat(3))
    with pytest.raises(FlipnetError, match="11 px"):
        ssim(picture(size=10), picture(size=10))


def astronaut(sigma=0.0):
    """The scikit-image sample, 512 x 512, blurred."""
    levels = ndimage.gaussian_filter(skimage.data.astronaut().astype(float), (sigma, sigma, 0))
    return np.rint(levels).astype(np.uint8)


# torchmetrics 1.9.0, multiscale_structural_similarity_index_measure(data_range=255.0), float64.
@pytest.mark.parametrize(("sigma", "expected"), [(1, 0.98920369), (3, 0.90589456)])
def test_ms_ssim_equals_torchmetrics(sigma, expected):
    assert ms_ssim(astronaut(sigma), astronaut()) == pytest.approx(expected, abs=3e-5)


def test_ms_ssim_ends_and_smallest_size():
    image = astronaut()
    assert ms_ssim(image, image) == pytest.approx(1)
    assert ms_ssim(255 - image, image) == 0
    with pytest.raises(FlipnetError, match="176 px"):
        ms_ssim(image[:175], image[:175])


def test_luma_metrics_see_luma_only():
    # Y = (65.481 R + 128.553 G + 24.966 B) / 255 + 16: MATLAB's rgb2ycbcr of pure colours.
    colours = np.array([[[255, 255, 255], [0, 0, 0], [255, 0, 0]]], np.uint8)
    np.testing.assert_allclose(studio_luma(colours), [[235, 16, 81.481]])
    assert psnr_luma(flat(0), flat(255)) == pytest.approx(20 * np.log10(255 / 219))
    assert psnr_luma(flat(7), flat(7)) == float("inf")
    assert ssim_luma(picture(), picture()) == pytest.approx(1)


def test_ssim_luma_equals_scikit_image():
    image, reference = picture(1), picture(2)
    expected = structural_similarity(
        studio_luma(image), studio_luma(reference), data_range=255, gaussian_weights=True, sigma=1.5,
        use_sample_covariance=False,
    )  # fmt: skip
    assert ssim_luma(image, reference) == pytest.approx(expected, abs=1e-9)


def test_matching_forgives_contrast_and_colour_cast_but_not_blur():
    reference = (picture() // 2) * 2
    changed = reference // 2 + np.array([20, 40, 60], np.uint8)
    assert psnr(changed, reference) < 25
    assert psnr_matched(changed, reference) > 100
    blurred = ndimage.gaussian_filter(reference, (2, 2, 0))
    assert psnr_matched(blurred, reference) < 25
    assert np.isfinite(psnr_matched(flat(3), picture(size=32)))
