"""Pictures as they were stored: gray, small, compressed, enlarged again."""

from pathlib import Path

import numpy as np
import pytest
from skimage.data import astronaut

from flipnet.config import RecipeError, StorageConfig, load_recipe
from flipnet.data.storage import store

LQ = astronaut()[:256, 64:320]
RECIPES = Path(__file__).parents[2] / "recipes"


def stored(seed=0, lq=LQ, **shares):
    return store(lq, StorageConfig(**shares), np.random.default_rng(seed))


def test_off_it_changes_nothing():
    assert np.array_equal(stored(), LQ)


def test_the_same_seed_gives_the_same_picture():
    shares = {"small_share": 1.0, "gray_share": 0.5}
    assert np.array_equal(stored(3, **shares), stored(3, **shares))
    assert not np.array_equal(stored(3, **shares), stored(4, **shares))


def test_shares_are_shares():
    changed = sum(not np.array_equal(stored(seed, small_share=0.3, jpeg_share=0), LQ) for seed in range(200))
    assert 40 <= changed <= 80
    gray = sum(np.ptp(stored(seed, gray_share=0.3, tint_share=0), 2).max() == 0 for seed in range(200))
    assert 40 <= gray <= 80


@pytest.mark.parametrize("seed", range(8))
@pytest.mark.parametrize("axes", [(0, 1, 2), (1, 0, 2)])
def test_pictures_stay_where_they_are(seed, axes):
    """A ramp is what shifts show on: up or down by its slope, and the other way round on a falling one."""
    levels = np.linspace(20, 230, 255)
    ramp = np.repeat(levels[None, :, None], 255, 0).repeat(3, 2).round().astype(np.uint8)
    middle, errors = slice(16, -16), []
    for picture in (ramp, ramp[:, ::-1]):
        result = stored(seed, picture.transpose(axes), small_share=1.0, jpeg_share=0.0).transpose(axes)
        errors.append((result.astype(float) - picture)[middle, middle])
    assert np.abs(errors).max() <= 2
    shift_px = (errors[0].mean() - errors[1].mean()) / 2 / (levels[1] - levels[0])
    assert abs(shift_px) < 0.05  # rounding twice; whole-pixel conventions differ by half of one


def test_small_pictures_lose_detail_within_the_factor():
    fine = np.random.default_rng(0).integers(0, 256, (240, 240, 3), dtype=np.uint8)
    kept = [stored(seed, fine, small_share=1.0, jpeg_share=0.0).std() / fine.std() for seed in range(30)]
    # The mean of factor² pixels deviates by 1 / factor, and enlarging takes a little more.
    assert 0.15 < min(kept) < 0.3
    assert max(kept) > 0.6


def test_tints_are_warm_and_gray_under_them():
    tinted = stored(0, gray_share=1.0, tint_share=1.0, tint=0.2).astype(float)
    red, green, blue = (tinted[..., channel] for channel in range(3))
    bright = (green > 60) & (green < 200)
    ratio = red[bright] / green[bright]
    assert 1.0 < ratio.mean() < 1.2
    assert ratio.std() < 0.01
    assert (blue[bright] / green[bright]).mean() == pytest.approx(2 - ratio.mean(), abs=0.01)


def test_the_mode_and_its_decoder_see_pictures_stored_alike():
    mode = load_recipe(RECIPES / "compact-degradation.toml").degradation
    decoder = load_recipe(RECIPES / "compact-degradation-decoder.toml").decoder
    assert mode.storage == decoder.storage
    assert mode.storage.small_share > 0


@pytest.mark.parametrize(
    ("override", "words"),
    [
        ("degradation.storage.jpeg_quality=[90, 20]", r"jpeg_quality must be \[low, high\]"),
        ("degradation.storage.small_factor=0.5", "greater than or equal to 1"),
        ("degradation.storage.smal_share=0.5", "Extra inputs"),
    ],
)
def test_contradictions_are_named(override, words):
    with pytest.raises(RecipeError, match=words):
        load_recipe(RECIPES / "compact-degradation.toml", (override,))


def test_restoration_has_no_storage():
    with pytest.raises(RecipeError, match="storage belongs to mode 'degradation'"):
        load_recipe(RECIPES / "compact-decoder.toml", ("decoder.storage.small_share=0.5",))
