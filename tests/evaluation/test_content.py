"""Identity distance and landmark shift of a known face under known changes."""

import numpy as np
import pytest
import skimage.data

from flipnet.evaluation.content import ContentCheck
from flipnet.faces.align import align, estimate_similarity
from flipnet.faces.detect import CenterFaceDetector


@pytest.fixture(scope="module")
def check():
    return ContentCheck()


@pytest.fixture(scope="module")
def face():
    """NASA's portrait of Eileen Collins, aligned to the 512-pixel template."""
    photo = skimage.data.astronaut()
    matrix = estimate_similarity(CenterFaceDetector()(photo)[0].landmarks_px, 512)
    return np.rint(align(photo, matrix, 512) * 255).astype(np.uint8)


def test_a_face_compared_with_itself_is_unchanged(check, face):
    change = check.compare(check.reference(face), face.copy())
    assert change.landmark_shift_px == 0
    assert change.landmarks_missing is None
    if change.identity_missing is None:
        assert change.identity_distance == 0


@pytest.mark.parametrize("factor", [1, 2])
def test_a_moved_face_shifts_by_as_much_in_pixels_of_a_512_crop(check, face, factor):
    # Half the size, half the move: the same shift in the 512-pixel frame.
    hq = face[::factor, ::factor]
    moved = np.roll(hq, 24 // factor, axis=1)
    change = check.compare(check.reference(hq), moved)
    assert change.landmark_shift_px == pytest.approx(24, abs=2.5)


def test_what_cannot_be_measured_has_a_reason(check, face):
    wall = np.full_like(face, 128)
    for hq, lq, where in ((wall, face, "clean"), (face, wall, "degraded")):
        change = check.compare(check.reference(hq), lq)
        assert change.landmark_shift_px is None
        assert change.landmarks_missing == f"no face was found in the {where} image"
        assert (change.identity_distance is None) == (change.identity_missing is not None)
