"""What must hold for every input, tried on drawn ones (hypothesis)."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from hypothesis import HealthCheck, assume, given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as arrays

from flipnet.commands.terminal import shown
from flipnet.data.degradation import PRESETS, degrade_with
from flipnet.data.sampling import SeededBatches, ShuffledEpochs
from flipnet.evaluation import metrics
from flipnet.faces.align import align, estimate_similarity, for_upscaled, invert, template, transform_points
from flipnet.faces.paste import add_difference, mask_radius
from flipnet.images import Photo, faces_to_tensor, read_photo, resize, tensor_to_uint8, to_8_bit, write_photo
from flipnet.pipelines.restore import FaceRestorer

FEW = settings(
    max_examples=25,
    deadline=None,
    derandomize=True,
    suppress_health_check=[HealthCheck.function_scoped_fixture],
)
FEWER = settings(FEW, max_examples=8)
SIZE_PX = 64

seeds = st.integers(0, 2**32 - 1)
points = arrays.arrays(np.float64, (5, 2), elements=st.floats(-4000, 4000))


@st.composite
def transforms(draw) -> np.ndarray:
    """Photo pixels to crop pixels: any turn, 1/8 to 8 times the size, within a photo of some 4000 pixels."""
    angle, scale = draw(st.floats(0, 2 * np.pi)), 2.0 ** draw(st.floats(-3, 3))
    shift = [draw(st.floats(-4000, 4000)) for _ in range(2)]
    turn = np.array([[np.cos(angle), -np.sin(angle)], [np.sin(angle), np.cos(angle)]]) * scale
    return np.column_stack([turn, shift])


@st.composite
def pictures(draw, dtype=np.uint8, channels=3) -> np.ndarray:
    """Small pictures, of a seed: hypothesis need not draw every pixel."""
    height, width = draw(st.integers(1, 40)), draw(st.integers(1, 40))
    rng = np.random.default_rng(draw(seeds))
    kind = draw(st.sampled_from(["noise", "flat", "extremes"]))
    white = np.iinfo(dtype).max
    if kind == "flat":
        return np.full((height, width, channels), rng.integers(0, white + 1), dtype)
    if kind == "extremes":
        return (rng.integers(0, 2, (height, width, channels)) * white).astype(dtype)
    return rng.integers(0, white + 1, (height, width, channels), dtype=dtype)


# --------------------------------------------------------------------------------------------- transforms


@FEW
@given(transforms(), points)
def test_a_transform_and_its_inverse_give_the_points_back(matrix, where):
    back = transform_points(invert(matrix), transform_points(matrix, where))
    np.testing.assert_allclose(back, where, atol=1e-6)
    np.testing.assert_allclose(invert(invert(matrix)), matrix, atol=1e-6)


@FEW
@given(transforms(), st.integers(16, 1024))
def test_the_fit_finds_the_transform_that_moved_the_template(matrix, size_px):
    landmarks = transform_points(invert(matrix), template(size_px))
    np.testing.assert_allclose(estimate_similarity(landmarks, size_px), matrix, rtol=1e-6, atol=1e-4)


@FEW
@given(transforms(), st.integers(1, 8), st.integers(1, 8), points)
def test_enlarging_twice_is_enlarging_by_the_product(matrix, first, second, where):
    twice = for_upscaled(for_upscaled(matrix, first), second)
    np.testing.assert_allclose(twice, for_upscaled(matrix, first * second), atol=1e-6)
    enlarged = (where + 0.5) * first - 0.5  # edges stay edges
    np.testing.assert_allclose(
        transform_points(for_upscaled(matrix, first), enlarged), transform_points(matrix, where), atol=1e-6
    )


# ------------------------------------------------------------------------------------------ align and paste


@FEW
@given(pictures(), transforms(), seeds)
def test_pasting_no_change_changes_no_bit(photo, matrix, seed):
    canvas = photo.copy()
    add_difference(canvas, np.zeros((SIZE_PX, SIZE_PX, 3), np.float32), matrix)
    np.testing.assert_array_equal(canvas, photo)


@FEW
@given(st.floats(0.5, 1.5), st.floats(-0.5, 0.5), st.integers(-20, 20), st.integers(8, 60))
def test_pasting_what_alignment_saw_gives_the_other_photo(scale, angle, shift, level):
    """Between two photos that differ by a constant, the face is carried over whole, and nothing outside."""
    rng = np.random.default_rng(level)
    photo = resize(rng.integers(40, 150, (12, 12, 3), np.uint8), (160, 160))
    turn = scale * np.array([[np.cos(angle), -np.sin(angle)], [np.sin(angle), np.cos(angle)]])
    matrix = np.column_stack([turn, SIZE_PX / 2 - turn @ (80 + shift, 80 - shift)])
    other = photo + np.uint8(level)
    canvas = photo.copy()
    add_difference(canvas, align(other, matrix, SIZE_PX) - align(photo, matrix, SIZE_PX), matrix)
    y, x = np.mgrid[:160, :160]
    crop = transform_points(matrix, np.stack([x, y], -1).astype(np.float64))
    radius = mask_radius(crop[..., 0], crop[..., 1], SIZE_PX)
    inside, outside = radius < 0.4, radius > 0.97
    assert np.abs(canvas[inside].astype(int) - other[inside]).max() <= 1
    np.testing.assert_array_equal(canvas[outside], photo[outside])
    assert (canvas >= photo).all()
    assert (canvas <= other).all()


# ------------------------------------------------------------------------------------------------ pictures


@FEWER
@given(
    st.sampled_from([np.uint8, np.uint16]),
    st.sampled_from([".png", ".tif"]),
    st.booleans(),
    st.booleans(),
    st.data(),
)
def test_lossless_files_give_back_every_bit(tmp_path, dtype, suffix, gray, alpha, data):
    samples = data.draw(pictures(dtype, 4))
    pixels = np.repeat(samples[..., :1], 3, axis=2) if gray else np.ascontiguousarray(samples[..., :3])
    opacity = np.ascontiguousarray(samples[..., 3]) if alpha else None
    write_photo(tmp_path / f"a{suffix}", Photo(pixels, opacity, grayscale=gray))
    back = read_photo(tmp_path / f"a{suffix}")
    np.testing.assert_array_equal(back.pixels, pixels)
    assert (back.alpha is None) == (opacity is None)
    assert opacity is None or np.array_equal(back.alpha, opacity)


@FEW
@given(pictures())
def test_network_values_and_back_give_every_level(photo):
    np.testing.assert_array_equal(tensor_to_uint8(faces_to_tensor(photo))[0], photo)


@FEW
@given(st.integers(0, 65535), st.integers(1, 40), st.integers(1, 40))
def test_a_flat_picture_stays_flat_at_any_size(level, width, height):
    assert (resize(np.full((5, 9, 3), level, np.uint16), (width, height)) == level).all()
    assert abs(int(to_8_bit(np.array([level], np.uint16))[0]) - level / 257) <= 0.5


@FEW
@given(st.text(st.characters(codec=None), max_size=30))
def test_any_name_is_shown_on_one_line_that_can_be_printed(name):
    line = shown(name)
    assert line.isprintable()
    line.encode("utf-8")
    assert shown(line) == line


# ---------------------------------------------------------------------------------------------- degradation


@FEWER
@given(st.sampled_from(sorted(PRESETS)), seeds)
def test_degradation_is_a_function_of_its_seed_and_stays_a_picture(name, seed):
    clean = resize(np.random.default_rng(seed).integers(0, 256, (9, 9, 3), np.uint8), (128, 128))
    before = clean.copy()
    first, drawn = degrade_with(PRESETS[name], clean, seed)
    again, redrawn = degrade_with(PRESETS[name], clean, seed)
    np.testing.assert_array_equal(first, again)
    assert drawn == redrawn
    assert (first.dtype, first.shape) == (np.uint8, clean.shape)
    np.testing.assert_array_equal(clean, before)


@FEW
@given(st.lists(st.integers(0, 6), min_size=1, max_size=60), st.integers(1, 80), seeds, st.integers(0, 5))
def test_an_epoch_holds_every_item_once(shards, buffer, seed, epoch):
    order = ShuffledEpochs([str(shard) for shard in shards], buffer).order(seed, epoch)
    assert sorted(order.tolist()) == list(range(len(shards)))


@FEW
@given(st.integers(1, 4), st.integers(1, 4), st.integers(0, 5), seeds)
def test_processes_and_resuming_change_no_batch(world_size, batch_size, start, seed):
    weights = np.arange(1, 10)
    whole = list(SeededBatches(weights, batch_size * world_size, 8, seed=seed))
    ranks = [
        list(SeededBatches(weights, batch_size, 8, start=start, seed=seed, rank=rank, world_size=world_size))
        for rank in range(world_size)
    ]
    joined = [[item for rank in ranks for item in rank[step]] for step in range(8 - start)]
    assert joined == whole[start:]


# -------------------------------------------------------------------------------------------------- metrics


@FEW
@given(pictures(), seeds)
def test_metrics_stay_within_their_bounds(photo, seed):
    assume(min(photo.shape[:2]) >= 11)  # SSIM's window
    other = np.random.default_rng(seed).integers(0, 256, photo.shape, np.uint8)
    assert metrics.psnr(photo, other) >= 0
    assert metrics.psnr(photo, other) == metrics.psnr(other, photo)
    assert metrics.psnr(photo, photo) == float("inf")
    assert -1 <= metrics.ssim(photo, other) <= 1
    assert metrics.ssim(photo, other) == pytest.approx(metrics.ssim(other, photo))
    assert metrics.ssim(photo, photo) == pytest.approx(1)
    assert metrics.gradient_energy(photo) >= 0


# ---------------------------------------------------------------------------------------------- the network


@pytest.fixture(scope="module")
def restorer(tiny_checkpoint):
    return FaceRestorer.from_checkpoint(tiny_checkpoint, steps=1, device="cpu")


@settings(FEWER, max_examples=5)
@given(st.permutations(range(4)), seeds)
def test_neither_order_nor_company_changes_a_face(restorer, order, seed):
    faces = torch.rand(4, 3, 64, 64, generator=torch.Generator().manual_seed(seed)) * 2 - 1
    numbers = [seed + index for index in range(4)]
    together = restorer(faces, numbers)
    shuffled = restorer(faces[list(order)], [numbers[index] for index in order])
    alone = restorer(faces[order[0] : order[0] + 1], [numbers[order[0]]])
    step = 2 / 255 + 1e-6  # one level of 255
    assert (shuffled - together[list(order)]).abs().max() <= step
    assert (alone[0] - together[order[0]]).abs().max() <= step
