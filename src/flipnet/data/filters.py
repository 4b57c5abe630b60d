"""The building blocks of degradation recipes: convolution, resizing and JPEG, on NumPy arrays."""

from __future__ import annotations

import io
from typing import Literal

import numpy as np
import torch
from PIL import Image
from scipy import fft
from torch.nn import functional as F

ResizeMode = Literal["area", "bilinear", "bicubic"]


def convolve(levels: np.ndarray, kernel: np.ndarray) -> np.ndarray:
    """Convolve float32 (H, W, C) with a centred odd (K, K) kernel, same size.

    The border is mirrored without repeating the edge (cv2's default). By FFT: a rotated Gaussian
    has no cheap exact separable form, and at 41x41 this is the fastest exact way.
    """
    half = kernel.shape[0] // 2
    height, width = levels.shape[:2]
    padded = np.pad(levels.transpose(2, 0, 1), ((0, 0), (half, half), (half, half)), mode="reflect")
    size = [fft.next_fast_len(side, real=True) for side in padded.shape[1:]]
    spectrum = fft.rfft2(padded, s=size, axes=(1, 2))
    spectrum *= fft.rfft2(kernel, s=size)
    # The kernel's centre sits at (half, half), so the wanted picture starts at twice the padding.
    blurred = fft.irfft2(spectrum, s=size, axes=(1, 2))[:, 2 * half :, 2 * half :]
    return np.ascontiguousarray(blurred[:, :height, :width].transpose(1, 2, 0))


def resize_bilinear(levels: np.ndarray, height: int, width: int) -> np.ndarray:
    """Resize float32 (H, W, C) to (height, width, C): two taps per axis, half-pixel centres, no antialiasing.

    The convention of cv2.INTER_LINEAR and of torch's `interpolate(mode="bilinear", align_corners=False)`.
    """
    for axis, side in ((0, height), (1, width)):
        levels = _resize_axis(levels, side, axis)
    return levels


def _resize_axis(levels: np.ndarray, side: int, axis: int) -> np.ndarray:
    old_side = levels.shape[axis]
    if side == old_side:
        return levels
    position = np.clip((np.arange(side) + 0.5) * (old_side / side) - 0.5, 0, old_side - 1)
    low = np.floor(position).astype(np.intp)
    high = np.minimum(low + 1, old_side - 1)
    shape = [1] * levels.ndim
    shape[axis] = side
    weight = (position - low).astype(np.float32).reshape(shape)
    near, far = levels.take(low, axis), levels.take(high, axis)
    far -= near
    far *= weight
    far += near
    return far


def halve(levels: np.ndarray) -> np.ndarray:
    """Average 2x2 pixels of float32 (H, W) or (H, W, C); an odd last row or column is left out."""
    height, width = levels.shape[0] // 2 * 2, levels.shape[1] // 2 * 2
    rows = levels[0:height:2] + levels[1:height:2]
    return (rows[:, 0:width:2] + rows[:, 1:width:2]) * np.float32(0.25)


def resize_by_mode(levels: np.ndarray, height: int, width: int, mode: ResizeMode) -> np.ndarray:
    """Resize float32 (H, W, C) to (height, width, C); bicubic may overshoot the range of the input.

    "area" averages the pixels that a new pixel covers wholly or in part (so it repeats pixels when growing);
    "bilinear" and "bicubic" (a = -0.75) take 2 and 4 taps per axis at half-pixel centres, without antialiasing.
    Source: torch's `interpolate`, which Real-ESRGAN resizes with.
    """
    if levels.shape[:2] == (height, width):
        return levels
    planes = torch.from_numpy(np.ascontiguousarray(levels.transpose(2, 0, 1)))[None]
    align_corners = None if mode == "area" else False
    resized = F.interpolate(planes, (height, width), mode=mode, align_corners=align_corners)
    return np.ascontiguousarray(resized[0].permute(1, 2, 0).numpy())


def jpeg_round_trip(pixels: np.ndarray, quality: int) -> np.ndarray:
    """Encode uint8 (H, W, 3) RGB as JPEG with 4:2:0 chroma and decode it again, same shape and dtype."""
    with io.BytesIO() as buffer:
        Image.fromarray(pixels).save(buffer, format="JPEG", quality=quality, subsampling="4:2:0")
        buffer.seek(0)
        with Image.open(buffer) as decoded:
            return np.asarray(decoded.convert("RGB"))
