"""VAE, UNet and scheduler as one base; the only place where latents are scaled.

Source: FLIPNET's frozen base; diffusers' conventions for `scaling_factor`, `latents_mean` and `latents_std`.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import diffusers
import torch
from safetensors import SafetensorError
from torch import Tensor

from flipnet.checkpoints import CheckpointError, read_json
from flipnet.models.autoencoder import CompactAutoencoder

VAE_CLASSES = {
    "AutoencoderKL": diffusers.AutoencoderKL,
    "AutoencoderTiny": diffusers.AutoencoderTiny,
    "CompactAutoencoder": CompactAutoencoder,
}


def load_component(folder: Path, classes: dict[str, Any]) -> Any:
    """Load a model in diffusers' folder layout whose class is one of `classes`, from safetensors alone.

    Raises CheckpointError naming the folder when the class is another or the weights do not fit.
    """
    name = read_json(folder / "config.json").get("_class_name")
    if name not in classes:
        raise CheckpointError(f"{folder}: holds a {name}, expected one of {', '.join(classes)}")
    try:
        model = classes[name].from_pretrained(str(folder), use_safetensors=True, low_cpu_mem_usage=False)
    except (OSError, ValueError, RuntimeError, SafetensorError) as error:
        reason = str(error).splitlines()[0]
        raise CheckpointError(f"{folder}: cannot be loaded as a {name}: {reason}") from error
    # Convolutions are three times faster on a CPU with the channels last.
    return model.to(memory_format=torch.channels_last)


def load_vae(folder: Path) -> Any:
    """Load a VAE: Stable Diffusion's, TAESD's or the compact one."""
    return load_component(folder, VAE_CLASSES)


def encode_latents(vae: Any, image: Tensor) -> Tensor:
    """Encode (B, 3, H, W) in [-1, 1] to latents of about unit variance, (B, C, H / f, W / f).

    A Gaussian posterior (Stable Diffusion's VAE) gives its mode, so that encoding is deterministic.
    """
    encoded = vae.encode(image)
    raw = encoded.latents if hasattr(encoded, "latents") else encoded.latent_dist.mode()
    mean, scale = _statistics(vae, raw)
    return (raw - mean) * scale


def decode_latents(vae: Any, latents: Tensor) -> Tensor:
    """Decode what `encode_latents` returned to (B, 3, H, W), meant for [-1, 1], not clamped."""
    mean, scale = _statistics(vae, latents)
    return vae.decode(latents / scale + mean).sample


def _statistics(vae: Any, like: Tensor) -> tuple[Tensor, Tensor]:
    config = vae.config
    if getattr(config, "latents_mean", None) is not None:
        shape = (1, -1, 1, 1)
        mean = torch.tensor(config.latents_mean, device=like.device, dtype=like.dtype).view(shape)
        std = torch.tensor(config.latents_std, device=like.device, dtype=like.dtype).view(shape)
        return mean, 1 / std
    scale = torch.tensor(getattr(config, "scaling_factor", 1.0), device=like.device, dtype=like.dtype)
    shift = torch.tensor(getattr(config, "shift_factor", None) or 0.0, device=like.device, dtype=like.dtype)
    return shift, scale


def downscale_factor(vae: Any) -> int:
    """Image pixels per latent pixel along one side."""
    own = getattr(vae, "downscale_factor", None)
    return own if own is not None else 2 ** (len(vae.config.block_out_channels) - 1)


def encoder_features(vae: Any, image: Tensor) -> list[Tensor]:
    """Return the features of every level of a VAE's encoder, finest first, for an image in [-1, 1].

    They serve as the perceptual features of L_p (our choice: no network trained elsewhere is needed).
    """
    if isinstance(vae, CompactAutoencoder):
        return vae.encoder.features(image)
    features, x = [], vae.encoder.conv_in(image)
    for block in vae.encoder.down_blocks:
        x = block(x)
        features.append(x)
    return features
