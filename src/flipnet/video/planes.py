"""Frames as planes of samples: what is not restored goes on to the encoder bit by bit."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, cast

import numpy as np

from flipnet.video.reading import INTERPOLATION

if TYPE_CHECKING:
    from av.video.frame import VideoFrame

Box = tuple[int, int, int, int]
"""(x0, y0, x1, y1) in pixels, ends exclusive."""


def reformat(frame: VideoFrame, target: str, matrix: int, color_range: int) -> VideoFrame:
    """Convert a frame to another pixel format; matrix and range (0, not stated, is the narrow one) by H.273."""
    return frame.reformat(
        format=target, dst_colorspace=matrix, dst_color_range=color_range or 1, interpolation=INTERPOLATION
    )


def turned(box: Box, turns: int, shape: tuple[int, ...]) -> Box:
    """The box after `numpy.rot90(pixels, turns)` of an array of that shape."""
    x0, y0, x1, y1 = box
    height, width = shape[:2]
    for _ in range(turns % 4):
        x0, y0, x1, y1 = y0, width - x1, y1, width - x0
        height, width = width, height
    return x0, y0, x1, y1


def keep_outside(made: VideoFrame, frame: VideoFrame, boxes: Sequence[Box]) -> None:
    """Give all samples of `made` outside the boxes the values they have in `frame`; same size and format."""
    for index, component in enumerate(made.format.components):
        new, old = samples(made, index), samples(frame, index)
        step_x, step_y = -(-made.width // component.width), -(-made.height // component.height)
        result = old.copy()
        for x0, y0, x1, y1 in boxes:
            inside = np.s_[y0 // step_y : -(-y1 // step_y), x0 // step_x : -(-x1 // step_x)]
            result[inside] = new[inside]
        new[:] = result


def samples(frame: VideoFrame, index: int) -> np.ndarray:
    """A plane's samples as a view, (h, w)."""
    plane, component = frame.planes[index], frame.format.components[index]
    dtype = np.dtype("<u2") if component.bits > 8 else np.dtype("u1")
    rows = np.frombuffer(memoryview(cast(Any, plane)), dtype).reshape(
        plane.height, plane.line_size // dtype.itemsize
    )
    return rows[:, : plane.width]
