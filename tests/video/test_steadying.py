"""Blending over time and cuts, on pictures whose answer can be worked out."""

from __future__ import annotations

import math

import numpy as np
import pytest
import skimage.data

from flipnet.video.steadying import CutFinder, FaceSteadier

SIZE_PX = 64
FRAME_S = 1 / 25


def test_flicker_of_a_still_face_goes_down_by_what_the_blend_promises():
    rng = np.random.default_rng(0)
    crop = np.full((SIZE_PX, SIZE_PX, 3), 0.5, np.float32)
    restored = [0.5 + 0.02 * rng.standard_normal(crop.shape).astype(np.float32) for _ in range(60)]
    steady = FaceSteadier(blending_s=0.18)
    shown = [steady(0, i * FRAME_S, crop, face) for i, face in enumerate(restored)]
    before = np.abs(np.diff(restored[20:], axis=0)).mean()
    after = np.abs(np.diff(shown[20:], axis=0)).mean()
    # First-order recursive filter of weight a: changes of white noise shrink by sqrt((1 - a)^3 / (1 - a^2)).
    a = math.exp(-FRAME_S / 0.18)
    assert after / before == pytest.approx(math.sqrt((1 - a) ** 2 / (1 + a)), rel=0.05)


def test_noise_in_the_input_does_not_stop_the_blend():
    rng = np.random.default_rng(1)
    steady = FaceSteadier()
    still = np.full((256, 256, 3), 0.5, np.float32)
    noisy = [(still + 8 / 255 * rng.standard_normal(still.shape)).astype(np.float32) for _ in range(2)]
    steady(0, 0.0, noisy[0], still)
    shown = steady(0, FRAME_S, noisy[1], still + 0.1)
    assert (shown - still).mean() == pytest.approx(0.1 * (1 - math.exp(-FRAME_S / 0.18)), rel=0.15)


def test_what_changes_is_shown_at_once_and_the_rest_is_blended():
    steady = FaceSteadier()
    closed = np.full((SIZE_PX, SIZE_PX, 3), 0.5, np.float32)
    opened = closed.copy()
    opened[40:60] = 0.1  # a mouth opens
    steady(0, 0.0, closed, closed)
    shown = steady(0, FRAME_S, opened, opened - 0.05)
    np.testing.assert_allclose(shown[44:56], 0.05, atol=1e-3)
    # Away from it the past weighs exp(-0.04 / 0.18) = 0.801.
    np.testing.assert_allclose(shown[:20], 0.5 - 0.05 * 0.199, atol=1e-3)


def test_faces_do_not_mix():
    steady = FaceSteadier()
    crop = np.full((SIZE_PX, SIZE_PX, 3), 0.5, np.float32)
    steady(0, 0.0, crop, crop * 0)
    np.testing.assert_array_equal(steady(1, FRAME_S, crop, crop), crop)
    steady.forget_all_but({1})
    np.testing.assert_array_equal(steady(0, FRAME_S, crop, crop), crop)


def test_switched_off_it_passes_faces_through():
    steady = FaceSteadier(blending_s=0)
    crop = np.full((SIZE_PX, SIZE_PX, 3), 0.5, np.float32)
    steady(0, 0.0, crop, crop)
    np.testing.assert_array_equal(steady(0, FRAME_S, crop, crop * 0.3), crop * 0.3)


def test_a_pan_is_no_cut_and_a_cut_is():
    photo = skimage.data.astronaut()
    is_cut = CutFinder()
    pan = [is_cut(np.roll(photo, 6 * i, axis=1)) for i in range(20)]
    assert not any(pan)
    assert is_cut(skimage.data.coffee())
    assert not is_cut(skimage.data.coffee())


def test_a_fast_pan_does_not_cut_at_every_frame():
    photo = skimage.data.astronaut()
    is_cut = CutFinder()
    assert sum(is_cut(np.roll(photo, 40 * i, axis=1)) for i in range(20)) <= 2
