"""The soft mask and adding a face's difference to a photo."""

import numpy as np
import pytest

from flipnet.faces.align import align, scale_of
from flipnet.faces.paste import add_difference, feather, mask_radius

SIZE = 64


def placed(x, y, scale=1.0):
    """A transform whose crop's centre lies on photo pixel (x, y), `scale` crop pixels per photo pixel."""
    middle = (SIZE - 1) / 2
    return np.array([[scale, 0, middle - scale * x], [0, scale, middle - scale * y]])


def in_mask(matrix, shape):
    y, x = np.mgrid[: shape[0], : shape[1]].astype(float)
    (a, b, c), (d, e, f) = matrix
    return mask_radius(a * x + b * y + c, d * x + e * y + f, SIZE) < 0.96


def flat(value):
    return np.full((SIZE, SIZE, 3), value, np.float32)


def test_mask_radius_is_zero_in_the_middle_and_one_on_the_edges():
    assert mask_radius(np.array(31.5), np.array(31.5), SIZE) == pytest.approx(0)
    assert mask_radius(np.array(-0.5), np.array(31.5), SIZE) == pytest.approx(1)
    assert mask_radius(np.array(31.5), np.array(63.5), SIZE) == pytest.approx(1)


def test_feather_is_whole_in_the_middle_zero_at_the_edge_and_never_grows():
    soft = feather(flat(1.0))
    assert np.allclose(soft[28:36, 28:36], 1, atol=1e-5)
    border = np.concatenate([soft[0], soft[-1], soft[:, 0], soft[:, -1]])
    assert np.all(border == 0)
    assert soft.min() >= 0
    assert soft.max() <= 1 + 1e-5
    assert np.abs(np.diff(soft[32, :, 0])).max() < 0.1  # a straight ramp over the band would be 0.06


def test_colour_fades_before_detail_does():
    radius = mask_radius(*np.meshgrid(np.arange(512), np.arange(512)), 512)
    ring = (radius > 0.68) & (radius < 0.72)
    tint = feather(np.full((512, 512, 3), 0.1, np.float32)) / 0.1
    stripes = np.tile(
        np.where(np.arange(512) % 4 < 2, 0.1, -0.1).astype(np.float32)[None, :, None], (512, 1, 3)
    )
    detail = feather(stripes) / stripes
    assert detail[ring].mean() > 0.97
    assert 0.3 < tint[ring].mean() < 0.65


@pytest.mark.parametrize("dtype", [np.uint8, np.uint16])
@pytest.mark.parametrize("scale", [0.4, 1.0, 3.0])
def test_outside_the_mask_every_bit_stays(dtype, scale):
    white = np.iinfo(dtype).max
    photo = np.random.default_rng(0).integers(0, white, (200, 220, 3), dtype=dtype)
    canvas = photo.copy()
    matrix = placed(90.3, 101.7, scale)
    add_difference(canvas, flat(0.3), matrix)
    inside = in_mask(matrix, photo.shape)
    assert np.array_equal(canvas[~inside], photo[~inside])
    assert (canvas != photo).any(-1)[inside].mean() > 0.5


@pytest.mark.parametrize("dtype", [np.uint8, np.uint16])
def test_middle_gets_the_whole_difference_at_its_own_depth(dtype):
    white = np.iinfo(dtype).max
    canvas = np.full((100, 100, 3), white // 4, dtype)
    add_difference(canvas, flat(0.25), placed(50, 50))
    assert abs(int(canvas[50, 50, 0]) - white // 4 - round(0.25 * white)) <= 1


def test_zero_difference_changes_nothing_and_range_is_kept():
    photo = np.random.default_rng(0).integers(0, 256, (100, 100, 3), dtype=np.uint8)
    canvas = photo.copy()
    add_difference(canvas, flat(0.0), placed(40, 40, 0.7))
    assert np.array_equal(canvas, photo)
    add_difference(canvas, flat(1.0), placed(50, 50))
    assert canvas[50, 50].tolist() == [255, 255, 255]


def test_no_seam_on_a_smooth_photo():
    ramp = np.linspace(60, 160, 300).astype(np.uint8)
    canvas = np.repeat(np.tile(ramp, (300, 1))[..., None], 3, 2)
    before = np.abs(np.diff(canvas.astype(int), axis=1)).max()
    add_difference(canvas, flat(0.15), placed(150, 150, SIZE / 200))  # a tint of 38 levels over 200 pixels
    steps = np.abs(np.diff(canvas.astype(int), axis=1)).max()
    assert steps <= before + 2


def test_overlapping_faces_never_add_twice_whatever_their_order():
    matrices = [placed(70, 80), placed(95, 80, 1.3), placed(83, 105)]
    canvases = []
    for order in ([0, 1, 2], [2, 0, 1]):
        canvas = np.full((180, 180, 3), 100, np.uint8)
        for i in order:
            add_difference(canvas, flat(0.2), matrices[i], [m for j, m in enumerate(matrices) if j != i])
        canvases.append(canvas.astype(int))
    assert np.abs(canvases[0] - canvases[1]).max() <= 2  # rounding, once per face
    assert canvases[0].max() <= 100 + 51 + 2
    assert canvases[0][80, 70, 0] >= 100 + 49


def test_a_pixel_belongs_to_the_nearer_face():
    left, right = placed(70, 80), placed(100, 80)
    canvas = np.full((160, 180, 3), 100, np.uint8)
    add_difference(canvas, flat(0.2), left, [right])
    assert canvas[80, 70, 0] >= 149
    assert abs(int(canvas[80, 85, 0]) - 125) <= 3  # half-way: half
    assert canvas[80, 98, 0] <= 102  # the other face's middle is left alone


def test_a_face_across_the_photo_edge_and_one_outside():
    photo = np.full((50, 60, 3), 10, np.uint8)
    canvas = photo.copy()
    add_difference(canvas, flat(0.5), placed(2, 48))
    assert canvas[48, 2, 0] > 130
    untouched = photo.copy()
    add_difference(untouched, flat(0.5), placed(900, 900))
    assert np.array_equal(untouched, photo)


def test_strips_do_not_show(monkeypatch):
    matrix = placed(150, 140, 0.3)
    rng = np.random.default_rng(3)
    difference = rng.normal(0, 0.1, (SIZE, SIZE, 3)).astype(np.float32)
    whole = np.full((300, 300, 3), 128, np.uint8)
    strips = whole.copy()
    add_difference(whole, difference, matrix)
    monkeypatch.setattr("flipnet.faces.paste._STRIP_PIXELS", 1000)
    add_difference(strips, difference, matrix)
    assert scale_of(matrix) == pytest.approx(0.3)
    assert np.array_equal(whole, strips)


def test_a_small_face_leaves_none_of_its_noise_behind():
    rng = np.random.default_rng(0)
    photo = np.clip(128 + 12 * rng.standard_normal((60, 60, 3)), 0, 255).astype(np.uint8)
    matrix = np.array([[4.0, 0, -56], [0, 4.0, -56]])  # the crop has four pixels for each of the photo's
    crop = align(photo, matrix, 128)
    smooth = np.full_like(crop, 0.5)
    canvas = photo.copy()
    add_difference(canvas, smooth - crop, matrix, photo=photo, crop=crop)
    middle = (slice(25, 35), slice(25, 35))
    assert canvas[middle].std() < 1
    # The difference alone leaves what the way into the crop and back lost; half an amount takes half of it.
    alone, half = photo.copy(), photo.copy()
    add_difference(alone, smooth - crop, matrix)
    add_difference(half, smooth - crop, matrix, photo=photo, crop=crop, amount=0.5)
    assert alone[middle].std() > 3
    assert half[middle].std() == pytest.approx(photo[middle].std() / 2, rel=0.1)
    assert np.array_equal(canvas[:14], photo[:14])


def test_a_face_at_the_crops_own_size_keeps_what_the_crop_lost():
    rng = np.random.default_rng(1)
    photo = rng.integers(0, 256, (128, 128, 3), np.uint8)
    matrix = np.array([[1.0, 0, 0], [0, 1.0, 0]])
    crop = np.zeros((128, 128, 3), np.float32)
    difference = np.full_like(crop, 10 / 255)
    with_crop, without = photo.copy(), photo.copy()
    add_difference(with_crop, difference, matrix, photo=photo, crop=crop)
    add_difference(without, difference, matrix)
    assert np.array_equal(with_crop, without)
