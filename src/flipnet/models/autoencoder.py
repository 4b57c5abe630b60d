"""The compact auto-encoder: the small VAE of the bundled model, and the blocks of the face encoder.

No normalisation layers: they cost as much as the convolutions on a CPU, and a zero-initialised second
convolution in every residual block keeps the start of training stable without them.
Source: our choice (docs/training-log.md), the place of Stable Diffusion's VAE in FLIPNET.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from itertools import pairwise

from diffusers import ConfigMixin, ModelMixin
from diffusers.configuration_utils import register_to_config
from diffusers.models.autoencoders.autoencoder_tiny import AutoencoderTinyOutput
from diffusers.models.autoencoders.vae import DecoderOutput
from torch import Tensor, nn
from torch.nn import functional as F


class ResidualBlock(nn.Module):
    """x + conv(silu(conv(silu(x)))), the second convolution starting at zero. (B, C, H, W) -> same."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(channels, channels, 3, padding=1)
        self.conv2 = nn.Conv2d(channels, channels, 3, padding=1)
        nn.init.zeros_(self.conv2.weight)

    def forward(self, x: Tensor) -> Tensor:
        """Apply the block."""
        return x + self.conv2(F.silu(self.conv1(F.silu(x))))


class ConvEncoder(nn.Module):
    """Pixel-unshuffle, then one stage per entry of `channels`, each halving the one before it.

    Input (B, 3, H, W) in [-1, 1], H and W multiples of `unshuffle * 2 ** (len(channels) - 1)`;
    output (B, out_channels, H / factor, W / factor), unbounded.
    """

    def __init__(self, channels: Sequence[int], blocks: int, unshuffle: int, out_channels: int) -> None:
        super().__init__()
        self.unshuffle = unshuffle
        self.stem = nn.Conv2d(3 * unshuffle**2, channels[0], 3, padding=1)
        self.stages = nn.ModuleList(
            nn.Sequential(*(ResidualBlock(width) for _ in range(blocks))) for width in channels
        )
        self.downs = nn.ModuleList(nn.Conv2d(a, b, 3, stride=2, padding=1) for a, b in pairwise(channels))
        self.head = nn.Conv2d(channels[-1], out_channels, 3, padding=1)

    def features(self, image: Tensor) -> list[Tensor]:
        """Return every stage's features, finest first: (B, channels[i], H / (unshuffle * 2^i), ...)."""
        x = self.stem(F.pixel_unshuffle(image, self.unshuffle))
        features = []
        for index, stage in enumerate(self.stages):
            x = stage(x if index == 0 else self.downs[index - 1](x))
            features.append(x)
        return features

    def forward(self, image: Tensor) -> Tensor:
        """Map an image to its latents."""
        return self.head(self.features(image)[-1])


class ConvDecoder(nn.Module):
    """Mirror of `ConvEncoder`: convolution and pixel-shuffle up, last shuffle by `unshuffle`.

    Input (B, in_channels, h, w); output (B, 3, h * factor, w * factor), meant for [-1, 1], not clamped.
    """

    def __init__(self, channels: Sequence[int], blocks: int, unshuffle: int, in_channels: int) -> None:
        super().__init__()
        self.unshuffle = unshuffle
        widths = list(reversed(channels))
        self.stem = nn.Conv2d(in_channels, widths[0], 3, padding=1)
        self.stages = nn.ModuleList(
            nn.Sequential(*(ResidualBlock(width) for _ in range(blocks))) for width in widths
        )
        self.ups = nn.ModuleList(nn.Conv2d(a, 4 * b, 3, padding=1) for a, b in pairwise(widths))
        self.head = nn.Conv2d(widths[-1], 3 * unshuffle**2, 3, padding=1)

    def forward(self, latents: Tensor, enter_level: Callable[[int, Tensor], Tensor] | None = None) -> Tensor:
        """Map latents to an image; `enter_level` may change what enters level 0 (coarsest), 1, ..."""
        x = self.stem(latents)
        for index, stage in enumerate(self.stages):
            x = x if index == 0 else F.pixel_shuffle(self.ups[index - 1](x), 2)
            x = stage(x if enter_level is None else enter_level(index, x))
        return F.pixel_shuffle(self.head(F.silu(x)), self.unshuffle)


class CompactAutoencoder(ModelMixin, ConfigMixin):
    """A deterministic convolutional auto-encoder with diffusers' VAE interface.

    Images are (B, 3, H, W) RGB in [-1, 1]; latents (B, latent_channels, H / factor, W / factor) with
    factor = unshuffle * 2 ** (len(channels) - 1). `latents_mean` and `latents_std` (one number per latent
    channel, or None before they were measured) are applied by `models.backbone` alone.
    """

    @register_to_config
    def __init__(
        self,
        channels: tuple[int, ...] = (32, 64, 128, 256),
        blocks: int = 2,
        unshuffle: int = 2,
        latent_channels: int = 32,
        latents_mean: list[float] | None = None,
        latents_std: list[float] | None = None,
    ) -> None:
        super().__init__()
        self.encoder = ConvEncoder(channels, blocks, unshuffle, latent_channels)
        self.decoder = ConvDecoder(channels, blocks, unshuffle, latent_channels)

    @property
    def downscale_factor(self) -> int:
        """Image pixels per latent pixel."""
        return self.config.unshuffle * 2 ** (len(self.config.channels) - 1)

    def encode(self, image: Tensor) -> AutoencoderTinyOutput:
        """Encode; `.latents` holds the result."""
        return AutoencoderTinyOutput(latents=self.encoder(image))

    def decode(self, latents: Tensor) -> DecoderOutput:
        """Decode; `.sample` holds the result, not clamped."""
        return DecoderOutput(sample=self.decoder(latents))

    def forward(self, image: Tensor) -> Tensor:
        """Encode and decode."""
        return self.decoder(self.encoder(image))
