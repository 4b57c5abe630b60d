"""Which faces are restored and why not: made-up faces whose sizes, scores and places are known."""

import numpy as np
import pytest

from flipnet.faces.align import TEMPLATE_512
from flipnet.faces.selection import (
    FaceSelection,
    eye_distance_px,
    parse_indices,
    parse_which,
    reasons_to_skip,
    size_px,
)
from flipnet.types import Face, FlipnetError

SHAPE = (300, 400, 3)


def face(x, y, size, score=0.9):
    """A face whose box is 0.8 size wide and size high, centred on (x, y)."""
    landmarks = ((TEMPLATE_512 - 256) * (size / 355) + (x, y)).astype(np.float32)
    return Face((x - 0.4 * size, y - size / 2, x + 0.4 * size, y + size / 2), landmarks, score)


GROUP = [face(60, 60, 100), face(200, 150, 50, 0.6), face(300, 200, 20), face(350, 60, 80, 0.95)]


def restored(faces=GROUP, **options):
    reasons = reasons_to_skip(faces, SHAPE, FaceSelection(**options))
    return [index for index, reason in enumerate(reasons) if reason is None]


def test_size_is_the_longer_side_and_eyes_come_from_the_template():
    assert size_px(GROUP[0]) == pytest.approx(100)
    # 126 of the template's 512 pixels between the eyes, its face box 355 high.
    assert eye_distance_px(GROUP[0]) == pytest.approx(125.92 / 355 * 100, abs=0.1)


@pytest.mark.parametrize(
    ("options", "chosen"),
    [
        ({}, [0, 1, 3]),
        ({"which": "largest"}, [0]),
        ({"which": "largest", "exclude": (0,)}, [3]),
        ({"which": "center"}, [1]),
        ({"which": "center", "min_score": 0.7}, [0]),
        ({"which": (0, 3)}, [0, 3]),
        ({"which": (2,)}, [2]),
        ({"which": (2, 3), "min_size_px": 24}, [3]),
        ({"min_size_px": 0}, [0, 1, 2, 3]),
        ({"min_size_px": 60}, [0, 3]),
        ({"min_score": 0.95}, [3]),
        ({"exclude": (0, 1, 2, 3)}, []),
    ],
)
def test_faces_are_chosen_by_every_rule_at_once(options, chosen):
    # Without face 1, the centre face is 0: 166 pixels from the middle (200, 150), face 3 lies 175.
    assert restored(**options) == chosen


def test_every_face_left_alone_has_a_reason():
    reasons = reasons_to_skip(GROUP, SHAPE, FaceSelection(exclude=(0,), min_score=0.7))
    assert reasons == [
        "excluded",
        "score 0.60 is below 0.7",
        "too small: 20 pixels, at least 24 are asked for",
        None,
    ]
    assert reasons_to_skip(GROUP, SHAPE, FaceSelection((1,)))[0] == "not among the chosen faces"
    assert reasons_to_skip(GROUP, SHAPE, FaceSelection("largest"))[1] == "not the largest face"


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"which": (1, 4)}, "there is no face 4: 4 faces were found, 0 to 3"),
        ({"exclude": (9,)}, "there is no face 9"),
        ({"which": "best"}, "'best' is not one of all, largest, center"),
        ({"min_score": 1.2}, "min_score 1.2"),
        ({"min_size_px": -1}, "min_size_px -1"),
        ({"min_size_px": float("nan")}, "min_size_px nan"),
    ],
)
def test_what_cannot_be_is_named(options, message):
    with pytest.raises(FlipnetError, match=message):
        restored(**options)


def test_words_and_numbers_are_read():
    assert [parse_which(word) for word in ("all", "largest", "center")] == ["all", "largest", "center"]
    assert parse_which("2,0, 2") == (0, 2)
    assert parse_indices("7") == (7,)


@pytest.mark.parametrize("text", ["", "1,", "-1", "0;2", "١", "1.0", "99999999", "biggest"])
def test_other_text_is_refused(text):
    with pytest.raises(FlipnetError, match="such as 0,2"):
        parse_which(text)
