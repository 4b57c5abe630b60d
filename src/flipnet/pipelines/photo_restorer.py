"""`flipnet.load`: a model, a face detector and everything that belongs to restoring photos, in one object."""

from __future__ import annotations

import os
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from PIL import Image
from torch import Tensor

from flipnet import images
from flipnet.faces.detect import CenterFaceDetector
from flipnet.faces.photo import FaceResult, PhotoResult, restore_aligned, restore_photo
from flipnet.faces.rotation import TurningDetector
from flipnet.faces.selection import FaceSelection, Which
from flipnet.images import Photo
from flipnet.pipelines.invention import SAMPLING_STEPS, Choice, FaceSampler, several
from flipnet.pipelines.likeness import LikenessCheck
from flipnet.pipelines.pipeline import as_faces
from flipnet.pipelines.restore import FaceRestorer
from flipnet.types import FaceDetector, Findings, FlipnetError, RestoredBatch

PhotoLike = Photo | Image.Image | np.ndarray | str | os.PathLike
"""A photo, a PIL image, a uint8 or uint16 array (H, W, 3) RGB or (H, W) gray, or the path of a picture file."""

FacesLike = Tensor | np.ndarray | Sequence[Image.Image]
"""Aligned faces of the native size S: float (B, 3, S, S) in [-1, 1], uint8 (B, S, S, 3) RGB, or PIL images."""


@dataclass(frozen=True)
class RestoredFaces:
    """Restored aligned faces.

    Attributes:
        images: uint8 (B, S, S, 3) RGB.
        seeds: the seed of each.
        findings: what several samples told about each; None if one sample was drawn.
    """

    images: np.ndarray
    seeds: tuple[int, ...]
    findings: tuple[Findings, ...] | None = None


class PhotoRestorer:
    """Restores whole photos and batches of aligned faces with one model; `flipnet.load` makes it.

    Args:
        faces: restores one sample of aligned faces.
        samples: restorations drawn per face.
        choose: which of several samples is taken, see `flipnet.pipelines.invention.Choice`.
        detector: finds faces; None is CenterFace, with quarter turns where it finds nothing upright.

    Attributes:
        faces: as given.
        restorer: draws and chooses the samples; `faces` itself for one sample.
        detector: as given.

    Raises:
        FlipnetError: samples below 1, an unknown `choose`, or "faithful" without a degradation mode.
    """

    def __init__(
        self,
        faces: FaceRestorer,
        *,
        samples: int = 1,
        choose: Choice = "mean",
        detector: FaceDetector | None = None,
    ) -> None:
        self.faces = faces
        self.restorer: FaceRestorer | FaceSampler = faces
        if samples != 1:
            self.restorer = several(faces, samples, choose)
        self.detector = TurningDetector(CenterFaceDetector()) if detector is None else detector
        self._likeness: LikenessCheck | None = None

    @property
    def native_size_px(self) -> int:
        """Side S of the aligned faces that the model works on, in pixels."""
        return self.faces.native_size_px

    def restore_photo(
        self,
        image: PhotoLike,
        *,
        aligned: bool = False,
        select: FaceSelection | Which = "all",
        blend: float = 1.0,
        upscale: int = 1,
        seed: int = 0,
        batch_size: int = 4,
        on_face: Callable[[FaceResult], None] | None = None,
    ) -> PhotoResult:
        """Find the faces of a photo, restore them and put them back; the photo given stays as it is.

        Args:
            image: see `PhotoLike`.
            aligned: the picture is one aligned face; the result has the native size, and `select` and
                `upscale` must be left alone.
            select: "all", "largest", "center", indices such as (0, 2), or a `FaceSelection`.
            blend: how much of the change is applied, in [0, 1].
            upscale: whole-number enlargement of the result.
            seed: face number i gets seed + i; the same seed gives the same result.
            batch_size: faces restored at once.
            on_face: called with each face's result as soon as it is known, before its likeness is.

        Returns:
            The photo, to be written with `flipnet.write_photo`, and one result per face found, likeness
            included. Neither image holds provenance yet: see `flipnet.provenance.mark_as_restored`.

        Raises:
            NoFacesError: there is no face.
            FlipnetError: an option out of range; ImageError for a picture that cannot be read.
        """
        photo = as_photo(image)
        if aligned:
            if select != "all" or upscale != 1:
                raise FlipnetError("select and upscale are for whole photos, leave them out with aligned")
            result = restore_aligned(photo, self.restorer, blend=blend, seed=seed)
        else:
            result = restore_photo(
                photo,
                self.restorer,
                self.detector,
                select=select,
                blend=blend,
                upscale=upscale,
                batch_size=batch_size,
                seed=seed,
                on_face=on_face,
            )
        return self.likeness.examine(result)

    def restore_faces(self, batch: FacesLike, *, seed: int = 0) -> RestoredFaces:
        """Restore aligned faces of the native size; face number i gets seed + i, whatever its batch.

        Raises:
            ValueError: a wrong size, type or number of channels.
        """
        faces = as_faces(batch)
        seeds = tuple(range(seed, seed + len(faces)))
        restored = self.restorer(faces, seeds)
        if isinstance(restored, RestoredBatch):
            return RestoredFaces(images.tensor_to_uint8(restored.faces), seeds, restored.findings)
        return RestoredFaces(images.tensor_to_uint8(restored), seeds)

    @property
    def likeness(self) -> LikenessCheck:
        """Compares the person before and after; made when first used."""
        if self._likeness is None:
            self._likeness = LikenessCheck(self.faces.pipeline.face_encoder)
        return self._likeness


def load(
    name_or_path: str | Path = "compact",
    *,
    phi: float = 1.0,
    steps: int | None = None,
    device: str = "auto",
    samples: int = 1,
    choose: Choice = "mean",
) -> PhotoRestorer:
    """Load a model for restoring photos.

        result = flipnet.load().restore_photo("grandma.jpg")
        flipnet.write_photo(Path("out.jpg"), result.photo)

    Args:
        name_or_path: bundled name, checkpoint folder, or hub id.
        phi: boosting weight φ >= 0: 0 invents freely, 1 is balanced, above 1 keeps to the photo.
        steps: denoising steps; None is the model's own number, and at least `SAMPLING_STEPS` for several samples.
        device: "auto" (CUDA, then MPS, then the CPU), "cpu", "cuda", "cuda:N" or "mps".
        samples: restorations drawn per face.
        choose: "mean" or "faithful", which of several is taken.

    Raises:
        FlipnetError: the model, its mode or the device cannot be had, or an option is out of range.
    """
    faces = load_faces(name_or_path, phi=phi, steps=steps, device=device, samples=samples)
    return PhotoRestorer(faces, samples=samples, choose=choose)


def load_faces(
    name_or_path: str | Path,
    *,
    phi: float,
    steps: int | None,
    device: str,
    samples: int,
    own_mode_only: bool = False,
) -> FaceRestorer:
    """Load a model whose steps fit the number of samples, see `load` and `FaceMapping.from_checkpoint`."""
    faces = FaceRestorer.from_checkpoint(
        name_or_path, phi=phi, steps=steps, device=device, own_mode_only=own_mode_only
    )
    if steps is None and samples > 1:
        faces.steps = max(faces.steps, SAMPLING_STEPS)
    return faces


def as_photo(image: PhotoLike) -> Photo:
    """Turn what `PhotoLike` allows into a photo.

    Raises:
        ImageError: a file that cannot be read, or an array of another type or shape.
    """
    if isinstance(image, Photo):
        return image
    if isinstance(image, str | os.PathLike):
        return images.read_photo(Path(image))
    return images.photo_from(image)
