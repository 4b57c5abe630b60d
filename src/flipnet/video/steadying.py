"""Hold down the flicker of faces that are restored frame by frame."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from scipy import ndimage

from flipnet.images import resize

BLENDING_S = 0.18
"""Time constant of the blend, in seconds. Our choice: at 25 frames per second a new frame weighs a fifth."""

# Our choices. What counts as a change of the face itself, in units of white, once noise is blurred away...
_CHANGE = 8 / 255
# ...by a Gaussian of this share of the crop's side.
_BLUR = 1 / 64

_CUT_LEVELS = 24.0
_CUT_RATIO = 3.0
_THUMBNAIL_PX = 48


@dataclass
class _Past:
    time_s: float
    crop: np.ndarray
    restored: np.ndarray


class FaceSteadier:
    """Blends each followed face with its own past, where the face has not changed.

    The blend happens in the aligned crop, where a moving face stands still: the alignment is the motion
    compensation. What is blended is the restored face, not what it changed: the difference holds the input's
    noise with its sign turned round, and blending that over time would bring the noise back. The past's weight is
    exp(-dt / `blending_s`), lowered pixel by pixel where the blurred crop has changed: a mouth that opens or a
    light that goes on is not smeared. Our choice throughout, after recursive temporal denoising with motion
    detection.

    Args:
        blending_s: time constant in seconds; 0 switches the blend off.
    """

    def __init__(self, blending_s: float = BLENDING_S) -> None:
        self.blending_s = blending_s
        self._past: dict[int, _Past] = {}

    def __call__(self, track: int, time_s: float, crop: np.ndarray, restored: np.ndarray) -> np.ndarray:
        """Blend one face of one frame; the track's frames come in order.

        Args:
            track: number of the face.
            time_s: when the frame is shown.
            crop: float32 (S, S, 3) in [0, 1], the aligned face of the frame.
            restored: the same, restored.

        Returns:
            float32 (S, S, 3) in [0, 1], to be shown in place of `restored`.
        """
        sigma = crop.shape[0] * _BLUR
        blurred = ndimage.gaussian_filter(crop, (sigma, sigma, 0), mode="nearest", truncate=3)
        past = self._past.get(track)
        if past is not None and self.blending_s > 0:
            change = np.abs(blurred - past.crop).max(2, keepdims=True) / np.float32(_CHANGE)
            weight = np.float32(np.exp(-(time_s - past.time_s) / self.blending_s)) * np.exp(-(change**2))
            restored = restored + weight * (past.restored - restored)
        self._past[track] = _Past(time_s, blurred, restored)
        return restored

    def forget_all_but(self, tracks: set[int]) -> None:
        """Drop the past of faces that are gone."""
        self._past = {track: past for track, past in self._past.items() if track in tracks}


class CutFinder:
    """Says where a new shot starts.

    A cut is a frame whose small version differs from the one before by at least 24 levels on average, and three
    times as much as the frames before it did. Our choice, after the content detectors of video editors; a camera
    that is shaken changes every frame, a cut only one.
    """

    def __init__(self) -> None:
        self._before: np.ndarray | None = None
        self._usual = 0.0

    def __call__(self, pixels: np.ndarray) -> bool:
        """Take the next frame, uint8 (H, W, 3); True if it starts another shot than the frame before."""
        small = resize(pixels, (_THUMBNAIL_PX, _THUMBNAIL_PX)).astype(np.float32)
        before, self._before = self._before, small
        if before is None:
            return False
        change = float(np.abs(small - before).mean())
        is_cut = change >= max(_CUT_LEVELS, _CUT_RATIO * self._usual)
        self._usual += 0.2 * (change - self._usual)
        return is_cut
