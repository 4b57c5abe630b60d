"""A mode's own decoder: the VAE's decoder, finished for what this mode has to paint.

The VAE's decoder was trained for fidelity alone and keeps a third of the fine detail, however good the latents are.
A mode may bring a decoder that was finished against a discriminator; it can also look at the VAE encoder's features
of the condition image, which still hold the detail that latents have no room for, and at noise of its own, for the
grain that no latent can describe.
Source: our choice (docs/training-log.md); looking at encoder features is the controllable feature wrapping of
StableSR (Wang et al., 2024), noise per level that of StyleGAN (Karras et al., 2019).
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from diffusers import ConfigMixin, ModelMixin
from diffusers.configuration_utils import register_to_config
from torch import Tensor, nn
from torch.nn import functional as F

from flipnet.models.autoencoder import CompactAutoencoder, ConvDecoder

SHAPE = ("channels", "blocks", "unshuffle", "latent_channels")
"""What a decoder's shape has in common with its VAE's."""


class FeatureFusion(nn.Module):
    """What the encoder's features add to the decoder's at one level; nothing before training.

    (B, C, H, W) twice -> (B, C, H, W).
    """

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(2 * channels, channels, 3, padding=1)
        self.conv2 = nn.Conv2d(channels, channels, 3, padding=1)
        for parameter in self.conv2.parameters():
            nn.init.zeros_(parameter)

    def forward(self, encoded: Tensor, decoded: Tensor) -> Tensor:
        """Return the addition."""
        return self.conv2(F.silu(self.conv1(torch.cat([encoded, decoded], dim=1))))


class ModeDecoder(ModelMixin, ConfigMixin):
    """Latents to faces, (B, L, h, w) as the VAE's own decoder takes them -> (B, 3, H, W), not clamped.

    Args:
        channels, blocks, unshuffle, latent_channels: shape of the `CompactAutoencoder` it belongs to.
        fuses: looks at the encoder's features of the condition image.
        noise: adds noise at every level, each channel by its own learned strength (zero before training).
        code_dim: K of the code that says how bad the picture is (see `Adapter.add_code`) and turns the strength of
            every channel's noise up or down, not at all before training; 0 for none.
    """

    @register_to_config
    def __init__(
        self,
        channels: tuple[int, ...] = (32, 64, 128, 256),
        blocks: int = 2,
        unshuffle: int = 2,
        latent_channels: int = 32,
        fuses: bool = False,
        noise: bool = False,
        code_dim: int = 0,
    ) -> None:
        super().__init__()
        self.decoder = ConvDecoder(channels, blocks, unshuffle, latent_channels)
        widths = list(reversed(channels))
        self.fusions = nn.ModuleList(FeatureFusion(width) for width in widths if fuses)
        self.noise_strengths = nn.ParameterList(torch.zeros(width, 1, 1) for width in widths if noise)
        self.code_gains = nn.ModuleList(nn.Linear(code_dim, width) for width in widths if noise and code_dim)
        for parameter in self.code_gains.parameters():
            nn.init.zeros_(parameter)

    @classmethod
    def from_vae(cls, vae: CompactAutoencoder, *, fuses: bool = False, noise: bool = False) -> ModeDecoder:
        """Return a decoder that does exactly what the VAE's own does."""
        made = cls(**{name: vae.config[name] for name in SHAPE}, fuses=fuses, noise=noise)
        made.decoder.load_state_dict(vae.decoder.state_dict())
        return made

    def with_code(self, code_dim: int) -> ModeDecoder:
        """Return a decoder that does what this one does and has a code to learn from, ValueError if it has one."""
        if self.config.code_dim:
            raise ValueError(f"this decoder has a code of {self.config.code_dim} numbers already")
        kept = {name: self.config[name] for name in (*SHAPE, "fuses", "noise")}
        made = type(self)(**kept, code_dim=code_dim)
        made.load_state_dict({**made.state_dict(), **self.state_dict()})
        return made

    def forward(
        self,
        latents: Tensor,
        features: Sequence[Tensor] = (),
        *,
        weight: float | Tensor = 1.0,
        generators: Sequence[torch.Generator] | None = None,
        code: Tensor | None = None,
    ) -> Tensor:
        """Decode.

        Args:
            latents: as `CompactAutoencoder.decode` takes them, not normalised.
            features: the encoder's features of the condition image, finest first, (B, C_i, H_i, W_i); without
                them nothing is fused.
            weight: in [0, 1], or (B, 1, 1, 1): factor on what is fused.
            generators: one CPU generator per image for the noise; None draws from torch's own.
            code: normalised code (B, K), for a decoder that has codes; others do not look at it.
        """
        if self.code_gains and code is None:
            raise ValueError("this decoder needs a code")
        coarsest_first = list(reversed(features))

        def enter_level(index: int, x: Tensor) -> Tensor:
            if self.fusions and coarsest_first:
                x = x + weight * self.fusions[index](coarsest_first[index], x)
            if self.noise_strengths:
                x = x + self._strength(index, code) * _noise(x, generators)
            return x

        return self.decoder(latents, enter_level)

    def _strength(self, index: int, code: Tensor | None) -> Tensor:
        """Strength of a level's noise, (C, 1, 1), or (B, C, 1, 1) where a code decides."""
        strength = self.noise_strengths[index]
        if not self.code_gains or code is None:
            return strength
        return strength * self.code_gains[index](code).exp()[..., None, None]


def _noise(like: Tensor, generators: Sequence[torch.Generator] | None) -> Tensor:
    """White noise (B, 1, H, W), one field for all channels."""
    shape: Any = (1, *like.shape[-2:])
    if generators is None:
        return torch.randn(len(like), *shape, device=like.device, dtype=like.dtype)
    return torch.stack([torch.randn(shape, generator=g) for g in generators]).to(like)
