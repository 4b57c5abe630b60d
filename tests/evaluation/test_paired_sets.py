from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from flipnet.data.datasets import FaceDataset, index_images
from flipnet.data.degradation import degrade_with, preset
from flipnet.evaluation.face_sets import load_face_set
from flipnet.evaluation.paired_sets import (
    ContentMeasurer,
    hq_key,
    measure_diversity,
    pixel_rmse,
    variant_groups,
)
from flipnet.types import FlipnetError

VAL = Path(__file__).parents[2] / "../shared/data/faces512/val.tar"


def flat(level):
    return np.full((512, 512, 3), level, np.uint8)


def save(folder, **images):
    folder.mkdir(exist_ok=True)
    for name, pixels in images.items():
        Image.fromarray(pixels).save(folder / f"{name}.png", compress_level=1)
    return folder


def test_pixel_rmse_by_hand():
    image = flat(10)
    other = image.copy()
    other[:256, :, 0] = 40  # 30 levels in a sixth of all values
    assert pixel_rmse(image, other) == pytest.approx(np.sqrt(900 / 6))


def test_variants_are_numbered_names_of_known_faces():
    keys = ["a_00", "a_01", "b", "c_00", "d_00", "d_01", "d_02"]
    assert variant_groups(keys, {}) == [[0, 1], [4, 5, 6]]
    assert variant_groups(keys, {"d": None, "a_00": None, "a_01": None}) == [[4, 5, 6]]


def test_an_lq_image_finds_its_hq_face():
    hq = {"a": None, "b_00": None}
    assert hq_key("a_03", hq) == "a"
    assert hq_key("b_00", hq) == "b_00"
    assert hq_key("a", hq) == "a"
    assert hq_key("c_00", hq) is None


def test_diversity_by_hand(tmp_path):
    # Face a: levels 0, 10, 30 differ by 10, 30, 20, mean 20; face b: 5 and 45 differ by 40; mean of faces 30.
    levels = {"a_00": 0, "a_01": 10, "a_02": 30, "b_00": 5, "b_01": 45, "c_00": 90}
    folder = save(tmp_path / "m", **{name: flat(level) for name, level in levels.items()})
    points = np.array([[0, 0], [3, 4], [3, 4], [1, 1], [1, 3], [9, 9.0]])
    diversity = measure_diversity(index_images(folder), points, {})
    assert (diversity.faces, diversity.variants) == (2, 2.5)
    assert diversity.pixel_rmse_levels == pytest.approx(30)
    assert diversity.feature_distance == pytest.approx((10 / 3 + 2) / 2)
    assert measure_diversity(index_images(folder), points, {"c": None}) is None
    assert measure_diversity(index_images(folder), points, {}, max_faces=1).pixel_rmse_levels == 20


def test_content_of_a_harmless_and_a_harmful_method(tmp_path):
    pytest.importorskip("dlib", reason="dlib (extra 'evaluation') is not installed")
    if not VAL.exists():
        pytest.skip("the shared face shards are not present")
    dataset = FaceDataset(VAL)
    clean = {f"f{index}": dataset.read(index) for index in (3, 70, 120)}
    hq = {entry.key: entry for entry in index_images(save(tmp_path / "hq", **clean))}
    same = save(tmp_path / "same", **{f"{name}_00": face for name, face in clean.items()})
    bad = {
        f"{name}_00": degrade_with(preset("severe"), face, i)[0]
        for i, (name, face) in enumerate(clean.items())
    }
    worse = save(tmp_path / "worse", **bad, f3_01=flat(128), other_00=flat(1))
    measurer = ContentMeasurer(hq)
    harmless = measurer.measure(load_face_set("same", same))
    assert harmless.identity_distance.percentile_95 == harmless.landmark_shift_px.percentile_95 == 0
    assert (harmless.pairs, harmless.lq_without_face, harmless.without_hq) == (3, 0, 0)
    harmful = measurer.measure(load_face_set("worse", worse))
    assert (harmful.pairs, harmful.without_hq) == (4, 1)
    assert 1 <= harmful.lq_without_face < 4
    assert 0.3 < harmful.identity_distance.median < harmful.identity_distance.percentile_95
    assert 0 < harmful.landmark_shift_px.median < 60


def test_content_needs_names_that_fit(tmp_path):
    hq = {entry.key: entry for entry in index_images(save(tmp_path / "hq", a=flat(1)))}
    faces = load_face_set("m", save(tmp_path / "m", b_00=flat(2)))
    with pytest.raises(FlipnetError, match=r"m: none of its names fits an HQ face.*'b_00'"):
        ContentMeasurer(hq).measure(faces)
    assert ContentMeasurer({}).measure(faces) is None
