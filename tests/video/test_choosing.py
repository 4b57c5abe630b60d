from __future__ import annotations

import numpy as np
import pytest

from flipnet.faces.align import TEMPLATE_512
from flipnet.faces.selection import FaceSelection
from flipnet.faces.tracking import PlacedFace
from flipnet.types import Face, FlipnetError
from flipnet.video.choosing import FaceChooser

FRAME = (200, 400, 3)


def placed(track: int, x: float, side: float) -> PlacedFace:
    landmarks = (TEMPLATE_512 - TEMPLATE_512.mean(0)) * side / 256 + (x, 100)
    half = side / 2
    face = Face((x - half, 100 - half, x + half, 100 + half), landmarks.astype(np.float32), 0.9)
    return PlacedFace(track, face, 1.0)


def chosen(chooser: FaceChooser, *faces: PlacedFace) -> list[int]:
    reasons = chooser(faces, FRAME)
    return [face.track for face, reason in zip(faces, reasons, strict=True) if reason is None]


def test_the_largest_face_stays_chosen_until_another_is_clearly_larger():
    choose = FaceChooser(FaceSelection("largest"))
    assert chosen(choose, placed(0, 80, 60), placed(1, 300, 58)) == [0]
    assert chosen(choose, placed(0, 80, 58), placed(1, 300, 62)) == [0]
    assert chosen(choose, placed(0, 80, 58), placed(1, 300, 70)) == [1]
    assert chosen(choose, placed(0, 80, 62), placed(1, 300, 60)) == [1]


def test_the_central_face_is_the_one_nearest_to_the_middle():
    choose = FaceChooser(FaceSelection("center"))
    assert chosen(choose, placed(0, 80, 60), placed(1, 190, 40)) == [1]
    assert chosen(choose, placed(0, 205, 60), placed(1, 160, 40)) == [0]


def test_a_chosen_face_that_is_gone_is_followed_by_another():
    choose = FaceChooser(FaceSelection("largest"))
    assert chosen(choose, placed(0, 80, 60), placed(1, 300, 50)) == [0]
    assert chosen(choose, placed(1, 300, 50)) == [1]
    assert chosen(choose) == []


def test_small_faces_are_left_alone_with_a_reason():
    choose = FaceChooser(FaceSelection())
    reasons = choose([placed(0, 80, 60), placed(1, 300, 12)], FRAME)
    assert reasons[0] is None
    assert "small" in reasons[1]


def test_numbers_mean_nothing_in_a_clip():
    with pytest.raises(FlipnetError, match="all, largest or center"):
        FaceChooser(FaceSelection((0, 2)))
