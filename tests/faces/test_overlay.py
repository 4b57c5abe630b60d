"""Pictures about faces: where they draw, and that they leave the rest alone."""

import numpy as np
import pytest

from flipnet.faces.align import template
from flipnet.faces.overlay import SPREAD_TOP_LEVELS, annotate_faces, heat, uncertainty_overlay
from flipnet.faces.photo import FaceResult
from flipnet.images import Photo
from flipnet.types import Face, Findings

SIDE = 64


def face(offset=(40.0, 30.0), scale=1.0):
    points = template(SIDE) * scale + offset
    return Face((offset[0], offset[1], offset[0] + 40, offset[1] + 50), points.astype(np.float32), 0.9)


def result(spread, at):
    crop = np.zeros((SIDE, SIDE, 3), np.uint8)
    findings = None if spread is None else Findings((0, 1), 0, spread.astype(np.float32), 0.0, 0.0)
    return FaceResult(0, at, "restored", None, (), 0.0, 1.0, 0, crop, crop, findings)


def test_boxes_are_green_or_orange_and_the_inside_is_the_photo():
    photo = Photo(np.full((200, 240, 3), 90, np.uint16) * 257, format="tiff")
    drawn = annotate_faces(photo, [face(), face((130.0, 100.0))], [None, "too small"])
    assert drawn.pixels.dtype == np.uint8
    assert drawn.format == "tiff"
    assert tuple(drawn.pixels[30, 70]) == (40, 200, 90)
    assert tuple(drawn.pixels[100, 160]) == (255, 140, 0)
    assert tuple(drawn.pixels[40, 50]) == (90, 90, 90)
    assert (photo.pixels == 90 * 257).all()


def test_boxes_may_reach_past_the_photo():
    photo = Photo(np.zeros((40, 40, 3), np.uint8))
    odd = Face((-30.0, -20.0, 90.0, 70.0), face().landmarks_px, 1.0)
    assert annotate_faces(photo, [odd], [None]).pixels.any()


def test_heat_grows_brighter_all_the_way():
    light = heat(np.linspace(0, SPREAD_TOP_LEVELS, 50)) @ (0.299, 0.587, 0.114)
    assert (np.diff(light) > 0).all()
    np.testing.assert_array_equal(heat(np.array([99.0])), heat(np.array([SPREAD_TOP_LEVELS])))


@pytest.mark.parametrize("upscale", [1, 2])
def test_heat_lies_where_the_face_is(upscale):
    photo = Photo(np.full((220 * upscale, 240 * upscale, 3), 120, np.uint8))
    spread = np.zeros((SIDE, SIDE))
    spread[24:28, 40:44] = SPREAD_TOP_LEVELS
    shown = uncertainty_overlay(photo, [result(spread, face())], upscale=upscale).pixels.astype(int)
    dimmed = round(120 * 0.7)
    assert (shown[: 25 * upscale] == dimmed).all()
    warm = shown[..., 0] - shown[..., 2]
    rows, columns = np.nonzero(warm > 40)
    inside = rows < 150 * upscale  # below lies the scale
    # Crop pixel (x, y) is photo pixel (x + 40, y + 30).
    centre = np.array([columns[inside].mean(), rows[inside].mean()])
    np.testing.assert_allclose((centre + 0.5) / upscale - 0.5, (81.5, 55.5), atol=0.6)


def test_a_face_without_samples_stays_gray():
    photo = Photo(np.full((200, 240, 3), 120, np.uint8))
    shown = uncertainty_overlay(photo, [result(None, face())]).pixels
    assert (shown[:150] == round(120 * 0.7)).all()
