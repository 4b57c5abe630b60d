import io
import tarfile
from collections import Counter
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from torch.utils.data import DataLoader

from flipnet.data.datasets import (
    DegradedFaceDataset,
    FaceDataset,
    PairDataset,
    balanced_weights,
    group_of,
    index_images,
    source_of,
)
from flipnet.data.degradation import PRESETS
from flipnet.types import FlipnetError

SHARED = Path(__file__).parents[2] / "../shared/data"
SIZE = 32


def face(seed, size=SIZE):
    return np.random.default_rng(seed).integers(0, 256, (size, size, 3), dtype=np.uint8)


def encode(pixels):
    buffer = io.BytesIO()
    Image.fromarray(pixels).save(buffer, "PNG")
    return buffer.getvalue()


def write_shard(path, members):
    with tarfile.open(path, "w") as shard:
        for name, data in members.items():
            info = tarfile.TarInfo(name)
            info.size = len(data)
            shard.addfile(info, io.BytesIO(data))
    return path


@pytest.fixture
def shard(tmp_path):
    keys = ("real-any-0000", "real-any-0001", "made-a-0000", "made-a-0001", "made-b-0002")
    members = {f"{key}.png": encode(face(index)) for index, key in enumerate(keys)}
    return write_shard(tmp_path / "faces.tar", members | {"README.txt": b"not an image"})


def test_shard_items_are_the_packed_images(shard):
    faces = FaceDataset(shard, size_px=SIZE)
    assert faces.keys == ("real-any-0000", "real-any-0001", "made-a-0000", "made-a-0001", "made-b-0002")
    item = faces[3]
    assert item["key"] == "made-a-0001"
    assert item["hq"].dtype == torch.uint8
    np.testing.assert_array_equal(item["hq"].permute(1, 2, 0).numpy(), face(3))


def test_folder_and_shard_give_the_same(tmp_path, shard):
    folder = tmp_path / "folder"
    with tarfile.open(shard) as packed:
        packed.extractall(folder, filter="data")
    from_folder, from_shard = FaceDataset(folder, SIZE), FaceDataset(shard, SIZE)
    assert sorted(from_shard.keys) == list(from_folder.keys)
    for index, key in enumerate(from_folder.keys):
        np.testing.assert_array_equal(from_folder.read(index), from_shard.read(from_shard.keys.index(key)))


def test_globs_and_subfolders(tmp_path, shard):
    nested = tmp_path / "more" / "deep"
    nested.mkdir(parents=True)
    (nested / "x.PNG").write_bytes(encode(face(9)))
    assert [entry.key for entry in index_images(tmp_path / "more")] == ["deep/x"]
    assert len(FaceDataset(str(tmp_path / "*.tar"), SIZE)) == 5
    assert len(FaceDataset([shard, nested / "x.PNG"], SIZE)) == 6


@pytest.mark.parametrize(
    ("key", "source", "group"),
    [
        ("synthetic-female_asian-0012", "synthetic", "female_asian"),
        ("city100-iphonex-010-0", "city100", "iphonex-010"),
        ("0001", "", ""),
        ("photo-7", "", ""),
    ],
)
def test_key_parts(key, source, group):
    assert (source_of(key), group_of(key)) == (source, group)


def test_balanced_weights_literals():
    keys = ["a-x-0", "a-x-1", "a-x-2", "a-y-3", "b-z-0"]
    np.testing.assert_allclose(balanced_weights(keys), [0.2] * 5)
    # b counts threefold: 4 + 3 parts; inside a, groups x and y get 2 parts each.
    weights = balanced_weights(keys, {"b": 3.0}, group_power=1.0)
    np.testing.assert_allclose(weights, np.array([2 / 3, 2 / 3, 2 / 3, 2, 3]) / 7)
    # Flattening groups never changes how often a source is drawn.
    half = balanced_weights(keys, {"b": 3.0}, group_power=0.5)
    assert half[4] == pytest.approx(3 / 7)
    assert half[3] / half[0] == pytest.approx(3**0.5)


@pytest.mark.parametrize(
    ("factors", "power", "named"),
    [
        ({"c": 2.0}, 0.0, "'c'"),
        ({"a": -1.0}, 0.0, "negative"),
        ({}, 1.5, "group_power"),
        ({"a": 0}, 0, "zero"),
    ],
)
def test_bad_weights_are_named(factors, power, named):
    with pytest.raises(FlipnetError, match=named):
        balanced_weights(["a-x-0", "a-x-1"], factors, power)


def test_degraded_items_do_not_depend_on_workers(shard):
    faces = FaceDataset(shard, SIZE)
    dataset = DegradedFaceDataset(faces, [PRESETS["mild"], PRESETS["gfpgan"]])
    order = [(index, 1000 + index) for index in (4, 0, 2, 1, 3)]
    alone = [dataset[item] for item in order]
    loader = DataLoader(dataset, batch_size=2, sampler=order, num_workers=1)
    keys = [key for batch in loader for key in batch["key"]]
    lq = torch.cat([batch["lq"] for batch in loader])
    assert keys == [item["key"] for item in alone]
    assert torch.equal(lq, torch.stack([item["lq"] for item in alone]))


def test_degraded_item_flips_and_grays_both_images_alike(shard):
    gray = replace(PRESETS["mild"], name="gray", grayscale_probability=1.0)
    dataset = DegradedFaceDataset(FaceDataset(shard, SIZE), [gray])
    flips = Counter()
    for seed in range(20):
        item = dataset[0, seed]
        assert torch.equal(item["hq"][0], item["hq"][1])
        assert torch.equal(item["lq"][0], item["lq"][2])
        straight = dataset.faces.read(0).astype(float) @ [0.299, 0.587, 0.114]
        shown = item["hq"][0].numpy().astype(float)
        flips["straight"] += bool(np.abs(shown - straight).max() <= 1)
        flips["flipped"] += bool(np.abs(shown - straight[:, ::-1]).max() <= 1)
    assert flips["straight"] + flips["flipped"] == 20
    assert min(flips.values()) >= 3


def test_different_item_seeds_differ(shard):
    dataset = DegradedFaceDataset(FaceDataset(shard, SIZE), [PRESETS["medium"]], flip=False)
    assert not torch.equal(dataset[0, 1]["lq"], dataset[0, 2]["lq"])
    assert torch.equal(dataset[0, 1]["hq"], dataset[0, 2]["hq"])


def test_pairs_are_matched_by_key(tmp_path):
    members = {
        f"p-g-{i}.{role}.png": encode(face(10 * i + j)) for i in (0, 1) for j, role in enumerate(("hq", "lq"))
    }
    pairs = PairDataset(write_shard(tmp_path / "pairs.tar", members), size_px=SIZE)
    assert pairs.keys == ("p-g-0", "p-g-1")
    np.testing.assert_array_equal(pairs[1]["hq"].permute(1, 2, 0).numpy(), face(10))
    np.testing.assert_array_equal(pairs[1]["lq"].permute(1, 2, 0).numpy(), face(11))


def test_pair_without_partner_is_named(tmp_path):
    shard = write_shard(tmp_path / "pairs.tar", {"p-g-0.hq.png": encode(face(0))})
    with pytest.raises(FlipnetError, match=r"p-g-0.*no lq"):
        PairDataset(shard, size_px=SIZE)


def test_faces_are_no_pairs(shard):
    with pytest.raises(FlipnetError, match=r"real-any-0000.*pairs are named"):
        PairDataset(shard)


def test_wrong_size_names_image_and_sizes(shard):
    with pytest.raises(FlipnetError, match=r"faces\.tar: real-any-0000.*32x32.*64x64"):
        FaceDataset(shard, size_px=64)[0]


def test_damaged_image_in_a_shard_is_named(tmp_path):
    shard = write_shard(tmp_path / "bad.tar", {"a-b-0.png": encode(face(0))[:200], "a-b-1.png": b"text"})
    for index in range(2):
        with pytest.raises(FlipnetError, match=rf"bad\.tar: a-b-{index}: cannot be read"):
            FaceDataset(shard, size_px=SIZE)[index]


def test_truncated_shard_is_named(shard):
    data = shard.read_bytes()
    shard.write_bytes(data[: len(data) // 3])
    with pytest.raises(FlipnetError, match=r"faces\.tar: not a readable"):
        FaceDataset(shard)


def test_missing_empty_and_foreign_locations_are_named(tmp_path):
    with pytest.raises(FlipnetError, match=r"nowhere.*no such file"):
        FaceDataset(tmp_path / "nowhere")
    (tmp_path / "empty").mkdir()
    with pytest.raises(FlipnetError, match=r"No images found in .*empty"):
        FaceDataset(tmp_path / "empty")
    (tmp_path / "notes.txt").write_text("words")
    with pytest.raises(FlipnetError, match=r"notes\.txt: not a readable"):
        FaceDataset(tmp_path / "notes.txt")


def test_real_shards():
    if not (SHARED / "faces512/val.tar").exists():
        pytest.skip("the shared face shards are not present")
    faces = FaceDataset(SHARED / "faces512/val.tar")
    assert Counter(source_of(key) for key in faces.keys) == {"synthetic": 100, "congress": 40, "faker": 10}
    assert faces[149]["hq"].shape == (3, 512, 512)
    pairs = PairDataset(SHARED / "pairs384/val.tar")
    assert pairs[0]["lq"].shape == (3, 384, 384)


@pytest.mark.parametrize(
    "names", [("images1024x1024/00000/00000.png", "images1024x1024/01000/01000.png"), ("0.jpg", "29999.jpg")]
)
def test_ffhq_and_celeba_hq_folders_are_scaled_to_the_recipes_size(tmp_path, names):
    # A disc on black: scaled by area or Lanczos, its middle stays white and its corner black.
    y, x = np.mgrid[:128, :128] - 63.5
    disc = np.repeat((np.hypot(x, y) < 40).astype(np.uint8)[..., None] * 255, 3, 2)
    for name in names:
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(disc).save(tmp_path / name, quality=100)
    faces = FaceDataset(tmp_path, SIZE)
    assert faces.keys == tuple(name.rpartition(".")[0] for name in names)
    face_pixels = faces.read(1)
    assert face_pixels.shape == (SIZE, SIZE, 3)
    assert face_pixels[SIZE // 2, SIZE // 2].min() > 250
    assert face_pixels[0, 0].max() < 5
    # The area of the disc is kept: pi 40^2 of 128^2.
    assert face_pixels.mean() / 255 == pytest.approx(np.pi * 40**2 / 128**2, abs=0.01)


def test_pictures_that_are_not_square_are_refused_or_cut(tmp_path):
    wild = tmp_path / "in-the-wild-images/00000/00000.png"
    wild.parent.mkdir(parents=True)
    pixels = face(0, 100)[:, :SIZE]
    Image.fromarray(pixels).save(wild)
    with pytest.raises(FlipnetError, match=r"00000\.png: is 32x100, but square .* data\.crop_to_square"):
        FaceDataset(tmp_path, SIZE).read(0)
    np.testing.assert_array_equal(FaceDataset(tmp_path, SIZE, crop=True).read(0), pixels[34:66])
