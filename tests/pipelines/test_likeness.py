"""Likeness before and after: the encoder's own measure, dlib's where installed, and the warning."""

import numpy as np
import pytest

from flipnet.faces.photo import FaceResult, PhotoResult
from flipnet.images import Photo
from flipnet.pipelines.likeness import DLIB, FACE_ENCODER, THRESHOLDS, LikenessCheck, encoder_similarity
from flipnet.types import Face
from tiny import tiny_pipeline


@pytest.fixture(scope="module")
def encoder():
    return tiny_pipeline().face_encoder


@pytest.fixture
def faces():
    return np.random.default_rng(5).integers(0, 255, (2, 64, 64, 3), np.uint8)


def result(before, after):
    face = Face((0, 0, 9, 9), np.zeros((5, 2), np.float32), 1.0)
    status = "failed" if after is None else "restored"
    return FaceResult(0, face, status, None, ("first",), 0.0, 1.0, 0, before, after)


def test_the_encoder_measures_cosines_of_its_two_halves(encoder, faces):
    value = encoder_similarity(encoder, faces[0], faces[1])
    assert -1 <= value <= 1
    # Of an encoder whose halves are the same, a face is its own likeness.
    encoder.encoders["hq"].load_state_dict(encoder.encoders["lq"].state_dict())
    assert encoder_similarity(encoder, faces[0], faces[0]) == pytest.approx(1, abs=1e-5)
    assert encoder_similarity(encoder, faces[0], faces[1]) < 0.999


def test_dlib_goes_first_and_the_encoder_stands_in(encoder, faces, monkeypatch):
    pytest.importorskip("dlib", reason="dlib (extra 'evaluation') is not installed")
    assert LikenessCheck(encoder).method == DLIB
    assert LikenessCheck(None).compare(faces[0], faces[0]).similarity == pytest.approx(1, abs=1e-5)
    monkeypatch.setitem(__import__("sys").modules, "dlib", None)  # makes `import dlib` fail
    assert LikenessCheck(encoder).method == FACE_ENCODER
    assert LikenessCheck(encoder).compare(faces[0], faces[0]).threshold == THRESHOLDS[FACE_ENCODER]
    nothing = LikenessCheck(None)
    assert (nothing.method, nothing.compare(faces[0], faces[0])) == (None, None)


def test_only_low_likeness_is_warned_about_and_failed_faces_are_left_out(encoder, faces, monkeypatch):
    monkeypatch.setitem(__import__("sys").modules, "dlib", None)
    check = LikenessCheck(encoder)
    photo = Photo(faces[0])
    found = (result(faces[0], faces[0]), result(faces[0], faces[1]), result(faces[0], None))
    for threshold, warned in ((2.0, True), (-2.0, False)):
        monkeypatch.setitem(THRESHOLDS, FACE_ENCODER, threshold)
        same, other, failed = check.examine(PhotoResult(photo, found)).faces
        assert same.likeness.is_low == other.likeness.is_low == warned
        assert [len(face.warnings) for face in (same, other)] == [1 + warned] * 2
        assert same.warnings[0] == "first"
        assert failed == found[2]
