"""VAE, UNet and scheduler as one base; the only place where latents are scaled.

Source: FLIPNET's frozen base; diffusers' conventions for `scaling_factor`, `latents_mean` and `latents_std`.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import diffusers
import torch
from diffusers.utils import SAFETENSORS_WEIGHTS_NAME as WEIGHTS_NAME
from safetensors import SafetensorError
from torch import Tensor
from torch.overrides import TorchFunctionMode

from flipnet.checkpoints import CheckpointError, read_json, refuse_not_finite, tensor_shapes
from flipnet.models.autoencoder import CompactAutoencoder

LOADING_ERRORS: tuple[type[Exception], ...] = (
    *(OSError, ValueError, TypeError, LookupError, AttributeError, ArithmeticError, RuntimeError),
    *(ImportError, AssertionError, SafetensorError),
)
"""What configs that describe no model were seen to raise in diffusers."""

MAX_CONFIG_NUMBER = 1_000_000
"""Largest whole number in a config: diffusers makes lists as long as some of them say. Our choice."""

VAE_CLASSES = {
    "AutoencoderKL": diffusers.AutoencoderKL,
    "AutoencoderTiny": diffusers.AutoencoderTiny,
    "CompactAutoencoder": CompactAutoencoder,
}


def load_component(folder: Path, classes: dict[str, Any]) -> Any:
    """Load a model in diffusers' folder layout whose class is one of `classes`, from safetensors alone.

    Raises CheckpointError naming the folder when the class is another or the weights do not fit: a tensor
    missing, surplus, of another shape, or not finite.
    """
    config = read_json(folder / "config.json")
    name = config.get("_class_name")
    if not isinstance(name, str) or name not in classes:
        raise CheckpointError(f"{folder}: holds a {name}, expected one of {', '.join(classes)}")
    _refuse_another_size(classes[name], config, folder)
    try:
        model, loading = classes[name].from_pretrained(
            str(folder), use_safetensors=True, low_cpu_mem_usage=False, output_loading_info=True
        )
    except LOADING_ERRORS as error:
        raise CheckpointError(f"{folder}: cannot be loaded as a {name}: {one_line(error)}") from error
    # diffusers only warns of these, and goes on with random weights.
    for fault in ("missing", "unexpected", "mismatched"):
        if keys := sorted(map(str, loading[f"{fault}_keys"])):
            raise CheckpointError(f"{folder}: {fault} tensors, the first of {len(keys)} is {keys[0]}")
    refuse_not_finite(model.state_dict(), folder)
    # Convolutions are three times faster on a CPU with the channels last.
    return model.to(memory_format=torch.channels_last)


def _refuse_another_size(model_class: Any, config: dict[str, Any], folder: Path) -> None:
    """Raise CheckpointError unless the weights file holds tensors as large as the config asks for.

    No memory is taken for weights before, so that a config cannot ask for all there is. Names may differ: diffusers
    renames those of its first years.
    """
    if config.get("quantization_config") is not None:
        raise CheckpointError(f"{folder}: its weights are quantized, only plain ones are loaded")
    if max(_whole_numbers(config), default=0) > MAX_CONFIG_NUMBER:
        raise CheckpointError(f"{folder}: its config.json holds a whole number above {MAX_CONFIG_NUMBER}")
    stored = tensor_shapes(folder / WEIGHTS_NAME)[1]
    try:
        state = described_model(lambda: model_class.from_config(config), len(stored)).state_dict()
    except LOADING_ERRORS as error:
        raise CheckpointError(
            f"{folder}: its config.json describes no {model_class.__name__}: {one_line(error)}"
        ) from error
    for key in sorted(state.keys() & stored.keys()):
        if tuple(state[key].shape) != stored[key]:
            raise CheckpointError(
                f"{folder}: {key} has shape {stored[key]}, config.json asks for {tuple(state[key].shape)}"
            )
    asked, held = sum(t.numel() for t in state.values()), sum(map(math.prod, stored.values()))
    if asked != held:
        odd = min(state.keys() ^ stored.keys())
        raise CheckpointError(
            f"{folder}: the tensors are not those that config.json asks for "
            f"({held} numbers, not {asked}), see {odd}"
        )


def _whole_numbers(config: dict[str, Any]) -> Iterator[int]:
    """Yield every whole number in a JSON object, however deep."""
    waiting: list[Any] = [config]
    while waiting:
        value = waiting.pop()
        if isinstance(value, int):
            yield value
        elif isinstance(value, dict | list):
            waiting += value.values() if isinstance(value, dict) else value


class _FewTensors(TorchFunctionMode):
    """Within it, ValueError from the first tensor made beyond `most`."""

    MAKERS = (torch.empty, torch.zeros, torch.ones)

    def __init__(self, most: int) -> None:
        super().__init__()
        self.left = most

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        self.left -= func in self.MAKERS
        if self.left < 0:
            raise ValueError("it asks for more tensors than are stored")
        return func(*args, **(kwargs or {}))


def described_model(make: Callable[[], Any], stored: int) -> Any:
    """Return the model that `make` makes, on the meta device, where weights take no memory.

    Raises ValueError when it asks for far more tensors than the `stored` ones: a config can ask for a billion
    layers, and a layer without weights takes time and memory still. Twice as many and a hundred are let pass (our
    choice), for what a constructor makes beside its parameters.
    """
    with torch.device("meta"), _FewTensors(2 * stored + 100):
        return make()


def one_line(error: Exception) -> str:
    """Return an error's message on one line of at most 300 characters, or its kind if it has none."""
    return " ".join(str(error).split())[:300] or type(error).__name__


def load_vae(folder: Path) -> Any:
    """Load a VAE: Stable Diffusion's, TAESD's or the compact one."""
    return load_component(folder, VAE_CLASSES)


def encode_latents(vae: Any, image: Tensor) -> Tensor:
    """Encode (B, 3, H, W) in [-1, 1] to latents of about unit variance, (B, C, H / f, W / f).

    A Gaussian posterior (Stable Diffusion's VAE) gives its mode, so that encoding is deterministic.
    """
    encoded = vae.encode(image)
    raw = encoded.latents if hasattr(encoded, "latents") else encoded.latent_dist.mode()
    return _normalised(vae, raw)


def encode_with_features(vae: CompactAutoencoder, image: Tensor) -> tuple[Tensor, list[Tensor]]:
    """Return what `encode_latents` and `encoder_features` return, for the price of one."""
    features = vae.encoder.features(image)
    return _normalised(vae, vae.encoder.head(features[-1])), features


def decode_latents(vae: Any, latents: Tensor) -> Tensor:
    """Decode what `encode_latents` returned to (B, 3, H, W), meant for [-1, 1], not clamped."""
    return vae.decode(raw_latents(vae, latents)).sample


def raw_latents(vae: Any, latents: Tensor) -> Tensor:
    """Undo the normalisation of `encode_latents`: what the VAE's own decoder takes."""
    mean, scale = _statistics(vae, latents)
    return latents / scale + mean


def _normalised(vae: Any, raw: Tensor) -> Tensor:
    mean, scale = _statistics(vae, raw)
    return (raw - mean) * scale


def _statistics(vae: Any, like: Tensor) -> tuple[Tensor | float, Tensor | float]:
    """Mean and factor of a VAE's raw latents; plain numbers where there is one for all channels."""
    config = vae.config
    if getattr(config, "latents_mean", None) is not None:
        # Not made on the device: that would wait for all it has to do.
        mean, std = (
            torch.tensor(values, dtype=like.dtype).view(1, -1, 1, 1).to(like.device, non_blocking=True)
            for values in (config.latents_mean, config.latents_std)
        )
        return mean, 1 / std
    return getattr(config, "shift_factor", None) or 0.0, getattr(config, "scaling_factor", 1.0)


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
