import io
import math
from dataclasses import replace

import numpy as np
import pytest
import torch
from PIL import Image
from scipy import ndimage

from flipnet.data.degradation import (
    PRESETS,
    DegradationParameters,
    DegradationRanges,
    degrade,
    degrade_with,
    gaussian_kernel,
    preset,
    sample_parameters,
)
from flipnet.data.filters import convolve, jpeg_round_trip, resize_bilinear
from flipnet.types import FlipnetError

NEUTRAL = DegradationParameters(
    blur_sigma_x_px=0.1,
    blur_sigma_y_px=0.1,
    blur_angle_rad=0.0,
    kernel_size_px=41,
    downsample=1.0,
    noise_std_levels=0.0,
    noise_seed=0,
    jpeg_quality=100,
)


def picture(height=96, width=80):
    """A smooth colourful picture with one hard edge."""
    y, x = np.mgrid[:height, :width].astype(np.float64)
    channels = [128 + 100 * np.sin(x / 9 + c) * np.cos(y / 13 - c) for c in range(3)]
    pixels = np.stack(channels, axis=2)
    pixels[height // 3 : height // 2, width // 4 : width // 2] = (200, 40, 90)
    return pixels.round().astype(np.uint8)


# Ranges as the tools' own configuration files state them; the last three are the benchmark's definition.
@pytest.mark.parametrize(
    ("name", "blur", "downsample", "noise", "jpeg", "jitter", "gray"),
    [
        ("gfpgan", (0.1, 10), (0.8, 8), (0, 20), (60, 100), 0.3, 0.01),
        ("codeformer", (1, 15), (4, 30), (0, 20), (30, 80), 0, 0),
        ("codeformer-small", (0.1, 10), (1, 12), (0, 15), (60, 100), 0, 0),
        ("difface", (0.1, 15), (0.8, 32), (0, 20), (30, 100), 0, 0.01),
        ("mild", (0.1, 6), (1, 4), (0, 10), (60, 100), 0, 0),
        ("medium", (0.1, 10), (2, 12), (0, 15), (40, 90), 0, 0),
        ("severe", (2, 15), (8, 30), (5, 20), (30, 70), 0, 0),
    ],
)
def test_preset_ranges(name, blur, downsample, noise, jpeg, jitter, gray):
    ranges = preset(name)
    assert (ranges.blur_sigma_px, ranges.downsample, ranges.noise_std_levels) == (blur, downsample, noise)
    assert (ranges.jpeg_quality, ranges.kernel_size_px, ranges.isotropic_probability) == (jpeg, 41, 0.5)
    assert ranges.jitter_probability == ranges.colour_shift_probability == jitter
    assert ranges.grayscale_probability == gray


def test_draws_stay_in_range_and_fill_it():
    ranges = PRESETS["gfpgan"]
    rng = np.random.default_rng(0)
    drawn = [sample_parameters(ranges, rng) for _ in range(2000)]
    for values, (low, high) in (
        ([p.blur_sigma_x_px for p in drawn], ranges.blur_sigma_px),
        ([p.blur_sigma_y_px for p in drawn], ranges.blur_sigma_px),
        ([p.downsample for p in drawn], ranges.downsample),
        ([p.noise_std_levels for p in drawn], ranges.noise_std_levels),
        ([p.jpeg_quality for p in drawn], ranges.jpeg_quality),
        ([p.jitter.hue_turns for p in drawn if p.jitter], ranges.jitter_hue_turns),
    ):
        span = high - low
        assert low <= min(values) < low + 0.02 * span
        assert high - 0.02 * span < max(values) <= high
    share = np.mean([p.blur_sigma_x_px == p.blur_sigma_y_px for p in drawn])
    assert share == pytest.approx(0.5, abs=0.04)
    assert np.mean([p.jitter is not None for p in drawn]) == pytest.approx(0.3, abs=0.04)
    assert np.mean([p.grayscale for p in drawn]) == pytest.approx(0.01, abs=0.008)
    assert {p.jitter.order[0] for p in drawn if p.jitter} == {
        "brightness",
        "contrast",
        "saturation",
        "hue_turns",
    }


def test_draws_of_two_recipes_correspond():
    mild, severe = (sample_parameters(PRESETS[n], np.random.default_rng(5)) for n in ("mild", "severe"))
    assert (mild.downsample - 1) / 3 == pytest.approx((severe.downsample - 8) / 22)
    assert mild.noise_seed == severe.noise_seed


@pytest.mark.parametrize(
    ("sigma_x", "sigma_y", "angle"), [(2.0, 2.0, 0.0), (3.0, 1.5, 0.6), (2.5, 1.2, -2.0)]
)
def test_kernel_moments(sigma_x, sigma_y, angle):
    kernel = gaussian_kernel(
        replace(NEUTRAL, blur_sigma_x_px=sigma_x, blur_sigma_y_px=sigma_y, blur_angle_rad=angle)
    ).astype(np.float64)
    assert kernel.shape == (41, 41)
    assert kernel.sum() == pytest.approx(1, abs=1e-6)
    y, x = np.mgrid[-20:21, -20:21]
    axis = np.array([math.cos(angle), math.sin(angle)])
    across = np.array([-math.sin(angle), math.cos(angle)])
    expected = sigma_x**2 * np.outer(axis, axis) + sigma_y**2 * np.outer(across, across)
    measured = np.array([[(kernel * p * q).sum() for q in (x, y)] for p in (x, y)])
    np.testing.assert_allclose(measured, expected, atol=2e-3)


def test_kernel_is_cut_then_normalised():
    kernel = gaussian_kernel(replace(NEUTRAL, blur_sigma_x_px=15.0, blur_sigma_y_px=15.0))
    assert kernel.sum() == pytest.approx(1, abs=1e-6)
    # At 20 px of sigma 15 the Gaussian is still at exp(-8/9) of its peak.
    assert kernel[20, 0] / kernel[20, 20] == pytest.approx(math.exp(-8 / 9), rel=1e-5)


def test_convolve_equals_direct_convolution():
    levels = picture().astype(np.float32)
    kernel = np.random.default_rng(0).random((9, 9)).astype(np.float32)  # not symmetric: pins the orientation
    expected = np.stack([ndimage.convolve(levels[..., c], kernel, mode="mirror") for c in range(3)], axis=2)
    np.testing.assert_allclose(convolve(levels, kernel), expected, rtol=1e-4)


@pytest.mark.parametrize("size", [(24, 20), (17, 33), (120, 100), (1, 1), (96, 80)])
def test_resize_convention_is_half_pixel_without_antialiasing(size):
    levels = picture().astype(np.float32)
    tensor = torch.from_numpy(levels).permute(2, 0, 1)[None]
    expected = torch.nn.functional.interpolate(tensor, size, mode="bilinear", align_corners=False)[0]
    np.testing.assert_allclose(resize_bilinear(levels, *size), expected.permute(1, 2, 0), atol=1e-2)


def test_resize_two_pixels_to_four():
    row = np.array([0, 100], np.float32).reshape(1, 2, 1)
    np.testing.assert_array_equal(resize_bilinear(row, 1, 4)[0, :, 0], [0, 25, 75, 100])


def test_degrade_follows_the_stated_order():
    """Against the same recipe put together from SciPy, torch and Pillow."""
    hq = picture(150, 130)
    parameters = replace(
        NEUTRAL,
        blur_sigma_x_px=4.0,
        blur_sigma_y_px=1.5,
        blur_angle_rad=0.8,
        downsample=3.1,
        noise_std_levels=9.0,
        noise_seed=11,
        jpeg_quality=60,
        colour_shift_levels=(10.0, -5.0, 3.0),
    )
    kernel = gaussian_kernel(parameters)
    planes = [ndimage.convolve(hq[..., c].astype(np.float32), kernel, mode="mirror") for c in range(3)]
    tensor = torch.from_numpy(np.stack(planes))[None]
    tensor = torch.nn.functional.interpolate(tensor, (48, 41), mode="bilinear", align_corners=False)
    small = tensor[0].permute(1, 2, 0).numpy()
    small = small + 9.0 * np.random.default_rng(11).standard_normal(small.shape, dtype=np.float32)
    buffer = io.BytesIO()
    Image.fromarray(small.clip(0, 255).round().astype(np.uint8)).save(buffer, "JPEG", quality=60)
    decoded = torch.from_numpy(np.array(Image.open(buffer)).astype(np.float32)).permute(2, 0, 1)[None]
    large = torch.nn.functional.interpolate(decoded, (150, 130), mode="bilinear", align_corners=False)
    shifted = large[0].permute(1, 2, 0).numpy() + np.array([10, -5, 3])
    expected = shifted.round().clip(0, 255)
    difference = np.abs(degrade(hq, parameters) - expected)
    assert difference.mean() < 0.05  # float32 in another order may move a level before JPEG


def test_neutral_parameters_change_almost_nothing():
    hq = picture()
    # JPEG at 100 still halves the resolution of colour, so brightness is what must stay.
    difference = degrade(hq, NEUTRAL).mean(axis=2) - hq.mean(axis=2)
    assert np.abs(difference).mean() < 2


def test_noise_has_the_stated_strength():
    flat = np.full((256, 256, 3), 128, np.uint8)
    green = degrade(flat, replace(NEUTRAL, noise_std_levels=10.0)).astype(np.float64)
    luma = green @ [0.299, 0.587, 0.114]
    # Independent noise per channel: luma noise is 10 * sqrt(0.299² + 0.587² + 0.114²).
    assert luma.std() == pytest.approx(10 * 0.6686, rel=0.03)
    assert luma.mean() == pytest.approx(128, abs=0.2)


def test_lower_jpeg_quality_is_worse():
    hq = picture()
    errors = [np.abs(jpeg_round_trip(hq, q).astype(int) - hq).mean() for q in (95, 60, 20)]
    assert errors == sorted(errors)
    assert errors[0] < errors[2]


def test_same_seed_same_bytes_and_input_untouched():
    hq = picture()
    before = hq.copy()
    first, parameters = degrade_with(PRESETS["gfpgan"], hq, 3)
    again, same_parameters = degrade_with(PRESETS["gfpgan"], hq, 3)
    np.testing.assert_array_equal(first, again)
    assert parameters == same_parameters
    np.testing.assert_array_equal(hq, before)
    other = degrade(hq, replace(parameters, noise_seed=parameters.noise_seed + 1))
    assert not np.array_equal(first, other)


def test_the_draws_of_a_seed_are_pinned():
    """Published benchmark numbers rest on these draws: they may not change with the code."""
    drawn = sample_parameters(PRESETS["medium"], np.random.default_rng((0, 1)))
    assert drawn == DegradationParameters(
        blur_sigma_x_px=8.908414033653528,
        blur_sigma_y_px=5.6156666970416405,
        blur_angle_rad=1.8906612703711572,
        kernel_size_px=41,
        downsample=2.586151601493544,
        noise_std_levels=3.546010429493713,
        noise_seed=1077298781,
        jpeg_quality=40,
    )


def test_every_preset_returns_the_input_size():
    hq = picture(70, 61)
    for ranges in PRESETS.values():
        lq, _ = degrade_with(ranges, hq, 1)
        assert lq.shape == hq.shape
        assert lq.dtype == np.uint8


def test_grayscale_result_is_gray():
    lq = degrade(picture(), replace(NEUTRAL, grayscale=True))
    assert (lq[..., 0] == lq[..., 1]).all()
    assert (lq[..., 0] == lq[..., 2]).all()


@pytest.mark.parametrize(
    "hq",
    [
        np.zeros((64, 64, 3), np.float32),
        np.zeros((64, 64), np.uint8),
        np.zeros((64, 64, 4), np.uint8),
        np.zeros((64, 20, 3), np.uint8),
    ],
)
def test_bad_images_are_refused(hq):
    with pytest.raises(FlipnetError, match="degrade needs"):
        degrade(hq, NEUTRAL)


@pytest.mark.parametrize(
    ("change", "named"),
    [
        ({"blur_sigma_px": (0.0, 3.0)}, "blur_sigma_px"),
        ({"downsample": (4.0, 2.0)}, "downsample"),
        ({"noise_std_levels": (-1.0, 2.0)}, "noise_std_levels"),
        ({"jpeg_quality": (50, 101)}, "jpeg_quality"),
        ({"kernel_size_px": 40}, "kernel_size_px"),
    ],
)
def test_contradictory_ranges_are_named(change, named):
    good = {
        "blur_sigma_px": (1, 2),
        "downsample": (1, 2),
        "noise_std_levels": (0, 1),
        "jpeg_quality": (50, 60),
    }
    with pytest.raises(FlipnetError, match=named):
        DegradationRanges("bad", **(good | change))


def test_unknown_preset_lists_the_known():
    with pytest.raises(FlipnetError, match=r"'blurry'.*gfpgan"):
        preset("blurry")
