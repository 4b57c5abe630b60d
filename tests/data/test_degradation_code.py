"""What a code sees of degradations whose strength is known."""

import numpy as np
import pytest
from scipy import ndimage
from skimage.data import astronaut

from flipnet.data.degradation_code import NAMES, SMALLEST_PX, degradation_code
from flipnet.data.filters import jpeg_round_trip
from flipnet.types import FlipnetError

HQ = astronaut()[:384, 64:448]


def measured(lq, hq=HQ):
    return dict(zip(NAMES, degradation_code(hq, lq).tolist(), strict=True))


def noisy(strength):
    noise = np.random.default_rng(0).normal(0, strength, HQ.shape)
    return np.clip(HQ + noise, 0, 255).astype(np.uint8)


def blurred(sigma):
    return ndimage.gaussian_filter(HQ, (sigma, sigma, 0))


def enlarged(factor):
    """Every `factor` x `factor` square by its mean: a picture stored at a fraction of its size."""
    side = len(HQ) // factor
    means = HQ.reshape(side, factor, side, factor, 3).mean((1, 3))
    return means.repeat(factor, 0).repeat(factor, 1).astype(np.uint8)


def test_a_picture_is_no_worse_than_itself():
    code = measured(HQ)
    for name in ("band.0", "band.1", "band.2", "band.3", "contrast", "luma", "tint.blue", "tint.red"):
        assert code[name] == 0
    assert code["saturation"] == 1


@pytest.mark.parametrize(
    ("worsen", "strengths", "name", "direction"),
    [
        *((blurred, (0.5, 1, 2, 4), f"band.{octave}", -1) for octave in range(4)),
        (noisy, (0, 2, 5, 10, 20), "noise.0", 1),
        (noisy, (0, 2, 5, 10, 20), "noise.1", 1),
        (noisy, (0, 2, 5, 10, 20), "noise.chroma", 1),
        (noisy, (0, 2, 5, 10, 20), "band.0", 1),
        (lambda quality: jpeg_round_trip(HQ, quality), (100, 80, 50, 30), "blocking", 1),
        (enlarged, (1, 2, 3, 4), "band.0", -1),
        (lambda share: (HQ * share).astype(np.uint8), (1.0, 0.8, 0.5), "luma", -1),
        (lambda share: (HQ * share).astype(np.uint8), (1.0, 0.8, 0.5), "contrast", -1),
    ],
)
def test_more_of_it_is_seen_as_more(worsen, strengths, name, direction):
    values = [measured(worsen(strength))[name] for strength in strengths]
    assert (np.diff(values) * direction > 0).all(), values


def test_the_block_grid_is_seen_wherever_it_starts():
    shifted = np.roll(jpeg_round_trip(np.roll(HQ, (3, 5), (0, 1)), 30), (-3, -5), (0, 1))
    assert measured(shifted)["blocking"] == pytest.approx(
        measured(jpeg_round_trip(HQ, 30))["blocking"], abs=0.15
    )


def test_convention_numbers_have_their_units():
    rng = np.random.default_rng(1)
    gray = np.full((384, 384, 3), 128, np.uint8)
    noise = rng.normal(0, 10, (384, 384, 1))
    code = measured((gray + noise).round().astype(np.uint8), gray)
    # White noise keeps 1 - 2 g + g² of its variance beside a Gaussian blur of sigma 1, whose kernel peaks at
    # 1 / 2π and squares to a sum of 1 / 4π; the calmest tenth of 8 x 8 squares has a little less.
    expected = np.log10(10 * np.sqrt(1 - 1 / np.pi + 1 / (4 * np.pi)))
    assert code["noise.0"] == pytest.approx(expected, abs=0.1)
    assert code["noise.chroma"] == pytest.approx(np.log10(0.3), abs=0.05)  # none but rounding
    brighter = measured(gray + np.array([51, 0, 0], np.uint8), gray)
    assert brighter["luma"] == pytest.approx(0.2 * 0.299, abs=1e-4)
    assert brighter["tint.red"] == pytest.approx(0.2 * (1 - 0.299), abs=1e-4)
    assert brighter["tint.blue"] == pytest.approx(-0.2 * 0.299, abs=1e-4)


def test_a_gray_copy_has_lost_its_saturation():
    gray = np.repeat(HQ.mean(2, keepdims=True), 3, 2).astype(np.uint8)
    assert measured(gray)["saturation"] < 0.2
    assert measured(gray, gray)["saturation"] == 1


@pytest.mark.parametrize("side", [SMALLEST_PX, 17, 47, 192])
def test_flat_and_wild_pictures_give_finite_numbers(side):
    black, white = np.zeros((side, side, 3), np.uint8), np.full((side, side, 3), 255, np.uint8)
    wild = np.random.default_rng(0).integers(0, 256, (side, side, 3), dtype=np.uint8)
    for hq, lq in ((black, black), (black, white), (black, wild), (wild, black), (wild, white)):
        code = degradation_code(hq, lq)
        assert (code.dtype, code.shape) == (np.float32, (len(NAMES),))
        assert np.abs(code).max() <= 3


@pytest.mark.parametrize(
    ("hq", "lq", "words"),
    [
        (HQ, HQ[:-1], "squares"),
        (HQ, HQ.astype(np.float32), "uint8"),
        (HQ[:15, :15], HQ[:15, :15], "at least 16 pixels"),
    ],
)
def test_other_pictures_are_refused(hq, lq, words):
    with pytest.raises(FlipnetError, match=words):
        degradation_code(hq, lq)
