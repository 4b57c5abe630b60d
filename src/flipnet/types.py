"""The words every part shares: mode, roles, face, restorer.

Coordinates are (x, y) in pixels of the upright photo, the centre of the top-left pixel at (0, 0).
Network images are float32 tensors (B, 3, H, W), RGB, in [-1, 1].
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from enum import StrEnum
from typing import TYPE_CHECKING, Generic, Protocol, TypeVar

if TYPE_CHECKING:
    import numpy as np
    from torch import Tensor

T = TypeVar("T")


class FlipnetError(Exception):
    """An error whose message is one clear sentence for the user, naming the file or option and the cause."""


class Mode(StrEnum):
    """The two jobs of the one network (FLIPNET, "One network, two modes")."""

    RESTORATION = "restoration"
    DEGRADATION = "degradation"


@dataclass(frozen=True)
class Roles(Generic[T]):
    """Which image is noised and denoised (target), and which one is looked at (condition)."""

    target: T
    condition: T


def assign_roles(hq: T, lq: T, mode: Mode) -> Roles[T]:
    """Give the HQ and LQ image (or their latents) their roles; the only place that knows the mode.

    Restoration denoises HQ looking at LQ, degradation denoises LQ looking at HQ.
    Source: FLIPNET, "One network, two modes".
    """
    if mode is Mode.RESTORATION:
        return Roles(target=hq, condition=lq)
    return Roles(target=lq, condition=hq)


@dataclass(frozen=True)
class Face:
    """One face found in a photo.

    Attributes:
        box_px: (x0, y0, x1, y1) in photo pixels, x right, y down; may reach past the photo's edge.
        landmarks_px: float32 (5, 2), (x, y): left eye, right eye, nose, left and right mouth corner,
            left and right as seen in the picture.
        score: detector confidence in [0, 1].
        notes: sentences for the user on how it was found, when that was not the usual way.
    """

    box_px: tuple[float, float, float, float]
    landmarks_px: np.ndarray
    score: float
    notes: tuple[str, ...] = ()


class FaceDetector(Protocol):
    """Finds faces in an upright RGB photo."""

    def __call__(self, pixels: np.ndarray) -> list[Face]:
        """Return the faces of a uint8 (H, W, 3) RGB photo, largest first."""
        ...


class Restorer(Protocol):
    """Restores aligned square faces of one native size."""

    native_size_px: int

    def __call__(self, faces: Tensor, seeds: Sequence[int]) -> Tensor:
        """Map float32 (B, 3, S, S) RGB in [-1, 1] to the same shape and range, S = native_size_px.

        `seeds` has one integer per face, so that a face's result does not depend on its batch.
        """
        ...


@dataclass(frozen=True)
class Findings:
    """What several restorations of one face say about how much of it was made up.

    Attributes:
        seeds: the samples' seeds, in the order they were drawn.
        chosen: which of them was taken.
        spread: float32 (S, S), 8-bit levels: standard deviation over the samples at each pixel, averaged over
            the channels.
        spread_mean_levels: mean of `spread`.
        spread_p95_levels: its 95th percentile.
        consistency: flip-consistency of each sample in 8-bit levels, lower = degraded again it is nearer to
            the input; None if it was not measured.
    """

    seeds: tuple[int, ...]
    chosen: int
    spread: np.ndarray
    spread_mean_levels: float
    spread_p95_levels: float
    consistency: tuple[float, ...] | None = None


@dataclass(frozen=True)
class RestoredBatch:
    """Restored faces, float32 (B, 3, S, S) RGB in [-1, 1], with what was found out about each."""

    faces: Tensor
    findings: tuple[Findings, ...]


class SamplingRestorer(Protocol):
    """A `Restorer` that draws several samples per face and tells how they differ."""

    native_size_px: int

    def __call__(self, faces: Tensor, seeds: Sequence[int]) -> RestoredBatch:
        """Map float32 (B, 3, S, S) RGB in [-1, 1] to one chosen restoration per face, with its findings."""
        ...


@dataclass(frozen=True)
class Likeness:
    """How alike the person in a face is before and after restoration.

    Attributes:
        similarity: 1 = alike, lower = less; its scale is the method's, see `flipnet.pipelines.likeness`.
        threshold: below it the two may be different people.
        method: what embedded them, "dlib" or "face encoder".
    """

    similarity: float
    threshold: float
    method: str

    @property
    def is_low(self) -> bool:
        """Whether the restored face may be somebody else."""
        return self.similarity < self.threshold
