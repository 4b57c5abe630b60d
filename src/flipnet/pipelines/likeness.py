"""Whether a restored face is still the same person's, as far as a network can tell."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

import numpy as np
import torch
from torch.nn import functional as F

from flipnet.faces.identity import IdentityNetwork, IdentityUnavailableError
from flipnet.faces.photo import FaceResult, PhotoResult
from flipnet.images import faces_to_tensor
from flipnet.types import Likeness

if TYPE_CHECKING:
    from flipnet.models.face_encoder import FaceEncoder

DLIB, FACE_ENCODER = "dlib", "face encoder"

THRESHOLDS = {DLIB: 0.45, FACE_ENCODER: 0.9}
"""Similarity below which a warning is due, by method.

dlib: one minus its distance of the two faces. Face encoder: mean cosine of patches, see `encoder_similarity`.
Measured by benchmarks/likeness_threshold.py (36 held-out faces, shipped weights, each input against its own
restoration and those of four other people): with dlib other people's median is 0.22 to 0.26 and 97 to 100 % fall
below 0.45, of own restorations 0 % (mild), 14 % (medium, median 0.56) and 64 % (severe, median 0.42), where the
restored face is indeed 0.57 away from the true one on average. With the face encoder own restorations lie above
0.95, 95 % of other people's below 0.72; as it compares place by place, it notices another face rather than a
slightly changed one.

Either compares with the input: whose face it is, where the input itself no longer says it, neither can know.
"""


class LikenessCheck:
    """Compares faces before and after restoration: by dlib where it is installed, else by the model itself.

    Args:
        face_encoder: the model's face encoder, used without dlib; None if there is none at hand.

    Attributes:
        method: "dlib", "face encoder", or None if neither can be had; nothing is compared then.
    """

    def __init__(self, face_encoder: FaceEncoder | None) -> None:
        self._face_encoder = face_encoder
        self._dlib: IdentityNetwork | None = None
        self.method: str | None = None if face_encoder is None else FACE_ENCODER
        try:
            self._dlib = IdentityNetwork()
        except IdentityUnavailableError:
            return
        self.method = DLIB

    def compare(self, before: np.ndarray, after: np.ndarray) -> Likeness | None:
        """Compare one aligned face before and after, each uint8 (S, S, 3) RGB; None without a method."""
        if self._dlib is not None:
            similarity = 1 - self._dlib.distance(before, after)
        elif self._face_encoder is not None:
            similarity = encoder_similarity(self._face_encoder, before, after)
        else:
            return None
        assert self.method is not None
        return Likeness(similarity, THRESHOLDS[self.method], self.method)

    def examine(self, result: PhotoResult) -> PhotoResult:
        """Return a photo's result with the likeness of every restored face, and a warning where it is low."""
        return replace(result, faces=tuple(self._examined(face) for face in result.faces))

    def _examined(self, face: FaceResult) -> FaceResult:
        if face.restored is None:
            return face
        likeness = self.compare(face.crop, face.restored)
        if likeness is None:
            return face
        warnings = face.warnings
        if likeness.is_low:
            warnings += (
                f"it may no longer look like the same person: likeness {likeness.similarity:.2f} by "
                f"{likeness.method} is below {likeness.threshold:g}",
            )
        return replace(face, likeness=likeness, warnings=warnings)


@torch.no_grad()
def encoder_similarity(encoder: FaceEncoder, before: np.ndarray, after: np.ndarray) -> float:
    """Return the mean cosine between the patches' embeddings of an LQ face and an HQ face, in [-1, 1].

    The encoder's two halves were trained so that patches of the same face match (FLIPNET, association stage).

    Args:
        encoder: a trained face encoder.
        before: uint8 (S, S, 3) RGB, goes through the LQ half.
        after: uint8 (S, S, 3) RGB, goes through the HQ half.
    """
    device = next(encoder.parameters()).device
    lq, hq = (
        encoder(faces_to_tensor(face).to(device), quality)
        for face, quality in ((before, "lq"), (after, "hq"))
    )
    return float(F.cosine_similarity(lq, hq, dim=-1).mean())
