"""Faces given by hand: the schema, one sentence per mistake, and landmarks for bare boxes."""

import json
from pathlib import Path

import numpy as np
import pytest
import skimage.data

from flipnet.faces.align import TEMPLATE_512
from flipnet.faces.detect import CenterFaceDetector
from flipnet.faces.given import GivenFaces, read_boxes
from flipnet.types import FlipnetError

LANDMARKS = [[10.0, 20.0], [30.0, 20.0], [20.0, 30.0], [12.0, 40.0], [28.0, 40.0]]


def given(tmp_path, content, name="a.jpg"):
    (tmp_path / "boxes.json").write_text(content if isinstance(content, str) else json.dumps({name: content}))
    return read_boxes(tmp_path / "boxes.json").for_photo(Path("somewhere") / name)


@pytest.fixture(scope="module")
def detector():
    return CenterFaceDetector()


def test_photos_are_found_by_path_before_name(tmp_path):
    (tmp_path / "b.json").write_text(
        json.dumps({"a.jpg": [], "x/a.jpg": [{"box_px": [0, 0, 9, 9], "score": 1, "extra": [{}]}]})
    )
    boxes = read_boxes(tmp_path / "b.json")
    assert boxes.for_photo(Path("y/a.jpg")) == ()
    assert boxes.for_photo(Path("x/a.jpg"))[0].box_px == (0, 0, 9, 9)
    with pytest.raises(FlipnetError, match=r"b\.json has no entry named 'c\.jpg'"):
        boxes.for_photo(Path("c.jpg"))


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("", r"boxes\.json: Invalid JSON: EOF"),
        ("{", r"boxes\.json: Invalid JSON"),
        ("[]", "Input should be an object"),
        ([{}], r"a\.jpg > 0: give box_px or landmarks_px"),
        ([{"box_px": [5, 5, 1, 9]}], r"a\.jpg > 0: box_px is x0, y0, x1, y1"),
        ([{"box_px": [1, 2, 3]}], r"a\.jpg > 0 > box_px > 3: Field required"),
        ([{"box_px": [0, 0, 9, "wide"]}], r"a\.jpg > 0 > box_px > 3: Input should be a valid number"),
        ('{"a.jpg": [{"box_px": [0, 0, 9, NaN]}]}', "finite number"),
        ([{"landmarks_px": [[3, 3]] * 5}], "the five landmarks coincide"),
        ([{"landmarks_px": LANDMARKS[:4]}], r"landmarks_px > 4: Field required"),
    ],
)
def test_mistakes_are_one_sentence_that_says_where(tmp_path, content, message):
    with pytest.raises(FlipnetError, match=message) as caught:
        given(tmp_path, content)
    assert "\n" not in str(caught.value)


def test_a_missing_file_is_named(tmp_path):
    with pytest.raises(FlipnetError, match=r"none\.json: cannot be read"):
        read_boxes(tmp_path / "none.json")


def test_landmarks_alone_get_the_box_a_detector_would_draw(tmp_path, detector):
    astronaut = skimage.data.astronaut()
    (found,) = detector(astronaut)
    faces = given(tmp_path, [{"landmarks_px": found.landmarks_px.tolist()}])
    (face,) = GivenFaces(faces, detector)(astronaut)
    np.testing.assert_array_equal(face.landmarks_px, found.landmarks_px)
    assert (face.score, face.notes) == (1.0, ())
    size = found.box_px[3] - found.box_px[1]
    np.testing.assert_allclose(face.box_px, found.box_px, atol=0.15 * size)


def test_a_box_round_a_face_gets_its_landmarks_and_keeps_its_order(tmp_path, detector):
    astronaut = skimage.data.astronaut()
    (found,) = detector(astronaut)
    faces = given(tmp_path, [{"box_px": [400, 400, 460, 480]}, {"box_px": list(found.box_px)}])
    nothing, someone = GivenFaces(faces, detector)(astronaut)
    np.testing.assert_allclose(someone.landmarks_px, found.landmarks_px, atol=2)
    assert someone.notes == ()
    assert someone.box_px == found.box_px
    assert "taken for an upright face" in nothing.notes[0]
    # The template's face box is 355 of 512 pixels high: the eyes are 126 / 355 of the box's height apart.
    eyes = nothing.landmarks_px[1] - nothing.landmarks_px[0]
    assert eyes[0] == pytest.approx((TEMPLATE_512[1, 0] - TEMPLATE_512[0, 0]) / 355.2 * 80, abs=0.1)
    assert nothing.landmarks_px[:, 0].mean() == pytest.approx(430, abs=2)


def test_a_box_outside_the_photo_is_no_error(tmp_path, detector):
    faces = given(tmp_path, [{"box_px": [900, 900, 990, 990]}, {"box_px": [-90, -90, -20, -20]}])
    found = GivenFaces(faces, detector)(np.zeros((64, 64, 3), np.uint8))
    assert [len(face.notes) for face in found] == [1, 1]
