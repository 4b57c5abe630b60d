import colorsys

import numpy as np
import pytest

from flipnet.data.colour import ColourJitter, apply_jitter, luma, rotate_hue, round_to_uint8, to_grayscale

NEUTRAL = {"brightness": 1.0, "contrast": 1.0, "saturation": 1.0, "hue_turns": 0.0}
ORDER = tuple(NEUTRAL)


def jitter(levels, order=ORDER, **changes):
    return apply_jitter(levels, ColourJitter(**(NEUTRAL | changes), order=order))


@pytest.fixture
def levels():
    return np.random.default_rng(0).uniform(0, 255, (6, 5, 3)).astype(np.float32)


def test_luma_of_pure_colours():
    pure = 255 * np.eye(3, dtype=np.uint8)
    np.testing.assert_allclose(luma(pure), [76.245, 149.685, 29.07], rtol=1e-6)


def test_grayscale_keeps_dtype_and_gray_pixels():
    gray = np.full((2, 2, 3), 77, np.uint8)
    np.testing.assert_array_equal(to_grayscale(gray), gray)
    assert to_grayscale(gray.astype(np.float32)).dtype == np.float32


@pytest.mark.parametrize("turns", [-0.1, 0.07, 0.5, 1.0])
def test_hue_agrees_with_colorsys(levels, turns):
    rotated = rotate_hue(levels, turns)
    for before, after in zip(levels.reshape(-1, 3), rotated.reshape(-1, 3), strict=True):
        hue, saturation, value = colorsys.rgb_to_hsv(*(before / 255.0))
        expected = colorsys.hsv_to_rgb((hue + turns) % 1, saturation, value)
        np.testing.assert_allclose(after, np.array(expected) * 255, atol=0.01)


def test_hue_leaves_gray_alone():
    gray = np.full((2, 2, 3), 90, np.float32)
    np.testing.assert_allclose(rotate_hue(gray, 0.3), gray)


def test_neutral_jitter_changes_nothing(levels):
    np.testing.assert_allclose(jitter(levels), levels, atol=0.01)


def test_brightness_multiplies_and_clips(levels):
    np.testing.assert_allclose(jitter(levels, brightness=1.5), (1.5 * levels).clip(0, 255), atol=0.01)


def test_zero_saturation_is_gray(levels):
    np.testing.assert_allclose(jitter(levels, saturation=0.0), to_grayscale(levels), atol=0.01)


def test_contrast_scales_around_the_mean_luma(levels):
    mean = luma(levels).mean()
    np.testing.assert_allclose(jitter(levels, contrast=0.5), mean + 0.5 * (levels - mean), atol=0.01)


def test_order_matters(levels):
    changes = {"brightness": 1.5, "contrast": 0.5}
    assert np.abs(jitter(levels, **changes) - jitter(levels, ORDER[::-1], **changes)).max() > 1


def test_rounding_is_to_nearest_and_clipped():
    np.testing.assert_array_equal(round_to_uint8(np.array([-3.0, 1.4, 1.6, 300.0])), [0, 1, 2, 255])
