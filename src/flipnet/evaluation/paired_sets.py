"""What a degradation method does to known faces: how its variants differ, and whether the face survives."""

from __future__ import annotations

import itertools
from collections import defaultdict
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from flipnet.data.datasets import ImageEntry
from flipnet.evaluation.content import ContentChange, ContentCheck, ContentReference
from flipnet.evaluation.face_sets import FaceSet, face_of_variant, read_face
from flipnet.types import FlipnetError


@dataclass(frozen=True)
class Spread:
    """Median and 95th percentile of a measurement."""

    median: float
    percentile_95: float


@dataclass(frozen=True)
class Diversity:
    """How much the variants of one face differ; higher is more diverse, 0 for equal variants.

    Attributes:
        faces: faces with at least two variants.
        variants: mean number of variants of these faces.
        feature_distance: mean Euclidean distance in the feature space of two variants of a face.
        pixel_rmse_levels: mean root mean square difference of two variants, levels of 255 over RGB.
    """

    faces: int
    variants: float
    feature_distance: float
    pixel_rmse_levels: float


@dataclass(frozen=True)
class Content:
    """How much of the face a method leaves; definitions in `content.ContentChange`, both best at 0.

    Attributes:
        pairs: LQ images compared with their HQ face.
        without_hq: LQ images whose HQ face was not found by name.
        hq_without_face: pairs left out of the shift because the detector finds no face in the HQ.
        lq_without_face: pairs left out of the shift because the detector finds no face in the LQ.
        identity_distance: over all pairs; None when dlib is absent.
        landmark_shift_px: over pairs with both faces found, pixels of the 512 frame; None for no such pair.
        identity_missing: why there is no identity distance, None when there is one.
    """

    pairs: int
    without_hq: int
    hq_without_face: int
    lq_without_face: int
    identity_distance: Spread | None
    landmark_shift_px: Spread | None
    identity_missing: str | None


def hq_key(key: str, hq: Mapping[str, ImageEntry]) -> str | None:
    """Return the key of the HQ face an LQ image was made from: its own name, or that without the number."""
    face = face_of_variant(key)
    return next((name for name in (key, face) if name is not None and name in hq), None)


def variant_groups(keys: Sequence[str], hq: Mapping[str, ImageEntry]) -> list[list[int]]:
    """Return the indices of each face's variants, for faces with at least two.

    Variants are named `<face>_NN`. Where HQ faces are given, `<face>` must be one of them, so that the numbered
    pictures of a folder that merely counts its files are not taken for one face.
    """
    groups: dict[str, list[int]] = defaultdict(list)
    for index, key in enumerate(keys):
        face = face_of_variant(key)
        if face is not None and (not hq or face in hq):
            groups[face].append(index)
    return [group for group in groups.values() if len(group) > 1]


def measure_diversity(
    entries: Sequence[ImageEntry],
    points: np.ndarray,
    hq: Mapping[str, ImageEntry],
    *,
    max_faces: int | None = None,
    on_image: Callable[[], None] = lambda: None,
) -> Diversity | None:
    """Measure the mean pairwise distance of each face's variants, averaged over faces; None without variants.

    Args:
        entries: N aligned images, keys as in `variant_groups`.
        points: float (N, d) coordinates in the feature space.
        hq: HQ faces by key, may be empty.
        max_faces: measure that many faces, spread evenly; None measures all.
        on_image: called after every image read, for progress.

    Source: FLIPNET, "offline LQ, 5 variants per HQ face"; the measure is our choice.
    """
    groups = variant_groups([entry.key for entry in entries], hq)
    groups = _evenly(groups, max_faces)
    if not groups:
        return None
    features, pixels = [], []
    for group in groups:
        images = []
        for index in group:
            images.append(_aligned(entries[index]))
            on_image()
        pairs = list(itertools.combinations(range(len(group)), 2))
        features.append(np.mean([np.linalg.norm(points[group[i]] - points[group[j]]) for i, j in pairs]))
        pixels.append(np.mean([pixel_rmse(images[i], images[j]) for i, j in pairs]))
    count = float(np.mean([len(group) for group in groups]))
    return Diversity(len(groups), count, float(np.mean(features)), float(np.mean(pixels)))


def pixel_rmse(image: np.ndarray, other: np.ndarray) -> float:
    """Root mean square difference of two uint8 images of one shape, in levels of 255."""
    return float(np.sqrt(np.mean((image.astype(np.float32) - other) ** 2, dtype=np.float64)))


class ContentMeasurer:
    """Compares methods' LQ images with the HQ faces they were made from; each HQ face is looked at once.

    Args:
        hq: HQ faces by key, shared by all methods.
    """

    def __init__(self, hq: Mapping[str, ImageEntry]) -> None:
        self._hq, self._check = hq, ContentCheck()
        self._references: dict[ImageEntry, ContentReference] = {}

    def measure(
        self, faces: FaceSet, *, max_images: int | None = None, on_image: Callable[[], None] = lambda: None
    ) -> Content | None:
        """Measure up to `max_images` images of a method, spread evenly; None when there are no HQ faces.

        HQ images inside the set itself (shards of pairs) go before those given for all methods.
        Raises FlipnetError naming the set none of whose names fits an HQ face.
        """
        hq = {**self._hq, **faces.paired_hq}
        if not hq:
            return None
        named = [(entry, hq_key(entry.key, hq)) for entry in faces.entries]
        pairs = [(entry, hq[key]) for entry, key in named if key is not None]
        if not pairs:
            raise FlipnetError(
                f"{faces.location}: none of its names fits an HQ face; expected <face>.<ext> or <face>_NN.<ext>, "
                f"found for instance '{faces.entries[0].key}' beside HQ '{next(iter(hq))}'"
            )
        changes = []
        for lq, clean in _evenly(pairs, max_images):
            changes.append(self._check.compare(self._reference(clean), _aligned(lq)))
            on_image()
        without_face = sum(
            self._reference(clean).landmarks_px is None for _, clean in _evenly(pairs, max_images)
        )
        return _content(changes, len(named) - len(pairs), without_face)

    def _reference(self, clean: ImageEntry) -> ContentReference:
        if clean not in self._references:
            self._references[clean] = self._check.reference(_aligned(clean))
        return self._references[clean]


def _content(changes: Sequence[ContentChange], without_hq: int, hq_without_face: int) -> Content:
    shifts = [change.landmark_shift_px for change in changes if change.landmark_shift_px is not None]
    distances = [change.identity_distance for change in changes if change.identity_distance is not None]
    return Content(
        pairs=len(changes),
        without_hq=without_hq,
        hq_without_face=hq_without_face,
        lq_without_face=len(changes) - len(shifts) - hq_without_face,
        identity_distance=_spread(distances),
        landmark_shift_px=_spread(shifts),
        identity_missing=changes[0].identity_missing,
    )


def _spread(values: Sequence[float]) -> Spread | None:
    return Spread(float(np.median(values)), float(np.percentile(values, 95))) if values else None


def _aligned(entry: ImageEntry) -> np.ndarray:
    face = read_face(entry)
    assert face is not None  # only a detector can find nothing
    return face


def _evenly(items: Sequence, limit: int | None) -> list:  # type: ignore[type-arg]
    count = len(items) if limit is None else min(limit, len(items))
    return [items[index * len(items) // count] for index in range(count)]
