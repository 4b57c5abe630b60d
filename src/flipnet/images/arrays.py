"""Pixels as arrays and tensors: conversions between them, and resizing."""

from __future__ import annotations

import numpy as np
import torch
from PIL import Image
from torch import Tensor


def to_8_bit(samples: np.ndarray) -> np.ndarray:
    """Round uint16 samples to uint8 (0..65535 to 0..255, nearest); uint8 is returned as it is."""
    if samples.dtype == np.uint8:
        return samples
    # round(v / 257) without leaving 16 bits, so a large photo needs no wider copy.
    return ((np.minimum(samples, 65535 - 128) + np.uint16(128)) // np.uint16(257)).astype(np.uint8)


def faces_to_tensor(faces: np.ndarray) -> Tensor:
    """Turn uint8 (B, S, S, 3) or (S, S, 3) RGB into float32 (B, 3, S, S) in [-1, 1], on the CPU.

    Raises:
        ValueError: another dtype or shape.
    """
    if faces.dtype != np.uint8 or faces.ndim not in (3, 4) or faces.shape[-1] != 3:
        raise ValueError(f"expected uint8 (B, S, S, 3), got {faces.dtype} {faces.shape}")
    batch = torch.from_numpy(np.ascontiguousarray(faces.reshape(-1, *faces.shape[-3:])))
    return batch.permute(0, 3, 1, 2).contiguous().float().div_(127.5).sub_(1.0)


def tensor_to_uint8(images: Tensor) -> np.ndarray:
    """Turn float (B, 3, H, W) in [-1, 1] into uint8 (B, H, W, 3) RGB; rounds, clamps what lies outside.

    Raises:
        ValueError: another shape, or values that are not finite.
    """
    if images.ndim != 4 or images.shape[1] != 3:
        raise ValueError(f"expected (B, 3, H, W), got {tuple(images.shape)}")
    if not torch.isfinite(images).all():
        raise ValueError("image values are not finite")
    scaled = images.detach().float().cpu().add(1.0).mul(127.5).round_().clamp_(0, 255)
    return scaled.to(torch.uint8).permute(0, 2, 3, 1).contiguous().numpy()


def resize(samples: np.ndarray, size_px: tuple[int, int]) -> np.ndarray:
    """Resize uint8 or uint16 (H, W) or (H, W, C) to (width, height) with Pillow's antialiased Lanczos filter.

    Edges stay edges: with scale s = new/old, x maps to (x + 0.5) * s - 0.5.

    Raises:
        ValueError: another dtype.
    """
    if samples.dtype not in (np.uint8, np.uint16):
        raise ValueError(f"expected uint8 or uint16, got {samples.dtype}")
    if samples.shape[1::-1] == size_px:
        return samples.copy()
    if samples.dtype == np.uint8 and (samples.ndim == 2 or samples.shape[2] == 3):
        return np.array(Image.fromarray(samples).resize(size_px, Image.Resampling.LANCZOS))
    if samples.ndim == 3:
        return np.stack(
            [resize(np.ascontiguousarray(c), size_px) for c in np.moveaxis(samples, 2, 0)], axis=2
        )
    # Through float: exact for 16 bit, one channel at a time.
    channel = Image.fromarray(samples.astype(np.float32)).resize(size_px, Image.Resampling.LANCZOS)
    return np.rint(np.asarray(channel)).clip(0, 65535).astype(np.uint16)
