"""Similarity transforms, alignment and its inverse; geometric conventions pinned by literals."""

import numpy as np
import pytest
from skimage.transform import SimilarityTransform

from flipnet.faces.align import (
    TEMPLATE_512,
    align,
    crop_box,
    estimate_similarity,
    for_upscaled,
    invert,
    scale_of,
    template,
    transform_points,
    warp_back,
)

IDENTITY = np.array([[1.0, 0, 0], [0, 1, 0]])


def similarity(scale, degrees, shift):
    a = np.deg2rad(degrees)
    rotation = np.array([[np.cos(a), -np.sin(a)], [np.sin(a), np.cos(a)]])
    return np.column_stack([scale * rotation, shift])


def smooth_photo(height, width):
    y, x = np.mgrid[:height, :width] / 20
    return (
        np.stack([np.sin(x) * 90 + 128, np.cos(y) * 90 + 128, np.sin(x + y) * 90 + 128], -1)
        .round()
        .astype(np.uint8)
    )


def test_template_is_the_published_one():
    assert TEMPLATE_512[0].tolist() == [192.98138, 239.94708]
    assert TEMPLATE_512[4].tolist() == [313.08905, 371.15118]
    # FaceFusion's independent, normalised table of the same points.
    normalised = [(0.37691676, 0.46864664), (0.62285697, 0.46912813), (0.50123859, 0.61331904)]
    assert np.abs(TEMPLATE_512[:3] / 512 - normalised).max() < 1e-6


@pytest.mark.parametrize("size_px", [64, 512])
def test_exact_similarity_is_recovered(size_px):
    truth = similarity(0.37, 23, (40, -15))
    landmarks = transform_points(invert(truth), template(size_px))
    assert np.allclose(estimate_similarity(landmarks, size_px), truth, atol=1e-9)
    assert scale_of(truth) == pytest.approx(0.37)


def test_noisy_fit_agrees_with_scikit_image():
    landmarks = TEMPLATE_512 * 0.3 + np.random.default_rng(1).normal(0, 4, (5, 2)) + 50
    expected = SimilarityTransform.from_estimate(landmarks, TEMPLATE_512).params[:2]
    assert np.allclose(estimate_similarity(landmarks, 512), expected, atol=1e-8)


def test_mirrored_landmarks_give_a_rotation_not_a_reflection():
    mirrored = TEMPLATE_512 * (-1, 1)
    assert np.linalg.det(estimate_similarity(mirrored, 512)[:, :2]) > 0


def test_bad_landmarks_raise():
    with pytest.raises(ValueError, match="coincide"):
        estimate_similarity(np.ones((5, 2)), 512)
    with pytest.raises(ValueError, match="finite"):
        estimate_similarity(np.full((5, 2), np.nan), 512)


def test_invert_undoes():
    matrix = similarity(1.7, -40, (3, 9))
    points = np.array([[0.0, 0], [10, -4]])
    assert np.allclose(transform_points(invert(matrix), transform_points(matrix, points)), points)


def test_convention_whole_number_shift_copies_pixels():
    photo = np.random.default_rng(0).integers(0, 256, (40, 50, 3), dtype=np.uint8)
    shift = np.column_stack([np.eye(2), (-7, -5)])  # photo pixel (7, 5) becomes crop pixel (0, 0)
    crop = align(photo, shift, 16)
    assert crop.dtype == np.float32
    assert np.allclose(crop * 255, photo[5:21, 7:23], atol=1e-3)


def test_convention_upscaled_pixels_map_by_their_centres():
    # Photo pixel 0 covers upscaled pixels 0 and 1, whose middle is 0.5.
    enlarged = for_upscaled(IDENTITY, 2)
    assert np.allclose(transform_points(enlarged, np.array([[0.5, 0.5], [2.5, 4.5]])), [[0, 0], [1, 2]])


def test_crop_box_is_the_crop_cut_to_the_photo():
    shift = np.column_stack([np.eye(2), (-7, 5)])
    x0, y0, x1, y1 = crop_box(shift, 16, (40, 20, 3))
    assert (x0, y0) in [(6, 0), (7, 0)]
    assert x1 == 20
    assert y1 in (11, 12)
    away = crop_box(np.column_stack([np.eye(2), (-900, 0)]), 16, (40, 20, 3))
    assert away[0] >= away[2]


@pytest.mark.parametrize("scale", [0.2, 0.45, 1.0, 2.3])
def test_align_agrees_with_the_function_behind_the_photo(scale):
    photo = smooth_photo(300, 320)
    matrix = similarity(scale, 12, (20, -30))
    crop = align(photo, matrix, 48) * 255
    y, x = np.mgrid[:48, :48]
    at = transform_points(invert(matrix), np.stack([x, y], -1).astype(float))
    inside = (at > 6).all(-1) & (at[..., 0] < 313) & (at[..., 1] < 293)
    truth = (
        np.stack([np.sin(at[..., 0] / 20), np.cos(at[..., 1] / 20), np.sin(at.sum(-1) / 20)], -1) * 90 + 128
    )
    # Averaging flattens these waves when shrinking; at scale 1 a half-pixel shift would not pass.
    assert inside.sum() > 150
    assert np.abs(crop - truth)[inside].max() < {0.2: 14, 0.45: 4, 1.0: 2, 2.3: 2}[scale]
    assert abs(np.mean((crop - truth)[inside])) < 0.5


def test_shrinking_averages_instead_of_picking():
    checker = np.indices((256, 256)).sum(0) % 2 * 255
    photo = np.repeat(checker[..., None], 3, 2).astype(np.uint8)
    for scale in (0.08, 0.25, 0.4):
        centred = similarity(scale, 9, (0, 0))
        centred[:, 2] = 5.5 - centred[:, :2] @ (127.5, 127.5)
        crop = align(photo, centred, 12)
        assert np.abs(crop - 0.5).max() < 0.06


def test_16_bit_and_edge_repeat():
    photo = np.full((10, 10, 3), 30000, np.uint16)
    crop = align(photo, np.column_stack([np.eye(2), (20, 20)]), 32)
    assert np.allclose(crop, 30000 / 65535, atol=1e-6)


@pytest.mark.parametrize("scale", [0.5, 1.0, 2.5])
def test_warp_back_inverts_align(scale):
    photo = smooth_photo(200, 220)
    matrix = similarity(scale, -8, (30, 10))
    box = crop_box(matrix, 128, photo.shape)
    x0, y0, x1, y1 = box
    back = warp_back(align(photo, matrix, 128), matrix, box)
    assert back.shape == (y1 - y0, x1 - x0, 3)
    y, x = np.mgrid[y0:y1, x0:x1]
    at = transform_points(matrix, np.stack([x, y], -1).astype(float))
    inside = (at > 6).all(-1) & (at < 121).all(-1)
    assert np.abs(back * 255 - photo[y0:y1, x0:x1])[inside].max() < 4


@pytest.mark.parametrize("scale", [0.07, 0.2, 0.3, 0.6, 1.0, 2.0])
def test_a_spot_lands_where_the_transform_says(scale):
    y, x = np.mgrid[:400, :400]
    spot_x, spot_y, width = 203.3, 190.8, 12 if scale < 1 else 5
    spot = 255 * np.exp(-((x - spot_x) ** 2 + (y - spot_y) ** 2) / (2 * width**2))
    photo = np.repeat(spot.round().astype(np.uint8)[..., None], 3, 2)
    matrix = similarity(scale, 15, (0, 0))
    matrix[:, 2] = 60 - matrix[:, :2] @ (spot_x, spot_y) + (0.3, -0.2)
    crop = align(photo, matrix, 121)[..., 1]
    rows, columns = np.mgrid[:121, :121]
    assert (crop * columns).sum() / crop.sum() == pytest.approx(60.3, abs=0.02)
    assert (crop * rows).sum() / crop.sum() == pytest.approx(59.8, abs=0.02)
