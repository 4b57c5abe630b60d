import io
import tarfile
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from torch.utils.data import DataLoader

from flipnet.config import StorageConfig
from flipnet.data.degradation_code import NAMES, degradation_code
from flipnet.data.pair_layouts import LAYOUTS, index_pairs
from flipnet.data.pairs import PairSource, TrainingPairs
from flipnet.data.sampling import SeededBatches
from flipnet.types import FlipnetError

PAIRS = Path(__file__).parents[2] / "../shared/data/pairs384/val.tar"


def picture(seed, height=40, width=48):
    return np.random.default_rng(seed).integers(0, 256, (height, width, 3), dtype=np.uint8)


def save(path, pixels):
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(pixels).save(path, "PNG")


def tree(root, *names):
    """A picture of its own for every name."""
    for number, name in enumerate(names):
        save(root / name, picture(number))
    return root


# Trees as the releases unpack, every clean picture right before its degraded one.
TREES = {
    "dense-haze": (
        ("GT/01_GT.png", "hazy/01_hazy.png", "GT/55_GT.png", "hazy/55_hazy.png"),
        ["densehaze-01", "densehaze-55"],
    ),
    "lol": (
        ("our485/high/2.png", "our485/low/2.png", "our485/high/10.png", "our485/low/10.png"),
        ["lol-our485-2", "lol-our485-10"],
    ),
    "sidd": (
        (
            "Data/0001_001_S6_00100_00060_3200_L/0001_GT_SRGB_010.PNG",
            "Data/0001_001_S6_00100_00060_3200_L/0001_NOISY_SRGB_010.PNG",
            "Data/0001_001_S6_00100_00060_3200_L/0001_GT_SRGB_011.PNG",
            "Data/0001_001_S6_00100_00060_3200_L/0001_NOISY_SRGB_011.PNG",
            "Data/0200_010_GP_01600_03200_5500_N/0200_GT_SRGB_010.PNG",
            "Data/0200_010_GP_01600_03200_5500_N/0200_NOISY_SRGB_010.PNG",
        ),
        [
            "sidd-0001_001_S6_00100_00060_3200_L-010",
            "sidd-0001_001_S6_00100_00060_3200_L-011",
            "sidd-0200_010_GP_01600_03200_5500_N-010",
        ],
    ),
    "realblur-j": (
        (
            "scene001/gt/gt_1.png",
            "scene001/blur/blur_1.png",
            "scene234/gt/gt_21.png",
            "scene234/blur/blur_21.png",
        ),
        ["realblur-scene001-1", "realblur-scene234-21"],
    ),
    "city100": (
        (
            "City100_NikonD5500/001H.PNG",
            "City100_NikonD5500/001L.PNG",
            "City100_iPhoneX/100H.PNG",
            "City100_iPhoneX/100L.PNG",
        ),
        ["city100-nikond5500-001", "city100-iphonex-100"],
    ),
}
SPLIT = {"lol": "our485"}


@pytest.mark.parametrize("layout", TREES)
def test_folder_layouts(tmp_path, layout):
    names, keys = TREES[layout]
    root = tree(tmp_path, *names) / SPLIT.get(layout, "")
    pairs = {pair.key: pair for pair in index_pairs(layout, root)}
    assert set(pairs) == set(keys)
    for key, hq, lq in zip(keys, names[::2], names[1::2], strict=True):
        assert (pairs[key].hq.path, pairs[key].lq.path) == (tmp_path / hq, tmp_path / lq)
    first = TrainingPairs([PairSource(layout, root)], 32)
    assert len(first) == len(keys)
    assert first[0, 0]["hq"].shape == (3, 32, 32)


@pytest.mark.parametrize("layout", TREES)
def test_a_picture_without_partner_is_named(tmp_path, layout):
    names, _ = TREES[layout]
    root = tree(tmp_path, *names) / SPLIT.get(layout, "")
    (tmp_path / names[1]).unlink()
    with pytest.raises(FlipnetError, match=rf"{Path(names[0]).name}: has no degraded partner; expected '?\w"):
        index_pairs(layout, root)


@pytest.mark.parametrize("layout", TREES)
def test_another_layout_names_folder_and_expectation(tmp_path, layout):
    (tmp_path / "whatever").mkdir()
    with pytest.raises(FlipnetError, match=r"expected .*(png|PNG)") as error:
        index_pairs(layout, tmp_path)
    assert str(tmp_path) in str(error.value)
    with pytest.raises(FlipnetError, match=rf"no such file or folder \(pair layout '{layout}'\)"):
        index_pairs(layout, tmp_path / "missing")


def test_pictures_named_otherwise_are_named(tmp_path):
    tree(tmp_path, "GT/01_GT.png", "hazy/01_hazy.png", "hazy/02_foggy.png")
    with pytest.raises(FlipnetError, match=r"02_foggy\.png: is not named .* like 'N_hazy'"):
        index_pairs("dense-haze", tmp_path)


def test_one_city100_camera_and_a_lol_root(tmp_path):
    tree(tmp_path, *TREES["city100"][0])
    assert [p.key for p in index_pairs("city100", tmp_path / "City100_iPhoneX")] == ["city100-iphonex-100"]
    tree(tmp_path, *TREES["lol"][0])
    with pytest.raises(FlipnetError, match="our485, for instance"):
        index_pairs("lol", tmp_path)


def realblur_list(tmp_path, *lines):
    tree(tmp_path / "RealBlur-J_ECC_IMCORR_centroid_itensity_ref", *TREES["realblur-j"][0])
    path = tmp_path / "RealBlur_J_train_list.txt"
    path.write_text("\n".join(lines) + "\n")
    return path


def test_realblur_list(tmp_path):
    folder = "RealBlur-J_ECC_IMCORR_centroid_itensity_ref/scene234"
    path = realblur_list(tmp_path, f"{folder}/gt/gt_21.png {folder}/blur/blur_21.png ", "")
    (pair,) = index_pairs("realblur-j", path)
    assert pair.key == "realblur-scene234-21"
    assert (pair.hq.path.name, pair.lq.path.name) == ("gt_21.png", "blur_21.png")


@pytest.mark.parametrize(
    ("line", "named"),
    [
        ("gt_1.png", r"list\.txt, line 1: expected lines 'GT-PATH BLUR-PATH'"),
        ("a/gt/gt_1.png a/blur/blur_1.png", r"list\.txt, line 1: .*gt_1\.png does not exist"),
        ("", r"list\.txt: no pairs found"),
    ],
)
def test_bad_realblur_lists(tmp_path, line, named):
    with pytest.raises(FlipnetError, match=named):
        index_pairs("realblur-j", realblur_list(tmp_path, line))


def shard(path, **pixels):
    """A tar with <key>.hq.webp and <key>.lq.webp for every key, "_" standing for "-"."""
    with tarfile.open(path, "w") as packed:
        for key, (hq, lq) in pixels.items():
            for role, image in (("hq", hq), ("lq", lq)):
                buffer = io.BytesIO()
                Image.fromarray(image).save(buffer, "WEBP", lossless=True)
                member = tarfile.TarInfo(f"{key.replace('_', '-')}.{role}.webp")
                member.size = buffer.tell()
                packed.addfile(member, io.BytesIO(buffer.getvalue()))
    return path


def test_shards_by_file_glob_and_folder(tmp_path):
    shard(tmp_path / "a.tar", sots_x_1=(picture(1), picture(2)))
    shard(tmp_path / "b.tar", polyu_x_1=(picture(3), picture(4)))
    for path in (tmp_path, tmp_path / "*.tar", str(tmp_path / "?.tar")):
        assert [pair.key for pair in index_pairs("shards", path)] == ["sots-x-1", "polyu-x-1"]
    pairs = TrainingPairs([PairSource("shards", tmp_path / "b.tar")], 40, flip_horizontal=False)
    np.testing.assert_array_equal(
        pairs[0, 0]["hq"].permute(1, 2, 0), picture(3)[:, crop_left(pairs[0, 0], 3) :][:, :40]
    )
    empty = tmp_path / "empty"
    empty.mkdir()
    with pytest.raises(FlipnetError, match=r"No images found in .*empty"):
        index_pairs("shards", empty)


def crop_left(item, seed):
    """Where a 40 px crop of picture(seed) starts, found by looking."""
    crop = item["hq"].permute(1, 2, 0).numpy()
    return next(left for left in range(9) if np.array_equal(picture(seed)[:, left : left + 40], crop))


def gradient_pair(tmp_path, height=60, width=80):
    """A clean picture whose red and green tell x and y, and its darkened twin, half as bright."""
    y, x = np.mgrid[:height, :width]
    hq = np.stack([2 * x, 2 * y, np.full_like(x, 200)], axis=2).astype(np.uint8)
    return shard(tmp_path / "g.tar", a_b_0=(hq, hq // 2))


def test_both_pictures_are_cut_and_flipped_alike(tmp_path):
    source = PairSource("shards", gradient_pair(tmp_path))
    pairs = TrainingPairs([source], 24, flip_vertical=True)
    corners, flips = set(), set()
    for seed in range(60):
        item = pairs[0, seed]
        assert item["hq"].dtype == torch.uint8
        assert item["hq"].is_contiguous()
        torch.testing.assert_close(item["lq"], item["hq"] // 2)
        x, y = item["hq"][0, 0] // 2, item["hq"][1, :, 0] // 2
        flips.add((bool(x[0] > x[1]), bool(y[0] > y[1])))
        corners.add((int(x.min()), int(y.min())))
        assert sorted(x.tolist()) == list(range(int(x.min()), int(x.min()) + 24))
    assert len(flips) == 4
    assert len(corners) > 50
    assert min(left for left, _ in corners) < 8
    assert max(left for left, _ in corners) > 48  # of at most 80 - 24
    assert max(top for _, top in corners) > 28  # of at most 60 - 24
    plain = TrainingPairs([source], 24, flip_horizontal=False)
    assert all(int(plain[0, s]["hq"][0, 0, 0]) < int(plain[0, s]["hq"][0, 0, 1]) for s in range(20))


def test_same_seed_same_item(tmp_path):
    pairs = TrainingPairs([PairSource("shards", gradient_pair(tmp_path))], 24, window=(1, 2))
    torch.testing.assert_close(pairs[0, 5], pairs[0, 5])
    assert not torch.equal(pairs[0, 5]["hq"], pairs[0, 6]["hq"])


def test_storing_changes_the_bad_side_alone_and_the_code_tells(tmp_path):
    source = PairSource("shards", gradient_pair(tmp_path))
    plain = TrainingPairs([source], 24)
    stored = TrainingPairs([source], 24, storage=StorageConfig(gray_share=1.0, small_share=1.0))
    off = TrainingPairs([source], 24, storage=StorageConfig())
    for seed in range(5):
        torch.testing.assert_close(off[0, seed], plain[0, seed])
        assert torch.equal(stored[0, seed]["hq"], plain[0, seed]["hq"])
        assert torch.equal(stored[0, seed]["lq"], stored[0, seed]["lq"])
        saturation = NAMES.index("saturation")
        assert stored[0, seed]["code"][saturation] < 0.5 < plain[0, seed]["code"][saturation]
        hq, lq = (stored[0, seed][role].permute(1, 2, 0).numpy() for role in ("hq", "lq"))
        np.testing.assert_array_equal(stored[0, seed]["code"], degradation_code(hq, lq))


def test_small_pictures_are_enlarged_and_windows_reduced(tmp_path):
    source = PairSource("shards", gradient_pair(tmp_path))
    enlarged = TrainingPairs([source], 120, flip_horizontal=False)[0, 0]
    assert enlarged["hq"].shape == (3, 120, 120)
    # The whole height of 60 rows spread over 120: green rises by 2 per row, so by 1 per new row.
    green = enlarged["hq"][1, :, 60].int()
    assert green[100] - green[20] == pytest.approx(80, abs=2)
    torch.testing.assert_close(enlarged["lq"].int(), enlarged["hq"].int() // 2, atol=2, rtol=0)
    reduced = TrainingPairs([source], 20, window=(2, 2), flip_horizontal=False)[0, 0]
    red = reduced["hq"][0, 10].int()
    assert red[15] - red[5] == pytest.approx(40, abs=2)


def test_weights_by_source_and_prefix(tmp_path):
    pair = (picture(0), picture(1))
    mixed = shard(
        tmp_path / "m.tar", sots_a_0=pair, sots_a_1=pair, sotsnot_a_0=pair, cc_x_0=pair, cc_y_0=pair
    )
    haze = tree(tmp_path / "haze", *TREES["dense-haze"][0])
    sources = [
        PairSource("shards", mixed, 2.0, {"sots": 0.25, "cc": 3.0, "cc-y": 0.0}),
        PairSource("dense-haze", haze, 0.5),
    ]
    pairs = TrainingPairs(sources, 32)
    assert pairs.keys == (
        "sots-a-0",
        "sots-a-1",
        "sotsnot-a-0",
        "cc-x-0",
        "cc-y-0",
        "densehaze-01",
        "densehaze-55",
    )
    np.testing.assert_allclose(pairs.weights(), np.array([0.5, 0.5, 2, 6, 0, 0.5, 0.5]) / 10)
    batches = SeededBatches(pairs.weights(), batch_size=4, steps=2, seed=1)
    loaded = list(DataLoader(pairs, batch_sampler=batches))
    assert [batch["lq"].shape for batch in loaded] == [(4, 3, 32, 32)] * 2


@pytest.mark.parametrize(
    ("source", "named"),
    [
        ({"weight": -1.0}, "negative"),
        ({"weight": 0.0}, "zero"),
        ({"key_weights": {"gopro": 1.0}}, "starts with 'gopro', .* keys start with a"),
        ({"layout": "densehaze"}, f"'densehaze'; known are {', '.join(LAYOUTS)}"),
    ],
)
def test_bad_sources_are_named(tmp_path, source, named):
    given = {"layout": "shards", "path": gradient_pair(tmp_path)} | source
    with pytest.raises(FlipnetError, match=named):
        TrainingPairs([PairSource(**given)], 24)


def test_pictures_of_two_sizes_are_named_before_training(tmp_path):
    path = shard(tmp_path / "s.tar", a_b_0=(picture(0), picture(1, 40, 47)))
    with pytest.raises(FlipnetError, match=r"s\.tar: a-b-0\.hq is 48x40 but .*lq is 47x40"):
        TrainingPairs([PairSource("shards", path)], 24)
    tree(tmp_path / "haze", *TREES["dense-haze"][0])
    (tmp_path / "haze/GT/01_GT.png").write_bytes(b"no picture")
    with pytest.raises(FlipnetError, match=r"01_GT\.png: cannot be read as an image"):
        TrainingPairs([PairSource("dense-haze", tmp_path / "haze")], 24)


def test_bad_arguments():
    with pytest.raises(FlipnetError, match="one source"):
        TrainingPairs([], 24)
    with pytest.raises(FlipnetError, match="crop_px"):
        TrainingPairs([PairSource("shards", "x")], 0)


def test_shared_pairs():
    if not PAIRS.exists():
        pytest.skip("the shared clean/degraded pairs are not here")
    pairs = TrainingPairs([PairSource("shards", PAIRS, key_weights={"sots": 0.2})], 256)
    assert len(pairs) > 50
    sots = np.array([key.startswith("sots-") for key in pairs.keys])
    assert pairs.weights()[sots].max() == pytest.approx(0.2 * pairs.weights()[~sots].max())
    item = pairs[0, 1]
    difference = (item["hq"].float() - item["lq"].float()).abs().mean()
    assert 0 < difference < 40
