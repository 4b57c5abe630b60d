"""The ways `flipnet degrade` can make a bad face: the network, or one of the naive recipes."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any, Protocol

import numpy as np

from flipnet.data.colour import to_grayscale
from flipnet.data.degradation import PRESETS, degrade_with, preset
from flipnet.images import faces_to_tensor, tensor_to_uint8
from flipnet.types import FlipnetError

NETWORK = "flipnet"

NAIVE_SIZE_PX = 512
"""Side of the faces whose pixels the naive recipes' blur widths are meant for."""


@dataclass(frozen=True)
class Degraded:
    """One result.

    Attributes:
        hq: uint8 (S, S, 3) RGB, the clean face that belongs to `lq`: gray where a recipe turned `lq` gray.
        lq: uint8 (S, S, 3) RGB; None where nothing usable came out.
        cause: why `lq` is None, else None.
        parameters: what a naive recipe drew, JSON types; None for the network.
    """

    hq: np.ndarray
    lq: np.ndarray | None
    cause: str | None = None
    parameters: dict[str, Any] | None = None


class Method(Protocol):
    """Degrades square faces of one native size."""

    native_size_px: int

    def __call__(self, faces: Sequence[np.ndarray], seeds: Sequence[int]) -> list[Degraded]:
        """Degrade uint8 (S, S, 3) RGB faces, one seed and one result each, whatever the batch."""
        ...

    def as_json(self) -> dict[str, Any]:
        """Return what decides the results beside the seed."""
        ...


class NaiveMethod:
    """A recipe of `flipnet.data.degradation`; needs no model."""

    native_size_px = NAIVE_SIZE_PX

    def __init__(self, name: str) -> None:
        self.name, self._ranges = name, preset(name)

    def __call__(self, faces: Sequence[np.ndarray], seeds: Sequence[int]) -> list[Degraded]:
        """See `Method`; the bytes are those of `degrade_with(preset(name), face, seed)`."""
        return [self._one(face, seed) for face, seed in zip(faces, seeds, strict=True)]

    def _one(self, face: np.ndarray, seed: int) -> Degraded:
        lq, drawn = degrade_with(self._ranges, face, seed)
        hq = to_grayscale(face) if drawn.grayscale else face
        return Degraded(hq, lq, parameters=asdict(drawn))

    def as_json(self) -> dict[str, Any]:
        """See `Method`."""
        return {"method": self.name, "model": None, "phi": None, "steps": None, "device": None}


class NetworkMethod:
    """The degradation mode of a checkpoint."""

    def __init__(self, *, phi: float, steps: int | None, model: str, device: str) -> None:
        # Here, because diffusers and peft take seconds to import and the naive recipes do without.
        from flipnet.pipelines.degrade import FaceDegrader

        self._degrader = FaceDegrader.from_checkpoint(model, phi=phi, steps=steps, device=device)
        self.native_size_px = self._degrader.native_size_px

    def __call__(self, faces: Sequence[np.ndarray], seeds: Sequence[int]) -> list[Degraded]:
        """See `Method`; a batch that torch cannot compute (out of memory, say) is `cause`, not an error."""
        try:
            results = self._degrader(faces_to_tensor(np.stack(faces)), seeds)
        except RuntimeError as error:
            return [Degraded(face, None, f"the network stopped with {error}") for face in faces]
        return [
            Degraded(face, tensor_to_uint8(result[None])[0])
            if result.isfinite().all()
            else Degraded(face, None, "the network returned values that are not finite")
            for face, result in zip(faces, results, strict=True)
        ]

    def as_json(self) -> dict[str, Any]:
        """See `Method`; `model`, `steps` and `device` are what "auto" and the defaults came to."""
        used = self._degrader
        settings = {"method": NETWORK, "model": used.model_name, "phi": used.phi}
        return settings | {"steps": used.steps, "device": used.device}


def check_method(name: str) -> None:
    """Raise FlipnetError, listing the known methods, unless `name` is one of them."""
    if name != NETWORK and name not in PRESETS:
        known = ", ".join((NETWORK, *PRESETS))
        raise FlipnetError(f"--method {name}: no such degradation; known are {known}")


def load_method(name: str, *, phi: float, steps: int | None, model: str, device: str) -> Method:
    """Return the method called `name`; only the network looks at the other arguments.

    Raises FlipnetError for an unknown method, and when the model or its degradation mode cannot be had.
    """
    check_method(name)
    if name == NETWORK:
        return NetworkMethod(phi=phi, steps=steps, model=model, device=device)
    return NaiveMethod(name)
