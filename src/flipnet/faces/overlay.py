"""Pictures about a photo's faces: numbered boxes, and how much of each restored face was made up."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np
from PIL import Image, ImageDraw, ImageFont

from flipnet.faces.align import crop_box, estimate_similarity, for_upscaled, warp_back
from flipnet.faces.paste import mask_radius
from flipnet.images import Photo, to_8_bit
from flipnet.types import Face

if TYPE_CHECKING:
    from flipnet.faces.photo import FaceResult

_CHOSEN, _LEFT_ALONE, _INK = (40, 200, 90), (255, 140, 0), (0, 0, 0)

SPREAD_TOP_LEVELS = 24.0
"""Spread, in 8-bit levels, that gets the hottest colour. Fixed, so that pictures can be compared; our choice,
half as much again as the 95th percentile measured on real faces with the default steps."""

# Dark to bright, evenly stepped in lightness, so that it can be read in gray too.
_HEAT = np.array([(30, 20, 80), (125, 35, 130), (215, 70, 85), (250, 150, 45), (255, 245, 170)], np.float32)
_DIMMED = 0.7
_MASK_END, _MASK_FULL = 0.96, 0.72


def annotate_faces(photo: Photo, faces: Sequence[Face], reasons: Sequence[str | None]) -> Photo:
    """Draw each face's box, landmarks and number on a copy of the photo.

    Args:
        photo: the photo the faces were found in.
        faces: its faces; the number drawn is the place in this list, from 0.
        reasons: one per face, why it is left alone; None draws it in green, a reason in orange.

    Returns:
        8 bit, without alpha and metadata, same size and format.
    """
    picture = Image.fromarray(to_8_bit(photo.pixels).copy())
    draw = ImageDraw.Draw(picture)
    line = max(2, round(max(picture.size) / 500))
    font = ImageFont.load_default(max(12, line * 8))
    for number, (face, reason) in enumerate(zip(faces, reasons, strict=True)):
        colour = _CHOSEN if reason is None else _LEFT_ALONE
        draw.rectangle(face.box_px, outline=_INK, width=line + 2)
        draw.rectangle(face.box_px, outline=colour, width=line)
        for x, y in face.landmarks_px:
            draw.ellipse((x - line, y - line, x + line, y + line), fill=colour)
        _label(draw, str(number), face.box_px, picture.size, font, colour)
    return Photo(np.asarray(picture), icc_profile=_rgb_profile(photo), format=photo.format)


def uncertainty_overlay(photo: Photo, faces: Sequence[FaceResult], *, upscale: int = 1) -> Photo:
    """Lay the spread of each restored face's samples as colours over the dimmed, gray photo.

    Dark violet: all samples agree. Light yellow: they differ by `SPREAD_TOP_LEVELS` 8-bit levels or more, so
    what is there was made up. A scale is drawn in the corner.

    Args:
        photo: the restored photo.
        faces: its faces, in pixels of the photo before `upscale`; those without findings stay gray.
        upscale: how much larger the photo is than the one its faces were found in.

    Returns:
        8 bit, without alpha and metadata, same size and format.
    """
    gray = (
        Image.fromarray(to_8_bit(photo.pixels)).convert("L").point([round(v * _DIMMED) for v in range(256)])
    )
    canvas = np.array(gray.convert("RGB"))
    for face in faces:
        if face.findings is not None:
            _lay_heat(canvas, face.findings.spread, face.face, upscale)
    picture = Image.fromarray(canvas)
    _draw_scale(picture)
    return Photo(np.asarray(picture), format=photo.format)


def heat(spread: np.ndarray) -> np.ndarray:
    """Colour a spread (...,) in 8-bit levels: float32 (..., 3) RGB in [0, 255]."""
    place = (spread / SPREAD_TOP_LEVELS).clip(0, 1) * (len(_HEAT) - 1)
    stops = np.arange(len(_HEAT))
    return np.stack([np.interp(place, stops, _HEAT[:, c]) for c in range(3)], -1).astype(np.float32)


def _lay_heat(canvas: np.ndarray, spread: np.ndarray, face: Face, upscale: int) -> None:
    size_px = spread.shape[0]
    matrix = for_upscaled(estimate_similarity(face.landmarks_px, size_px), upscale)
    box = crop_box(matrix, size_px, canvas.shape)
    if box[0] >= box[2] or box[1] >= box[3]:
        return
    rows, columns = np.mgrid[:size_px, :size_px].astype(np.float32)
    radius = mask_radius(columns, rows, size_px)
    mask = ((_MASK_END - radius) / (_MASK_END - _MASK_FULL)).clip(0, 1)
    both = warp_back(np.stack([spread, mask], -1).astype(np.float32), matrix, box, order=1)
    region = canvas[box[1] : box[3], box[0] : box[2]]
    strength = both[..., 1:] * (0.3 + 0.6 * (both[..., :1] / SPREAD_TOP_LEVELS).clip(0, 1))
    # Outside the crop the edge repeats; the mask is 0 there.
    region[:] = np.rint(region * (1 - strength) + heat(both[..., 0]) * strength).clip(0, 255)


def _label(
    draw: ImageDraw.ImageDraw,
    text: str,
    box: tuple[float, float, float, float],
    size: tuple[int, int],
    font: ImageFont.FreeTypeFont | ImageFont.ImageFont,
    colour: tuple[int, int, int],
) -> None:
    """Write a number on a filled tag above the box's corner, moved inside the picture if need be."""
    left, top, right, bottom = draw.textbbox((0, 0), text, font=font)
    width, height = right - left + 6, bottom - top + 6
    x = min(max(box[0], 0), max(size[0] - width, 0))
    y = min(max(box[1] - height, 0), max(size[1] - height, 0))
    draw.rectangle((x, y, x + width, y + height), fill=colour, outline=_INK)
    draw.text((x + 3 - left, y + 3 - top), text, fill=_INK, font=font)


def _draw_scale(picture: Image.Image) -> None:
    width, height = picture.size
    bar = max(8, min(width // 4, 300)), max(4, min(height // 40, 16))
    font = ImageFont.load_default(max(8, bar[1]))
    ramp = heat(np.linspace(0, SPREAD_TOP_LEVELS, bar[0]))[None].repeat(bar[1], 0)
    left, top = bar[1], max(height - 2 * bar[1], 0)
    draw = ImageDraw.Draw(picture)
    text = f"spread 0 to {SPREAD_TOP_LEVELS:.0f} levels"
    draw.rectangle((left - 4, top - bar[1] * 1.6, left + bar[0] + 4, top + bar[1] + 4), fill=_INK)
    picture.paste(Image.fromarray(ramp.astype(np.uint8)), (left, top))
    draw.text((left, top - 3), text, fill=(255, 255, 255), font=font, anchor="ls")


def _rgb_profile(photo: Photo) -> bytes | None:
    """The photo's profile if it fits coloured pixels."""
    profile = photo.icc_profile
    return profile if profile is not None and profile[16:20] == b"RGB " else None
