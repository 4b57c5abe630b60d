"""The BFR-oriented face embedding: an HQ and an LQ face auto-encoder (stage I), associated (stage II).

Source: FLIPNET, "BFR-oriented face embedding". Layer shapes are our choice.
"""

from __future__ import annotations

from itertools import pairwise
from typing import Literal

import torch
from diffusers import ConfigMixin, ModelMixin
from diffusers.configuration_utils import register_to_config
from torch import Tensor, nn
from torch.nn import functional as F

from flipnet.models.autoencoder import ConvDecoder, ConvEncoder

Quality = Literal["hq", "lq"]

MAX_INPUT_PX = 4096
"""Largest side of prepared faces: a config alone decides it, and memory grows with its square. Our choice."""


class FaceEncoder(ModelMixin, ConfigMixin):
    """Two face auto-encoders; their encoders turn a face into N patch tokens of width D.

    Args:
        channels, blocks, unshuffle: of both auto-encoders, see `ConvEncoder`.
        embedding_dim: D.
        input_px: faces are area-averaged to this side first; N = (input_px / downscale)².
        with_decoders: keep the decoders, needed only while training.
    """

    @register_to_config
    def __init__(
        self,
        channels: tuple[int, ...] = (64, 96, 128, 192),
        blocks: int = 2,
        unshuffle: int = 4,
        embedding_dim: int = 192,
        input_px: int = 256,
        with_decoders: bool = True,
    ) -> None:
        super().__init__()
        if not isinstance(input_px, int) or not 1 <= input_px <= MAX_INPUT_PX:
            raise ValueError(f"input_px {input_px!r} is no number of pixels from 1 to {MAX_INPUT_PX}")
        self.encoders = nn.ModuleDict(
            {q: ConvEncoder(channels, blocks, unshuffle, embedding_dim) for q in ("hq", "lq")}
        )
        self.decoders = nn.ModuleDict(
            {q: ConvDecoder(channels, blocks, unshuffle, embedding_dim) for q in ("hq", "lq")}
            if with_decoders
            else {}
        )

    @property
    def num_tokens(self) -> int:
        """N, tokens per face."""
        side = self.config.input_px // (self.config.unshuffle * 2 ** (len(self.config.channels) - 1))
        return side * side

    def prepare(self, face: Tensor) -> Tensor:
        """Area-average a face (B, 3, S, S) in [-1, 1] to (B, 3, input_px, input_px)."""
        return prepare_face(face, self.config.input_px)

    def encode(self, prepared: Tensor, quality: Quality) -> Tensor:
        """Encode a prepared face to its feature map (B, D, n, n), n² = N."""
        return self.encoders[quality](prepared)

    def decode(self, features: Tensor, quality: Quality) -> Tensor:
        """Decode a feature map to a prepared face, not clamped; needs the decoders."""
        return self.decoders[quality](features)

    def forward(self, face: Tensor, quality: Quality = "lq") -> Tensor:
        """Return the embedding z_y of a face (B, 3, S, S) in [-1, 1]: tokens (B, N, D), row by row."""
        return as_tokens(self.encode(self.prepare(face), quality))

    def without_decoders(self) -> FaceEncoder:
        """Return a copy that holds the encoders alone, as shipped with a pipeline."""
        settings = {key: value for key, value in self.config.items() if not key.startswith("_")}
        copy = FaceEncoder(**{**settings, "with_decoders": False})
        copy.encoders.load_state_dict(self.encoders.state_dict())
        return copy


def prepare_face(face: Tensor, input_px: int) -> Tensor:
    """Area-average (B, 3, S, S) to (B, 3, input_px, input_px)."""
    return F.interpolate(face, size=(input_px, input_px), mode="area")


def as_tokens(features: Tensor) -> Tensor:
    """(B, D, n, n) -> (B, n², D), row by row."""
    return features.flatten(2).transpose(1, 2)


class PatchDiscriminator(nn.Module):
    """Judges patches of a prepared face for L_adv of stage I: (B, 3, H, W) -> logits (B, 1, H / 8, W / 8).

    Source: FLIPNET names the term L_adv; a small spectral-normalised patch network is our choice.
    """

    def __init__(self, width: int = 48) -> None:
        super().__init__()
        layers: list[nn.Module] = []
        widths = (3, width, 2 * width, 4 * width)
        for a, b in pairwise(widths):
            conv = nn.Conv2d(a, b, 4, stride=2, padding=1)
            layers += [torch.nn.utils.parametrizations.spectral_norm(conv), nn.LeakyReLU(0.2)]
        self.layers = nn.Sequential(*layers, nn.Conv2d(widths[-1], 1, 3, padding=1))

    def forward(self, image: Tensor) -> Tensor:
        """Return logits, higher for "real"."""
        return self.layers(image)
