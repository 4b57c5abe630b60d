"""Restore every face of a photo, or one aligned crop, with any `Restorer`."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Literal

import numpy as np
import torch
from torch import Tensor

from flipnet.faces.align import align, estimate_similarity, for_upscaled, scale_of, template
from flipnet.faces.paste import add_difference
from flipnet.faces.selection import FaceSelection, Which, reasons_to_skip
from flipnet.images import MAX_PIXELS, Photo, faces_to_tensor, resize, tensor_to_uint8, to_8_bit
from flipnet.types import (
    Face,
    FaceDetector,
    Findings,
    FlipnetError,
    Likeness,
    RestoredBatch,
    Restorer,
    SamplingRestorer,
)

_GRAY_SPREAD_LEVELS = 4
LUMA = np.array([0.299, 0.587, 0.114], np.float32)  # ITU-R BT.601


class NoFacesError(FlipnetError):
    """The detector found no face in the photo."""


@dataclass(frozen=True)
class FaceResult:
    """What happened to one face.

    Attributes:
        index: place in the detector's list, from 0.
        face: the detection, in pixels of the photo as it was read (before `upscale`).
        status: "restored"; "skipped" = left alone on purpose; "failed" = the restorer gave nothing usable.
            The pixels of a skipped or failed face are as they were.
        reason: why it was skipped or failed; None if restored.
        warnings: sentences for the user about this face.
        seconds: the restorer's time for this face (its batch's time divided by the batch's faces); 0 if
        skipped.
        scale: photo pixels per crop pixel; above 1 the face is larger than the model's native size.
        seed: seed given to the restorer; None if skipped.
        crop: uint8 (S, S, 3) RGB, the aligned face as the restorer saw it, S = its native size.
        restored: uint8 (S, S, 3) RGB, the restorer's own output before blending; None unless restored.
        findings: what several samples told, if the restorer drew several; None unless restored.
        likeness: how alike the person is before and after, where somebody looked; None unless restored.
    """

    index: int
    face: Face
    status: Literal["restored", "skipped", "failed"]
    reason: str | None
    warnings: tuple[str, ...]
    seconds: float
    scale: float
    seed: int | None
    crop: np.ndarray
    restored: np.ndarray | None
    findings: Findings | None = None
    likeness: Likeness | None = None


@dataclass(frozen=True)
class PhotoResult:
    """A photo with its faces restored, and one result per detected face, in the detector's order."""

    photo: Photo
    faces: tuple[FaceResult, ...]


def restore_photo(
    photo: Photo,
    restorer: Restorer | SamplingRestorer,
    detector: FaceDetector,
    *,
    select: FaceSelection | Which = "all",
    blend: float = 1.0,
    upscale: int = 1,
    batch_size: int = 4,
    seed: int = 0,
    on_face: Callable[[FaceResult], None] | None = None,
) -> PhotoResult:
    """Find the faces of a photo, restore them in batches and put them back.

    Outside the faces' masks the pixels are the photo's own to the bit (with `upscale` 1). Gray photos stay
    gray, 16-bit photos stay 16 bit, alpha, Exif and profile are passed on.

    Args:
        photo: the photo.
        restorer: maps aligned faces to restored ones.
        detector: finds the faces.
        select: which faces to restore, see `FaceSelection`; a plain `Which` leaves its other fields at their
            defaults. The other faces are "skipped".
        blend: how much of the change is applied, in [0, 1].
        upscale: whole-number enlargement; the background by Lanczos, faces pasted at the new size.
        batch_size: faces per call of the restorer.
        seed: face number i gets seed + i.
        on_face: called with each face's result as soon as it is known.

    Raises:
        NoFacesError: there is no face.
        FlipnetError: an option out of range.
    """
    _check_options(blend, upscale, batch_size)
    selection = select if isinstance(select, FaceSelection) else FaceSelection(select)
    faces = detector(to_8_bit(photo.pixels))
    if not faces:
        raise NoFacesError("no face was found in the photo")
    reasons = reasons_to_skip(faces, photo.pixels.shape, selection)
    size_px = restorer.native_size_px
    matrices = [estimate_similarity(face.landmarks_px, size_px) for face in faces]
    results = [
        _untouched(photo, i, f, m, size_px) for i, (f, m) in enumerate(zip(faces, matrices, strict=True))
    ]
    placed = [for_upscaled(m, upscale) for m in matrices]
    height, width = photo.pixels.shape[:2]
    if height * width * upscale**2 > MAX_PIXELS:
        raise FlipnetError(f"upscale {upscale} would make more than {MAX_PIXELS} pixels of {width}x{height}")
    before = resize(photo.pixels, (width * upscale, height * upscale))
    canvas = before.copy()
    due = []
    for result in results:
        reason = reasons[result.index]
        if reason is None:
            due.append(result)
        else:
            results[result.index] = _report(replace(result, reason=reason), on_face)
    for start in range(0, len(due), batch_size):
        for result, difference in _restore_batch(
            restorer, due[start : start + batch_size], seed, photo.grayscale
        ):
            if difference is not None:
                others = placed[: result.index] + placed[result.index + 1 :]
                add_difference(
                    canvas,
                    difference,
                    placed[result.index],
                    others,
                    amount=blend,
                    photo=before,
                    crop=result.crop / np.float32(255),
                )
            results[result.index] = _report(result, on_face)
    alpha = None if photo.alpha is None else resize(photo.alpha, (width * upscale, height * upscale))
    return PhotoResult(replace(photo, pixels=canvas, alpha=alpha), tuple(results))


def restore_aligned(
    photo: Photo, restorer: Restorer | SamplingRestorer, *, blend: float = 1.0, seed: int = 0
) -> PhotoResult:
    """Restore a picture that is one aligned face already.

    The result has the restorer's native size S; another size is resized (Lanczos) and a warning says so. The
    whole crop is restored, without a mask. Depth, gray and alpha are kept as in `restore_photo`.

    Args:
        photo: the crop, aligned to the FFHQ template.
        restorer: maps aligned faces to restored ones.
        blend: how much of the change is applied, in [0, 1].
        seed: the face's seed.

    Returns:
        The photo and one face result, whose face is the whole crop with the template's landmarks and score 1.

    Raises:
        FlipnetError: `blend` is out of range.
    """
    _check_options(blend, 1, 1)
    size_px = restorer.native_size_px
    height, width = photo.pixels.shape[:2]
    warnings: tuple[str, ...] = ()
    if (height, width) != (size_px, size_px):
        shape = "" if height == width else " and its proportions changed, as it is not square"
        warnings = (f"aligned crop of {width}x{height} pixels resized to {size_px}x{size_px}{shape}",)
    pixels = resize(photo.pixels, (size_px, size_px))
    alpha = None if photo.alpha is None else resize(photo.alpha, (size_px, size_px))
    whole = (-0.5, -0.5, size_px - 0.5, size_px - 0.5)
    face = Face(whole, template(size_px).astype(np.float32), 1.0)
    crop, scale = to_8_bit(pixels), max(height, width) / size_px
    untouched = FaceResult(0, face, "skipped", None, warnings, 0.0, scale, None, crop, None)
    ((result, difference),) = _restore_batch(restorer, [untouched], seed, photo.grayscale)
    if difference is not None:
        white = np.iinfo(pixels.dtype).max
        changed = pixels + difference * np.float32(blend * white)
        pixels = np.rint(changed).clip(0, white).astype(pixels.dtype)
    return PhotoResult(replace(photo, pixels=pixels, alpha=alpha), (result,))


def _check_options(blend: float, upscale: int, batch_size: int) -> None:
    if not 0 <= blend <= 1:
        raise FlipnetError(f"blend {blend} is outside 0 to 1")
    if upscale < 1:
        raise FlipnetError(f"upscale {upscale} is below 1")
    if batch_size < 1:
        raise FlipnetError(f"batch_size {batch_size} is below 1")


def _untouched(photo: Photo, index: int, face: Face, matrix: np.ndarray, size_px: int) -> FaceResult:
    crop = np.rint(align(photo.pixels, matrix, size_px) * 255).astype(np.uint8)
    scale = 1 / scale_of(matrix)
    warnings = face.notes
    if scale > 1.05:
        warnings += (
            f"face is {scale:.1f} times larger than the model's {size_px} pixels: "
            "the photo's own finer detail is kept as it is, only coarser detail is restored",
        )
    return FaceResult(index, face, "skipped", None, warnings, 0.0, scale, None, crop, None)


def _report(result: FaceResult, on_face: Callable[[FaceResult], None] | None) -> FaceResult:
    if on_face is not None:
        on_face(result)
    return result


def nearly_gray(crop: np.ndarray) -> bool:
    """Whether a uint8 crop is a gray one that was stored in colour, where compression left a little chroma.

    Our choice: 99 % of the pixels have channels within 4 levels. A network then must not tint the face.
    """
    spread = crop.max(2).astype(np.int16) - crop.min(2)
    return bool(np.percentile(spread, 99) <= _GRAY_SPREAD_LEVELS)


def _restore_batch(
    restorer: Restorer | SamplingRestorer, batch: list[FaceResult], seed: int, grayscale: bool
) -> list[tuple[FaceResult, np.ndarray | None]]:
    """Run the restorer on a batch; pair each result with its difference (S, S, 3), None where it failed."""
    seeds = [seed + result.index for result in batch]
    faces = faces_to_tensor(np.stack([result.crop for result in batch]))
    started = time.perf_counter()
    outcome: Tensor | RestoredBatch | str
    findings: tuple[Findings | None, ...] = (None,) * len(batch)
    try:
        outcome = restorer(faces, seeds)
    except (
        RuntimeError
    ) as error:  # torch's own, out of memory among them; recorded, never passed off as restored
        outcome = f"the restorer stopped with {type(error).__name__}: {error}"
    seconds = (time.perf_counter() - started) / len(batch)
    if isinstance(outcome, RestoredBatch):
        findings, outcome = outcome.findings, outcome.faces
    if isinstance(outcome, Tensor) and outcome.shape != faces.shape:
        outcome = f"the restorer returned shape {tuple(outcome.shape)} instead of {tuple(faces.shape)}"
    pairs: list[tuple[FaceResult, np.ndarray | None]] = []
    for i, result in enumerate(batch):
        result = replace(result, seconds=seconds, seed=seeds[i])
        restored = outcome if isinstance(outcome, str) else outcome[i].detach().float().cpu()
        if isinstance(restored, Tensor) and not torch.isfinite(restored).all():
            restored = "the restorer returned values that are not finite"
        if isinstance(restored, str):
            pairs.append((replace(result, status="failed", reason=restored), None))
            continue
        restored, face = restored.clamp(-1, 1), faces[i]
        if grayscale or nearly_gray(result.crop):
            restored, face = (
                torch.einsum("c,chw->hw", torch.from_numpy(LUMA), image).expand(3, -1, -1)
                for image in (restored, face)
            )
        difference = ((restored - face) / 2).permute(1, 2, 0).contiguous().numpy()
        shown = tensor_to_uint8(restored[None])[0]
        result = replace(result, status="restored", restored=shown, findings=findings[i])
        pairs.append((result, difference))
    return pairs
