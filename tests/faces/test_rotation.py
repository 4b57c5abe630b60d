"""Turned photos: geometry against Pillow's own turns, and the astronaut found at every angle."""

import numpy as np
import pytest
import skimage.data

from flipnet.faces.align import align, estimate_similarity, invert, transform_points
from flipnet.faces.detect import CenterFaceDetector
from flipnet.faces.rotation import TurningDetector, roll_deg, turn
from flipnet.types import Face, FlipnetError


@pytest.fixture(scope="module")
def upright():
    return CenterFaceDetector()


@pytest.fixture(scope="module")
def astronaut():
    return skimage.data.astronaut()[:256, 80:380]


@pytest.fixture(scope="module")
def face(upright, astronaut):
    (found,) = upright(astronaut)
    return found


@pytest.mark.parametrize(("degrees", "times"), [(90, 3), (180, 2), (270, 1)])
def test_quarter_turns_are_exact(astronaut, degrees, times):
    turned, matrix = turn(astronaut, degrees)
    np.testing.assert_array_equal(turned, np.rot90(astronaut, times))  # numpy turns anticlockwise
    marked = np.zeros_like(astronaut)
    marked[40, 7] = 255
    ((y, x),) = np.argwhere(turn(marked, degrees)[0].any(-1))
    np.testing.assert_allclose(transform_points(matrix, np.array([7.0, 40.0])), (x, y), atol=1e-9)


def test_a_slanted_turn_holds_the_whole_photo_where_the_matrix_says(astronaut):
    turned, matrix = turn(astronaut, 30)
    height, width = astronaut.shape[:2]
    corners = transform_points(
        matrix, np.array([(0, 0), (width - 1, 0), (0, height - 1), (width - 1, height - 1)])
    )
    assert (corners > -1).all()
    assert (corners < turned.shape[1::-1]).all()
    marked = np.zeros_like(astronaut)
    marked[98:103, 58:63] = 255
    spot = turn(marked, 30)[0][..., 0].astype(float)
    spot[spot == 127] = 0
    y, x = (np.indices(spot.shape) * spot).sum((1, 2)) / spot.sum()
    np.testing.assert_allclose(transform_points(matrix, np.array([60.0, 100.0])), (x, y), atol=0.2)


@pytest.mark.parametrize(
    ("degrees", "rotations"), [(90, "auto"), (180, "auto"), (270, "quarter"), (150, "auto"), (60, "fine")]
)
def test_a_turned_face_is_found_and_comes_out_upright(upright, astronaut, face, degrees, rotations):
    turned, matrix = turn(astronaut, degrees)
    faces = TurningDetector(upright, rotations)(turned)
    found = faces[0]
    assert len(faces) == 1
    assert "turned by" in found.notes[0]
    expected = transform_points(matrix, face.landmarks_px)
    eyes = np.linalg.norm(face.landmarks_px[1] - face.landmarks_px[0])
    assert np.linalg.norm(found.landmarks_px - expected, axis=1).mean() < 0.1 * eyes
    x0, y0, x1, y1 = found.box_px
    nose = expected[2]
    assert x0 < nose[0] < x1
    assert y0 < nose[1] < y1
    # The aligned crop of the turned photo shows what that of the upright one shows.
    crops = [
        align(pixels, estimate_similarity(points, 64), 64)
        for pixels, points in ((astronaut, face.landmarks_px), (turned, found.landmarks_px))
    ]
    assert np.corrcoef(crops[0].ravel(), crops[1].ravel())[0, 1] > 0.85


def test_turns_are_not_tried_without_need(upright, astronaut, face):
    seen = []

    def counting(pixels):
        seen.append(pixels.shape)
        return upright(pixels)

    (found,) = TurningDetector(counting, "auto")(astronaut)
    assert len(seen) == 1
    np.testing.assert_array_equal(found.landmarks_px, face.landmarks_px)
    TurningDetector(counting, "off")(np.ascontiguousarray(np.rot90(astronaut)))
    assert len(seen) == 2


def test_a_lying_face_is_looked_for_once_more(upright, astronaut):
    seen = []

    def counting(pixels):
        seen.append(pixels.shape)
        return upright(pixels)

    lying, _ = turn(astronaut, 90)
    (found,) = TurningDetector(counting, "auto")(lying)
    assert len(seen) == 2
    assert roll_deg(found) == pytest.approx(90, abs=10)


def test_an_upright_face_stays_the_upright_find_and_is_listed_once(upright, astronaut, face):
    (found,) = TurningDetector(upright, "quarter")(astronaut)
    assert found.notes == ()
    assert found.box_px == face.box_px


def test_boxes_of_turned_finds_are_brought_back_to_large_photos():
    # A detector that "sees" one face at a fixed share of whatever it is shown, upright in the turned photo.
    def at_share(pixels):
        height, width = pixels.shape[:2]
        if not pixels[:, -50:].all():  # the photo's top, turned clockwise
            return []
        box = np.array([0.5 * width, 0.2 * height, 0.6 * width, 0.5 * height]) - 0.5
        points = np.array([(0.52, 0.3), (0.58, 0.3), (0.55, 0.35), (0.53, 0.4), (0.57, 0.4)])
        return [Face(tuple(box), (points * (width, height) - 0.5).astype(np.float32), 0.9)]

    photo = np.zeros((4800, 1000, 3), np.uint8)
    photo[:400] = 255
    (found,) = TurningDetector(at_share, "auto")(photo)
    # Turned by 90 degrees clockwise the new x runs up the photo: x' = H - y, y' = x.
    np.testing.assert_allclose(found.box_px, np.array([200, 1920, 500, 2400]) - 0.5, atol=1e-3)
    np.testing.assert_allclose(found.landmarks_px[0], (299.5, 0.48 * 4800 - 0.5), atol=1e-3)


def test_photos_without_faces_stay_without(upright):
    for name in ("coffee", "chelsea"):
        assert TurningDetector(upright, "auto")(getattr(skimage.data, name)()) == []


def test_unknown_rotations_are_named(upright):
    with pytest.raises(FlipnetError, match="'some' is not one of auto, off, quarter, fine"):
        TurningDetector(upright, "some")


def test_turning_back_is_the_inverse(astronaut):
    _, there = turn(astronaut, 120)
    points = np.array([(0.0, 0.0), (17.0, 230.0)])
    np.testing.assert_allclose(
        transform_points(invert(there), transform_points(there, points)), points, atol=1e-9
    )
