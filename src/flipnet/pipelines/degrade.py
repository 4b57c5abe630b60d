"""Degradation: the same network with the roles flipped, clean faces in, realistic bad ones out."""

from __future__ import annotations

from flipnet.pipelines.face_mapping import FaceMapping
from flipnet.types import Mode


class FaceDegrader(FaceMapping):
    """HQ faces in, LQ faces of the same size and alignment out. See `FaceMapping` for loading and calling.

    How bad a face comes out is never an input: it varies with the seed, as in the real pairs the mode learned
    from, and where the mode has codes each face is told the code of one such pair (see `docs/degrade.md`). The
    same face and seed give the same result, whatever the batch; other seeds are other variants.
    Source: FLIPNET, "One network, two modes" and its degradation synthesis.
    """

    mode = Mode.DEGRADATION
