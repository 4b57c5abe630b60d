"""What training computes once: latents of the HQ faces, latents and embeddings of their degraded variants."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from flipnet.data.cache import DecodedFaces, fingerprint
from flipnet.data.latents import cached_degraded_faces, cached_encoding, degraded_face
from flipnet.models.backbone import encode_latents
from flipnet.models.face_encoder import FaceEncoder, as_tokens, prepare_face
from flipnet.pipelines.pipeline import FlipnetPipeline
from flipnet.training.objective import to_unit_range
from flipnet.types import Mode


def weights_fingerprint(*models: nn.Module) -> str:
    """16 hex digits that change with the weights."""
    return fingerprint(*(f"{p.double().sum().item():.10g}" for model in models for p in model.parameters()))


def cached_hq_latents(vae: Any, faces: DecodedFaces, cache: Path) -> tuple[np.ndarray, np.ndarray]:
    """Latents of the faces and of their mirror images, float16 (N, L, h, w) each."""

    @torch.no_grad()
    def encode(image: Tensor) -> dict[str, Tensor]:
        with torch.autocast(image.device.type, torch.bfloat16):
            return {"latents": encode_latents(vae, image)}

    def latents(name: str, step: int) -> np.ndarray:
        name = f"hq-{fingerprint(weights_fingerprint(vae.encoder), *faces.keys)}-{name}"
        return cached_encoding(lambda i: _image(faces.read(i)[:, ::step]), len(faces), encode, cache, name)[
            "latents"
        ]

    return latents("plain", 1), latents("mirrored", -1)


@dataclass(frozen=True)
class LqVariants:
    """How degraded variants of a set of faces are made and kept.

    Attributes:
        faces: the HQ faces.
        presets: degradation presets, one drawn per face and variant.
        input_px: side of the area-averaged face that the face encoder sees.
    """

    faces: DecodedFaces
    presets: Sequence[str]
    input_px: int
    seed: int
    cache: Path

    def latents(self, vae: Any, variant: int) -> dict[str, np.ndarray]:
        """Return "latents" (N, L, h, w) and "prepared" (N, 3, input_px, input_px) of one variant."""

        @torch.no_grad()
        def encode(image: Tensor) -> dict[str, Tensor]:
            with torch.autocast(image.device.type, torch.bfloat16):
                latents = encode_latents(vae, image)
            return {"latents": latents, "prepared": prepare_face(image, self.input_px)}

        # Degrading costs as much as encoding: faces that are kept anyway are not degraded twice.
        kept = (
            np.load(self._pixels_file(variant), mmap_mode="r")
            if self._pixels_file(variant).exists()
            else None
        )

        def picture(index: int) -> Tensor:
            if kept is not None:
                return _image(kept[index])
            return _image(degraded_face(self.faces.pixels, self.presets, variant, index, self.seed))

        name = f"lq-{self._fingerprint(vae)}-{variant:03d}"
        return cached_encoding(picture, len(self.faces), encode, self.cache, name)

    def embeddings(self, vae: Any, encoder: FaceEncoder, variant: int) -> np.ndarray:
        """Return the LQ embeddings (N, tokens, D) of one variant."""

        @torch.no_grad()
        def encode(prepared: Tensor) -> dict[str, Tensor]:
            with torch.autocast(prepared.device.type, torch.bfloat16):
                return {"embedding": as_tokens(encoder.encode(prepared, "lq"))}

        prepared = self.latents(vae, variant)["prepared"]
        name = f"lq-{self._fingerprint(vae)}-{weights_fingerprint(encoder)}-{variant:03d}"

        def picture(index: int) -> Tensor:
            return torch.from_numpy(np.array(prepared[index : index + 1], np.float32))

        return cached_encoding(picture, len(self.faces), encode, self.cache, name)["embedding"]

    def pixels(self, variant: int) -> np.ndarray:
        """Return one variant itself, uint8 (N, S, S, 3)."""
        file = self._pixels_file(variant)
        return cached_degraded_faces(self.faces.pixels, self.presets, variant, self.seed, file)

    def restored_latents(self, pipeline: FlipnetPipeline, steps: int, variant: int) -> np.ndarray:
        """Return the latents (N, L, h, w) that the restoration mode makes of one variant, before decoding.

        Face number i starts from the noise of seed i.
        """
        pixels, network = self.pixels(variant), pipeline.network
        network.activate(Mode.RESTORATION)

        @torch.no_grad()
        def restore(indices: Tensor) -> dict[str, Tensor]:
            numbers = indices.flatten().tolist()
            lq = torch.cat([_image(pixels[number]) for number in numbers])
            generators = [torch.Generator().manual_seed(number) for number in numbers]
            latents, _ = pipeline.encode(lq)
            return {"latents": pipeline.denoise(latents, lq, generators, steps)}

        parts = (pipeline.vae.encoder, network.unet, network.adapters, network.face_encoder)
        name = f"restored-{fingerprint(weights_fingerprint(*parts), steps, self._fingerprint(pipeline.vae))}"
        return cached_encoding(
            lambda index: torch.tensor([[index]]),
            len(self.faces),
            restore,
            self.cache,
            f"{name}-{variant:03d}",
        )["latents"]

    def _pixels_file(self, variant: int) -> Path:
        name = f"degraded-{fingerprint(self.seed, *self.presets, *self.faces.keys)}-{variant:03d}"
        return self.cache / f"{name}.npy"

    def _fingerprint(self, vae: Any) -> str:
        return fingerprint(
            weights_fingerprint(vae.encoder), self.input_px, self.seed, *self.presets, *self.faces.keys
        )


def _image(face: np.ndarray) -> Tensor:
    return to_unit_range(torch.from_numpy(np.array(face)).permute(2, 0, 1)[None])
