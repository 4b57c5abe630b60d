import io
import tarfile
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from flipnet.data.datasets import FaceDataset, index_images
from flipnet.evaluation.face_sets import face_of_variant, load_face_set, measure_set, read_face
from flipnet.faces.align import template
from flipnet.faces.detect import CenterFaceDetector
from flipnet.types import FlipnetError

VAL = Path(__file__).parents[2] / "../shared/data/faces512/val.tar"


def picture(seed, size=512):
    return np.random.default_rng(seed).integers(0, 256, (size, size, 3), dtype=np.uint8)


def save(folder, **images):
    folder.mkdir(exist_ok=True)
    for name, pixels in images.items():
        Image.fromarray(pixels).save(folder / f"{name}.png", compress_level=1)
    return folder


def pack(path, names):
    with tarfile.open(path, "w") as shard:
        for index, name in enumerate(names):
            buffer = io.BytesIO()
            Image.fromarray(picture(index, 8)).save(buffer, format="PNG")
            info = tarfile.TarInfo(name)
            info.size = buffer.tell()
            buffer.seek(0)
            shard.addfile(info, buffer)
        info = tarfile.TarInfo("a_00.json")
        shard.addfile(info, io.BytesIO(b""))
    return path


def test_shards_of_pairs_give_lq_images_and_their_hq(tmp_path):
    names = ["a_00.hq.png", "a_00.lq.png", "a_01.hq.png", "a_01.lq.png"]
    shard = pack(tmp_path / "000.tar", names)
    for location in (shard, tmp_path):
        faces = load_face_set("m", location)
        assert faces.keys == ("a_00", "a_01")
        assert set(faces.paired_hq) == {"a_00", "a_01"}
        np.testing.assert_array_equal(read_image_of(faces.entries[1]), picture(3, 8))


def read_image_of(entry):
    with entry.path.open("rb") as file:
        file.seek(entry.offset)
        return np.asarray(Image.open(io.BytesIO(file.read(entry.length))))


def test_folders_are_listed_and_limited_evenly(tmp_path):
    folder = save(tmp_path / "m", **{f"f{index}_00": picture(0, 8) for index in range(6)})
    assert load_face_set("m", folder).keys == tuple(f"f{index}_00" for index in range(6))
    assert load_face_set("m", folder, limit=3).keys == ("f0_00", "f2_00", "f4_00")


def test_useless_locations_are_named(tmp_path):
    with pytest.raises(FlipnetError, match="nowhere"):
        load_face_set("m", tmp_path / "nowhere")
    pairs = pack(tmp_path / "p.tar", ["a.hq.png", "a.lq.png", "b.png"])
    with pytest.raises(FlipnetError, match=r"p\.tar: holds both"):
        load_face_set("m", pairs)
    with pytest.raises(FlipnetError, match=r"h\.tar: holds HQ images only"):
        load_face_set("m", pack(tmp_path / "h.tar", ["a.hq.png"]))
    with pytest.raises(FlipnetError, match="'a' occurs twice"):
        load_face_set("m", pack(tmp_path / "t.tar", ["a.png", "a.jpg"]))


def test_variant_names():
    assert face_of_variant("synthetic-x-12_03") == "synthetic-x-12"
    assert face_of_variant("deep/er/face_11") == "deep/er/face"
    assert face_of_variant("wiki_010040") is None
    assert face_of_variant("face") is None


def test_size_and_texture_are_checked_and_the_file_named(tmp_path):
    small = save(tmp_path / "small", s=picture(0, 64))
    with pytest.raises(FlipnetError, match=r"s\.png: is 64x64.*--detect"):
        measure_set(load_face_set("m", small))
    flat = save(tmp_path / "flat", f=np.full((512, 512, 3), 7, np.uint8))
    with pytest.raises(FlipnetError, match=r"flat/f\.png: the face is flat"):
        measure_set(load_face_set("m", flat))


def test_features_are_kept_in_the_cache_until_an_image_changes(tmp_path):
    folder = save(tmp_path / "m", a=picture(0), b=picture(1))
    cache = tmp_path / "cache"
    calls = []
    first = measure_set(load_face_set("m", folder), cache=cache, on_image=lambda: calls.append(1))
    again = measure_set(load_face_set("m", folder), cache=cache)
    assert first.milliseconds > 0
    assert len(calls) == 2
    assert again.milliseconds is None
    np.testing.assert_array_equal(again.features, first.features)
    save(folder, b=picture(2))
    changed = measure_set(load_face_set("m", folder), cache=cache)
    assert changed.milliseconds is not None
    np.testing.assert_array_equal(changed.features[0], first.features[0])
    assert (changed.features[1] != first.features[1]).any()


def test_photos_are_aligned_and_those_without_a_face_counted(tmp_path):
    if not VAL.exists():
        pytest.skip("the shared face shards are not present")
    face = FaceDataset(VAL).read(3)
    photo = np.full((500, 700, 3), 120, np.uint8)
    photo[100:356, 300:556] = np.asarray(Image.fromarray(face).resize((256, 256), Image.Resampling.LANCZOS))
    folder = save(tmp_path / "real", face=photo, none=np.full((300, 300, 3), 120, np.uint8))
    detector = CenterFaceDetector()
    measured = measure_set(load_face_set("real", folder), detector=detector)
    assert measured.without_face == ("none",)
    assert [entry.key for entry in measured.entries] == ["face"]
    aligned = read_face(index_images(folder)[0], detector)
    (found, *_) = detector(aligned)
    assert np.abs(found.landmarks_px - template(512)).mean() < 8
    inside = (slice(180, 400), slice(150, 360))
    assert np.corrcoef(aligned[inside].ravel(), face[inside].ravel())[0, 1] > 0.8
    only_none = save(tmp_path / "empty", none=np.full((300, 300, 3), 120, np.uint8))
    with pytest.raises(FlipnetError, match="empty: no face was found in any of its 1 images"):
        measure_set(load_face_set("real", only_none), detector=detector)
