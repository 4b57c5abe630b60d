import dataclasses
import io
import json
import math
from collections import Counter
from dataclasses import replace

import numpy as np
import pytest
import torch
from PIL import Image
from scipy import ndimage, stats

from flipnet.data.degradation import degrade, degrade_with, preset, sample_parameters
from flipnet.data.filters import resize_by_mode
from flipnet.data.kernels import BlurKernel
from flipnet.data.noise import Noise, add_noise
from flipnet.data.second_order import REAL_ESRGAN, RoundParameters, SecondOrderParameters
from flipnet.types import FlipnetError

SILENT = Noise("gaussian", 0.0, False, 0)
NEUTRAL = SecondOrderParameters(
    first=RoundParameters(None, 1.0, "bicubic", SILENT, 100),
    second=RoundParameters(None, 1.0, "bicubic", SILENT, 100),
    final_kernel=None,
    final_resize_mode="bicubic",
    sinc_before_jpeg=True,
    scale=1,
)

PINNED = SecondOrderParameters(
    first=RoundParameters(
        kernel=BlurKernel("plateau", 15, 0.36412244841819236, 0.36412244841819236),
        resize=1.0020257868449187,
        resize_mode="bicubic",
        noise=Noise("gaussian", 23.089366122274804, False, 3042012678),
        jpeg_quality=32,
    ),
    second=RoundParameters(
        kernel=BlurKernel("generalized", 11, 0.7641064661828385, 0.7641064661828385, beta=0.6157264600789435),
        resize=0.7270504985362976,
        resize_mode="bilinear",
        noise=Noise("gaussian", 14.744232790989628, True, 2067050543),
        jpeg_quality=55,
    ),
    final_kernel=None,
    final_resize_mode="bilinear",
    sinc_before_jpeg=True,
    scale=4,
)


def picture(height=96, width=80):
    y, x = np.mgrid[:height, :width].astype(np.float64)
    channels = [128 + 100 * np.sin(x / 9 + c) * np.cos(y / 13 - c) for c in range(3)]
    return np.stack(channels, axis=2).round().astype(np.uint8)


def draws(number):
    rng = np.random.default_rng(0)
    return [sample_parameters(preset("real-esrgan"), rng) for _ in range(number)]


def test_numbers_are_those_of_the_published_options():
    """Real-ESRGAN options/train_realesrnet_x4plus.yml."""
    first, second = REAL_ESRGAN.first, REAL_ESRGAN.second
    assert (first.resize_probabilities, second.resize_probabilities) == ((0.2, 0.7, 0.1), (0.3, 0.4, 0.3))
    assert (first.resize, second.resize) == ((0.15, 1.5), (0.3, 1.2))
    assert (first.noise_std_levels, second.noise_std_levels) == ((1, 30), (1, 25))
    assert (first.poisson_scale, second.poisson_scale) == ((0.05, 3), (0.05, 2.5))
    assert (first.blur_sigma_px, second.blur_sigma_px) == ((0.2, 3), (0.2, 1.5))
    assert (first.blur_probability, second.blur_probability) == (1, 0.8)
    assert (REAL_ESRGAN.final_sinc_probability, REAL_ESRGAN.scale) == (0.8, 4)
    for ranges in (first, second):
        assert (ranges.gaussian_noise_probability, ranges.gray_noise_probability) == (0.5, 0.4)
        assert (ranges.jpeg_quality, ranges.sinc_probability) == ((30, 95), 0.1)
        assert (ranges.generalized_beta, ranges.plateau_beta) == ((0.5, 4), (1, 2))


def test_draws_have_the_stated_shares_and_ranges():
    drawn = draws(4000)
    firsts, seconds = [p.first for p in drawn], [p.second for p in drawn]

    def share(values):
        return pytest.approx(np.mean(list(values)), abs=0.025)

    assert share(p.kernel.shape == "sinc" for p in firsts) == 0.1
    assert share(p.kernel.shape == "gaussian" for p in firsts) == 0.9 * 0.7
    assert share(p.kernel.shape == "plateau" for p in firsts) == 0.9 * 0.15
    round_ones = (p.kernel.shape == "gaussian" and p.kernel.sigma_x_px == p.kernel.sigma_y_px for p in firsts)
    assert share(round_ones) == 0.9 * 0.45
    assert share(p.kernel is None for p in seconds) == 0.2
    assert share(p.resize > 1 for p in firsts) == 0.2
    assert share(p.resize < 1 for p in seconds) == 0.4
    assert share(p.noise.kind == "poisson" for p in firsts) == 0.5
    assert share(p.noise.gray for p in seconds) == 0.4
    assert share(p.final_kernel is None for p in drawn) == 0.2
    assert share(p.sinc_before_jpeg for p in drawn) == 0.5
    for counted in (
        Counter(p.resize_mode for p in firsts),
        Counter(p.final_resize_mode for p in drawn),
    ):
        assert counted.keys() == {"area", "bilinear", "bicubic"}
        assert min(counted.values()) > 1200
    assert {p.kernel.size_px for p in firsts} == {7, 9, 11, 13, 15, 17, 19, 21}
    for values, low, high in (
        ([p.kernel.sigma_x_px for p in firsts if p.kernel.shape != "sinc"], 0.2, 3),
        ([p.resize for p in firsts], 0.15, 1.5),
        ([p.noise.strength for p in seconds if p.noise.kind == "gaussian"], 1, 25),
        ([p.noise.strength for p in seconds if p.noise.kind == "poisson"], 0.05, 2.5),
        ([p.kernel.beta for p in firsts if p.kernel.shape == "generalized"], 0.5, 4),
        ([p.jpeg_quality for p in firsts], 30, 95),
        ([p.final_kernel.cutoff_rad for p in drawn if p.final_kernel], math.pi / 3, math.pi),
    ):
        margin = 0.02 * (high - low)
        assert low <= min(values) < low + margin
        assert high - margin < max(values) <= high


def test_small_sinc_kernels_get_no_low_cutoff():
    kernels = [p.first.kernel for p in draws(6000) if p.first.kernel.shape == "sinc"]
    small, large = ([k.cutoff_rad for k in kernels if (k.size_px < 13) == flag] for flag in (True, False))
    assert math.pi / 3 <= min(small) < 1.1
    assert math.pi / 5 <= min(large) < 0.7


def test_round_gaussian_is_the_generalised_one_with_beta_1():
    gaussian = BlurKernel("gaussian", 15, 2.0, 1.2, 0.7).weights()
    np.testing.assert_allclose(BlurKernel("generalized", 15, 2.0, 1.2, 0.7, beta=1.0).weights(), gaussian)
    assert gaussian[7, 8] / gaussian[7, 7] < 1


@pytest.mark.parametrize(
    ("shape", "beta", "ratio"),
    # Two pixels from the centre at sigma 2, so q = 1: every form has one value there, whatever beta.
    [
        ("generalized", 0.5, math.exp(-0.5)),
        ("generalized", 3.0, math.exp(-0.5)),
        ("plateau", 1.5, 0.5),
        ("plateau", 1.0, 0.5),
    ],
)
def test_kernel_forms_literals(shape, beta, ratio):
    kernel = BlurKernel(shape, 21, 2.0, 2.0, beta=beta).weights()
    assert kernel.sum() == pytest.approx(1, abs=1e-6)
    assert kernel[10, 12] / kernel[10, 10] == pytest.approx(ratio, rel=1e-5)
    # At q = 4 they differ: exp(-4^beta / 2) and 1 / (1 + 4^beta).
    far = math.exp(-0.5 * 4**beta) if shape == "generalized" else 1 / (1 + 4**beta)
    assert kernel[14, 10] / kernel[10, 10] == pytest.approx(far, rel=1e-4)


def test_sinc_passes_below_its_cutoff_and_stops_above():
    kernel = BlurKernel("sinc", 61, cutoff_rad=math.pi / 2).weights()
    response = np.abs(np.fft.fft2(kernel, (256, 256)))
    np.testing.assert_allclose(response[0, :48], 1, atol=0.15)  # up to 0.375 pi
    assert response[0, 84:128].max() < 0.15  # from 0.656 pi
    assert kernel.min() < 0  # it rings


def test_poisson_noise_has_the_moments_of_counting():
    ramp = np.broadcast_to(np.arange(256, dtype=np.float32)[None, :, None], (4000, 256, 3))
    noisy = add_noise(np.array(ramp), Noise("poisson", 1.0, False, 3))
    added = (noisy - ramp)[..., 0]
    for level in (20, 60, 140, 200):
        exact = stats.poisson(level * 256 / 255)
        counts = (added[:, level] + level) * 256 / 255
        assert counts.mean() == pytest.approx(exact.mean(), rel=0.015)
        assert counts.std() == pytest.approx(exact.std(), rel=0.05)
        assert stats.skew(counts) == pytest.approx(float(exact.stats("s")), abs=0.12)
        assert np.abs(counts - counts.round()).max() < 1e-3
        assert stats.kstest(counts.round(), exact.cdf).statistic < exact.pmf(level) + 0.03
    stronger = add_noise(np.array(ramp), Noise("poisson", 2.0, False, 3)) - ramp
    np.testing.assert_allclose(stronger[:, 100], 2 * (noisy - ramp)[:, 100], atol=1e-3)


@pytest.mark.parametrize("kind", ["gaussian", "poisson"])
def test_gray_noise_is_the_same_in_all_channels(kind):
    ramp = np.linspace(80, 160, 64, dtype=np.float32)[:, None, None]
    levels = np.tile(ramp + np.array([-10, 0, 10], np.float32), (1, 64, 1))
    gray = add_noise(levels, Noise(kind, 0.5, True, 1)) - levels
    np.testing.assert_allclose(gray[..., 0], gray[..., 2], atol=1e-4)
    assert gray.std() > 0.4
    coloured = add_noise(levels, Noise(kind, 0.5, False, 1)) - levels
    assert abs(np.corrcoef(coloured[..., 0].ravel(), coloured[..., 2].ravel())[0, 1]) < 0.1


def test_resize_modes_literals():
    row = np.array([0, 100, 40, 60], np.float32).reshape(1, 4, 1)
    assert resize_by_mode(row, 1, 2, "area")[0, :, 0].tolist() == [50, 50]
    assert resize_by_mode(row, 1, 8, "area")[0, :, 0].tolist() == [0, 0, 100, 100, 40, 40, 60, 60]
    np.testing.assert_allclose(resize_by_mode(row[:, :2], 1, 4, "bilinear")[0, :, 0], [0, 25, 75, 100])
    # Halfway between pixels the cubic kernel with a = -0.75 weighs (-3, 19, 19, -3) / 32.
    middle = resize_by_mode(row, 1, 1, "bicubic").item()
    assert middle == pytest.approx((-3 * 0 + 19 * 100 + 19 * 40 - 3 * 60) / 32)


def test_neutral_parameters_change_almost_nothing():
    hq = picture()
    difference = degrade(hq, NEUTRAL).mean(axis=2) - hq.mean(axis=2)
    assert np.abs(difference).mean() < 2


@pytest.mark.parametrize("sinc_before_jpeg", [True, False])
def test_steps_follow_the_published_order(sinc_before_jpeg):
    """Against the same recipe put together from SciPy, torch and Pillow."""
    hq = picture(120, 104)
    k1, k2 = (
        BlurKernel("generalized", 9, 2.0, 0.8, 0.5, beta=0.7),
        BlurKernel("plateau", 7, 1.0, 1.0, beta=1.5),
    )
    sinc = BlurKernel("sinc", 11, cutoff_rad=1.4)
    parameters = SecondOrderParameters(
        RoundParameters(k1, 1.2, "area", Noise("gaussian", 4.0, False, 5), 70),
        RoundParameters(k2, 0.8, "bicubic", Noise("gaussian", 3.0, True, 6), 60),
        final_kernel=sinc,
        final_resize_mode="bilinear",
        sinc_before_jpeg=sinc_before_jpeg,
        scale=2,
    )

    def blur(image, kernel):
        planes = [ndimage.convolve(image[..., c], kernel.weights(), mode="mirror") for c in range(3)]
        return np.stack(planes, axis=2)

    def resize(image, size, mode):
        planes = torch.from_numpy(image.astype(np.float32)).permute(2, 0, 1)[None]
        align = {} if mode == "area" else {"align_corners": False}
        return torch.nn.functional.interpolate(planes, size, mode=mode, **align)[0].permute(1, 2, 0).numpy()

    def noisy(image, std, channels, seed):
        noise = np.random.default_rng(seed).standard_normal((*image.shape[:2], channels), dtype=np.float32)
        return np.clip(image + std * noise, 0, 255)

    def jpeg(image, quality):
        buffer = io.BytesIO()
        Image.fromarray(image.round().clip(0, 255).astype(np.uint8)).save(buffer, "JPEG", quality=quality)
        return np.array(Image.open(buffer)).astype(np.float32)

    out = noisy(resize(blur(hq.astype(np.float32), k1), (144, 124), "area"), 4.0, 3, 5)
    out = noisy(resize(blur(jpeg(out, 70), k2), (48, 41), "bicubic"), 3.0, 1, 6)
    if sinc_before_jpeg:
        out = jpeg(blur(resize(out, (60, 52), "bilinear"), sinc), 60)
    else:
        out = blur(resize(jpeg(out, 60), (60, 52), "bilinear"), sinc)
    expected = resize(out.round().clip(0, 255), (120, 104), "bicubic").round().clip(0, 255)
    difference = np.abs(degrade(hq, parameters) - expected)
    assert difference.mean() < 0.1  # float32 in another order may move a level before JPEG


def test_preset_works_like_the_others():
    hq = picture()
    before = hq.copy()
    lq, parameters = degrade_with(preset("real-esrgan"), hq, (1, 2))
    again, same = degrade_with(preset("real-esrgan"), hq, (1, 2))
    assert lq.shape == hq.shape
    assert lq.dtype == np.uint8
    np.testing.assert_array_equal(lq, again)
    np.testing.assert_array_equal(hq, before)
    assert parameters == same
    assert not parameters.grayscale
    described = json.loads(json.dumps(dataclasses.asdict(parameters)))
    assert described["first"]["noise"]["kind"] in ("gaussian", "poisson")
    other, _ = degrade_with(preset("real-esrgan"), hq, (1, 3))
    assert not np.array_equal(lq, other)


def test_the_draws_of_a_seed_are_pinned():
    """Comparisons with this baseline rest on these draws: they may not change with the code."""
    drawn = sample_parameters(preset("real-esrgan"), np.random.default_rng((0, 1)))
    assert drawn == PINNED


def test_every_size_down_to_the_smallest_works():
    rng = np.random.default_rng(0)
    hq = picture(32, 35)
    for parameters in draws(40):
        assert degrade(hq, parameters).shape == hq.shape
    tiniest = replace(draws(1)[0].first, resize=0.15)
    assert degrade(hq, replace(sample_parameters(REAL_ESRGAN, rng), first=tiniest)).shape == hq.shape


@pytest.mark.parametrize(
    "hq", [np.zeros((64, 64, 3), np.float32), np.zeros((64, 64), np.uint8), np.zeros((64, 31, 3), np.uint8)]
)
def test_bad_images_are_refused(hq):
    with pytest.raises(FlipnetError, match="degrade needs"):
        degrade(hq, NEUTRAL)


@pytest.mark.parametrize(
    ("change", "named"),
    [
        ({"resize_probabilities": (0.5, 0.4, 0.2)}, "resize_probabilities"),
        ({"resize": (0.5, 0.9)}, "resize needs"),
        ({"blur_sigma_px": (0.0, 1.0)}, "blur_sigma_px"),
        ({"jpeg_quality": (0, 50)}, "jpeg_quality"),
    ],
)
def test_contradictory_ranges_are_named(change, named):
    with pytest.raises(FlipnetError, match=named):
        replace(REAL_ESRGAN.first, **change)
