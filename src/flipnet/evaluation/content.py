"""Whether a degraded face is still the same face at the same place: identity distance and landmark shift."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from flipnet.evaluation.landmarks import FivePoints, landmark_distance
from flipnet.faces.identity import IdentityNetwork, IdentityUnavailableError, identity_distance
from flipnet.types import FaceDetector


@dataclass(frozen=True)
class ContentChange:
    """What a degradation did to the content of one aligned face; both are best at 0.

    Attributes:
        identity_distance: dlib distance HQ to LQ, 0 to about 1.4, see `IdentityNetwork.distance`.
        identity_missing: why there is none, else None.
        landmark_shift_px: mean distance of the five landmarks found in HQ and LQ, pixels of a 512-pixel crop.
        landmarks_missing: why there is none, else None.
    """

    identity_distance: float | None
    identity_missing: str | None
    landmark_shift_px: float | None
    landmarks_missing: str | None


@dataclass(frozen=True)
class ContentReference:
    """What is known of a clean face: embedding (128,) and landmarks (5, 2), None where they cannot be had."""

    embedding: np.ndarray | None
    landmarks_px: np.ndarray | None


class ContentCheck:
    """Compares clean aligned faces with their degraded versions.

    Args:
        detector: finds the landmarks; None takes CenterFace.

    Source: our choice. Both are read off the aligned crops as they are, since degrading must not move the face.
    A blurred face also moves what a detector finds, so the shift is an upper bound of the true one.
    """

    def __init__(self, detector: FaceDetector | None = None) -> None:
        self._landmarks = FivePoints(detector)
        self._identity: IdentityNetwork | None = None
        self._identity_missing: str | None = None
        try:
            self._identity = IdentityNetwork()
        except IdentityUnavailableError as error:
            self._identity_missing = str(error)

    def reference(self, hq: np.ndarray) -> ContentReference:
        """Look at a clean face, uint8 (S, S, 3) RGB, aligned to the FFHQ template."""
        embedding = None if self._identity is None else self._identity.embed(hq)
        return ContentReference(embedding, self._landmarks(hq))

    def compare(self, reference: ContentReference, lq: np.ndarray) -> ContentChange:
        """Compare a degraded version, uint8 (S, S, 3) RGB, with the clean face's `reference`."""
        distance, shift, missing = None, None, None
        if self._identity is not None and reference.embedding is not None:
            distance = identity_distance(self._identity.embed(lq), reference.embedding)
        if reference.landmarks_px is None:
            missing = "no face was found in the clean image"
        else:
            found = self._landmarks(lq)
            if found is None:
                missing = "no face was found in the degraded image"
            else:
                shift = landmark_distance(found, reference.landmarks_px)
        return ContentChange(distance, self._identity_missing, shift, missing)
