import numpy as np
import pytest
import torch
from PIL import Image

from flipnet.data.cache import decoded_faces
from flipnet.data.datasets import FaceDataset
from flipnet.data.latents import cached_encoding, degraded_face, is_mirrored
from flipnet.data.sampling import SeededBatches

WEIGHTS = np.array([1.0, 0.0, 3.0])


def test_resuming_goes_on_with_the_very_same_batches():
    whole = list(SeededBatches(WEIGHTS, 4, 6, seed=1))
    assert list(SeededBatches(WEIGHTS, 4, 6, start=2, seed=1)) == whole[2:]
    assert len(whole) == len(SeededBatches(WEIGHTS, 4, 6)) == 6
    assert list(SeededBatches(WEIGHTS, 4, 6, seed=2)) != whole


def test_processes_share_the_global_batch_without_overlap():
    ranks = [list(SeededBatches(WEIGHTS, 2, 3, rank=rank, world_size=2)) for rank in (0, 1)]
    together = [a + b for a, b in zip(*ranks, strict=True)]
    assert together == list(SeededBatches(WEIGHTS, 4, 3))


def test_items_follow_their_weights_and_have_seeds_of_their_own():
    items = [item for batch in SeededBatches(WEIGHTS, 50, 40) for item in batch]
    indices = np.array([index for index, _ in items])
    assert not (indices == 1).any()
    assert (indices == 2).mean() == pytest.approx(0.75, abs=0.03)
    assert len({seed for _, seed in items}) == len(items)


@pytest.fixture
def faces(tmp_path):
    rng = np.random.default_rng(0)
    for index in range(5):
        pixels = rng.integers(0, 256, (64, 64, 3), np.uint8)
        Image.fromarray(pixels).save(tmp_path / f"faker-any-{index:04d}.png")
    return FaceDataset(tmp_path, size_px=64)


def test_decoded_faces_are_the_faces_and_are_decoded_once(tmp_path, faces):
    cached = decoded_faces(faces, tmp_path / "cache")
    assert cached.keys == faces.keys
    assert all(np.array_equal(cached.read(i), faces.read(i)) for i in range(len(faces)))
    (file,) = (tmp_path / "cache").iterdir()
    before = file.stat().st_mtime_ns
    decoded_faces(faces, tmp_path / "cache")
    assert file.stat().st_mtime_ns == before
    subset = cached.subset([3, 1])
    assert subset.keys == (faces.keys[3], faces.keys[1])
    assert np.array_equal(subset.read(0), faces.read(3))


def test_encodings_are_kept_and_an_interrupted_one_is_made_again(tmp_path):
    calls = []

    def encode(images):
        calls.append(len(images))
        return {"mean": images.mean((1, 2, 3))[:, None]}

    def picture(index):
        if index == broken:
            raise KeyboardInterrupt
        return torch.full((1, 3, 4, 4), float(index))

    broken = 5
    with pytest.raises(KeyboardInterrupt):
        cached_encoding(picture, 6, encode, tmp_path, "x")
    broken = None
    stored = cached_encoding(picture, 6, encode, tmp_path, "x")
    assert stored["mean"][:, 0].tolist() == [0, 1, 2, 3, 4, 5]
    made = sum(calls)
    assert cached_encoding(picture, 6, encode, tmp_path, "x")["mean"].shape == (6, 1)
    assert sum(calls) == made


def test_every_second_variant_is_mirrored(faces):
    pixels = np.stack([faces.read(i) for i in range(len(faces))])
    pixels[:, :, :32] = 0
    for variant in (0, 1):
        lq = degraded_face(pixels, ("mild",), variant, 2, 0)
        left, right = lq[:, :32].mean(), lq[:, 32:].mean()
        assert (left > right) == is_mirrored(variant)
        assert np.array_equal(lq, degraded_face(pixels, ("mild",), variant, 2, 0))
    assert not np.array_equal(
        degraded_face(pixels, ("mild",), 0, 2, 0), degraded_face(pixels, ("mild",), 2, 2, 0)
    )
