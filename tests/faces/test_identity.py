import sys
from pathlib import Path

import numpy as np
import pytest

from flipnet.data.datasets import FaceDataset
from flipnet.data.degradation import PRESETS, degrade_with
from flipnet.faces.identity import EYE_CORNERS_AND_NOSE_PX, IdentityNetwork, IdentityUnavailableError
from flipnet.types import FlipnetError

VAL = Path(__file__).parents[2] / "../shared/data/faces512/val.tar"


@pytest.fixture(scope="module")
def network():
    pytest.importorskip("dlib", reason="dlib (extra 'evaluation') is not installed")
    return IdentityNetwork()


@pytest.fixture(scope="module")
def faces():
    if not VAL.exists():
        pytest.skip("the shared face shards are not present")
    dataset = FaceDataset(VAL)
    return [dataset.read(index) for index in (0, 110, 145)]


def test_points_lie_where_the_ffhq_template_has_eyes_and_nose():
    # FFHQ template at 512 px: eye centres (192.98, 239.95) and (318.90, 240.19); dlib marks the corners.
    points = np.array(EYE_CORNERS_AND_NOSE_PX, float)
    np.testing.assert_allclose(points[2:4].mean(axis=0), (192.98, 239.95), atol=5)
    np.testing.assert_allclose(points[0:2].mean(axis=0), (318.90, 240.19), atol=5)
    assert abs(points[4, 0] - 256.6) < 5
    assert 314 < points[4, 1] < 345  # nose base, below the template's nose tip and above the mouth at 371


def test_same_person_is_nearer_than_any_other(network, faces):
    clean = [network.embed(face) for face in faces]
    for index, face in enumerate(faces):
        degraded, _ = degrade_with(PRESETS["mild"], face, index)
        distances = [np.linalg.norm(network.embed(degraded) - other) for other in clean]
        assert int(np.argmin(distances)) == index
        assert distances[index] < 0.45
        assert min(np.delete(distances, index)) > 0.5


def test_distance_is_a_distance(network, faces):
    assert network.distance(faces[0], faces[0]) == 0
    assert network.distance(faces[0], faces[1]) == pytest.approx(network.distance(faces[1], faces[0]))


def test_size_of_the_face_hardly_matters(network, faces):
    smaller = faces[0].reshape(256, 2, 256, 2, 3).mean(axis=(1, 3)).round().astype(np.uint8)
    assert network.distance(faces[0], smaller) < 0.25


def test_a_face_that_is_not_square_is_refused(network):
    with pytest.raises(FlipnetError, match="square"):
        network.embed(np.zeros((64, 32, 3), np.uint8))


def test_missing_dlib_names_the_extra(monkeypatch):
    monkeypatch.setitem(sys.modules, "dlib", None)
    with pytest.raises(IdentityUnavailableError, match=r"flipnet\[evaluation\]"):
        IdentityNetwork()
