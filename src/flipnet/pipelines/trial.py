"""Whether the parts of a checkpoint work together: found out by mapping one tiny gray face, before any photo."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from flipnet.checkpoints import CheckpointError
from flipnet.models.backbone import LOADING_ERRORS, downscale_factor, one_line

MAX_FACE_PX = 4096
"""Largest native size: a config alone decides it, and memory grows with its square. Our choice."""

TRIAL_STEPS = 2
"""Solvers of higher order take another way at their second step."""


def refuse_unusable(pipeline: Any, folder: Path) -> None:
    """Map one gray face by every mode, far smaller than the native size, so that it costs little.

    Configs hold more fields than can be checked one by one, and most are used only when a face is mapped.
    `pipeline` is a `FlipnetPipeline`, whose module imports this one.

    Raises CheckpointError naming the folder when that fails, the result is not finite or has another size than the
    face, or the native size or a mode's number of steps is out of range.
    """
    try:
        side = _side_px(pipeline)
        for mode, steps in pipeline.network.default_steps.items():
            if steps > pipeline.scheduler.config.num_train_timesteps:
                raise ValueError(f"mode '{mode}' takes {steps} steps, more than its scheduler has timesteps")
            face = torch.zeros(1, 3, side, side)
            result = _mapped(pipeline, mode, face)
            if result.shape != face.shape:
                raise ValueError(
                    f"mode '{mode}' maps a face of {side} pixels to a tensor of {tuple(result.shape)}"
                )
            if not result.isfinite().all():
                raise ValueError(f"mode '{mode}' gives values that are not finite")
    except LOADING_ERRORS as error:
        raise CheckpointError(f"{folder}: its parts do not work together: {one_line(error)}") from error


def _side_px(pipeline: Any) -> int:
    """Side of the smallest face that uses all levels of the UNet, at most the native size."""
    latents, factor = pipeline.unet.config.sample_size, downscale_factor(pipeline.vae)
    if type(latents) is not int or not 1 <= latents * factor <= MAX_FACE_PX:
        raise ValueError(f"sample_size {latents!r} makes no native size from 1 to {MAX_FACE_PX} pixels")
    return factor * min(latents, 2 ** (len(pipeline.unet.config.block_out_channels) - 1))


@torch.no_grad()
def _mapped(pipeline: Any, mode: str, face: Tensor) -> Tensor:
    pipeline.network.activate(mode)
    generators = [torch.Generator().manual_seed(0)]
    latents, features = pipeline.encode(face)
    codes = pipeline.draw_codes(generators)
    denoised = pipeline.denoise(latents, face, generators, TRIAL_STEPS, codes=codes)
    return pipeline.decode(denoised, features, generators, codes=codes)
