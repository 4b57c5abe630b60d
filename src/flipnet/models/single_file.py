"""Stable Diffusion's original single-file layout: shapes read off the weights, names turned into diffusers'.

What weights cannot tell is what every Stable Diffusion 1 and 2 has: 32 groups per normalisation, heads of 64
channels where projections are linear (version 2) and 8 heads where they are convolutions (version 1).
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Literal

import torch
from diffusers import AutoencoderKL, UNet2DConditionModel
from diffusers.loaders.single_file_utils import convert_ldm_unet_checkpoint, convert_ldm_vae_checkpoint
from safetensors import SafetensorError, safe_open
from torch import Tensor

from flipnet.checkpoints import CheckpointError, refuse_not_finite
from flipnet.models.backbone import LOADING_ERRORS, described_model, one_line

Part = Literal["unet", "vae"]
PREFIXES: dict[str, str] = {"unet": "model.diffusion_model.", "vae": "first_stage_model."}
HEAD_WIDTH = 64
VERSION_1_HEADS = 8


def load_single_file(file: Path, part: Part) -> Any:
    """Load the UNet or the VAE out of a .safetensors file; the text encoder's weights are not read.

    Raises CheckpointError naming the file when it holds no such part, the weights do not fit together, or one is
    not finite.
    """
    state = _read(file, PREFIXES[part])
    if not state:
        raise CheckpointError(f"{file}: cannot be a base: it has no {part} in Stable Diffusion's layout.")
    try:
        if part == "unet":
            config = unet_config(state)
            model = described_model(lambda: UNet2DConditionModel(**config), len(state))
            converted = convert_ldm_unet_checkpoint(state, config)
        else:
            config = vae_config(state)
            model = described_model(lambda: AutoencoderKL(**config), len(state))
            converted = convert_ldm_vae_checkpoint(state, config)
        model.load_state_dict({key: value.float() for key, value in converted.items()}, assign=True)
    except LOADING_ERRORS as error:
        raise CheckpointError(f"{file}: its {part} is not Stable Diffusion's: {one_line(error)}") from error
    refuse_not_finite(model.state_dict(), file)
    return model.eval().to(memory_format=torch.channels_last)


def _read(file: Path, prefix: str) -> dict[str, Tensor]:
    try:
        with safe_open(file, "pt") as opened:
            names = [name for name in list(opened.keys()) if name.startswith(prefix)]
            return {name: opened.get_tensor(name) for name in names}
    except (OSError, SafetensorError) as error:
        raise CheckpointError(f"{file}: cannot be read as safetensors: {error}") from error


def unet_config(state: Mapping[str, Tensor]) -> dict[str, Any]:
    """Return UNet2DConditionModel's arguments for weights in the original layout."""
    prefix = PREFIXES["unet"]
    shapes = {key.removeprefix(prefix): tuple(value.shape) for key, value in state.items()}
    # Down the encoder: a residual block, with or without attention, or a downsampling that ends a level.
    widths: list[list[int]] = [[]]
    attends: list[bool] = [False]
    context = None
    for index in range(1, _count(shapes, r"input_blocks\.(\d+)\.")):
        if f"input_blocks.{index}.0.op.weight" in shapes:
            widths.append([])
            attends.append(False)
            continue
        widths[-1].append(shapes[f"input_blocks.{index}.0.in_layers.2.weight"][0])
        to_k = f"input_blocks.{index}.1.transformer_blocks.0.attn2.to_k.weight"
        if to_k in shapes:
            attends[-1], context = True, shapes[to_k][1]
    channels = [level[-1] for level in widths]
    linear = any(key.endswith("proj_in.weight") and len(shape) == 2 for key, shape in shapes.items())
    return {
        "in_channels": shapes["input_blocks.0.0.weight"][1],
        "out_channels": shapes["out.2.weight"][0],
        "block_out_channels": tuple(channels),
        "layers_per_block": len(widths[0]),
        "down_block_types": tuple("CrossAttnDownBlock2D" if a else "DownBlock2D" for a in attends),
        "up_block_types": tuple("CrossAttnUpBlock2D" if a else "UpBlock2D" for a in reversed(attends)),
        "cross_attention_dim": context,
        # diffusers' name for the number of heads, by level.
        "attention_head_dim": tuple(max(1, c // HEAD_WIDTH) if linear else VERSION_1_HEADS for c in channels),
        "use_linear_projection": linear,
        "sample_size": 64,
    }


def vae_config(state: Mapping[str, Tensor]) -> dict[str, Any]:
    """Return AutoencoderKL's arguments for weights in the original layout."""
    prefix = PREFIXES["vae"]
    shapes = {key.removeprefix(prefix): tuple(value.shape) for key, value in state.items()}
    levels = _count(shapes, r"encoder\.down\.(\d+)\.")
    return {
        "block_out_channels": tuple(
            shapes[f"encoder.down.{level}.block.0.conv1.weight"][0] for level in range(levels)
        ),
        "layers_per_block": _count(shapes, r"encoder\.down\.0\.block\.(\d+)\."),
        "latent_channels": shapes["encoder.conv_out.weight"][0] // 2,
        "down_block_types": ("DownEncoderBlock2D",) * levels,
        "up_block_types": ("UpDecoderBlock2D",) * levels,
        "scaling_factor": 0.18215,
    }


def _count(shapes: Mapping[str, tuple[int, ...]], pattern: str) -> int:
    return 1 + max(int(found[1]) for key in shapes if (found := re.match(pattern, key)))
