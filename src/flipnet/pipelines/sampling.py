"""The one denoising loop, for both modes, any diffusers scheduler and any prediction type."""

from __future__ import annotations

import copy
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

Predict = Callable[[Tensor, Tensor], Tensor]


def denoise(
    predict: Predict,
    scheduler: Any,
    noise: Tensor,
    steps: int,
    *,
    generator: list[torch.Generator] | None = None,
    on_step: Callable[[int, Tensor], None] | None = None,
) -> Tensor:
    """Turn noise into clean latents.

    Args:
        predict: maps (latents (B, L, h, w), timestep (scalar tensor)) to the base's prediction.
        scheduler: a diffusers scheduler; it is copied, so one may serve several calls at a time.
        noise: standard normal latents (B, L, h, w).
        steps: number of denoising steps, at least 1.
        generator: one per sample, for schedulers that draw noise while stepping.
        on_step: called after every step with its index and the latents.

    Source: FLIPNET samples its base as any latent diffusion model; the loop is diffusers' usual one.
    """
    scheduler = copy.deepcopy(scheduler)
    # The scheduler's own arithmetic stays on the host: on the device every step would wait for it.
    scheduler.set_timesteps(steps)
    timesteps = scheduler.timesteps.to(noise.device)
    latents = noise * scheduler.init_noise_sigma
    extra = {"generator": generator} if generator is not None and _takes_generator(scheduler) else {}
    for index, timestep in enumerate(scheduler.timesteps):
        scaled = scheduler.scale_model_input(latents, timestep)
        prediction = predict(scaled, timesteps[index]).float()
        latents = scheduler.step(prediction, timestep, latents, **extra).prev_sample
        if on_step is not None:
            on_step(index, latents)
    return latents


def _takes_generator(scheduler: Any) -> bool:
    import inspect

    return "generator" in inspect.signature(scheduler.step).parameters


def initial_noise(generators: list[torch.Generator], shape: tuple[int, ...], device: torch.device) -> Tensor:
    """Standard normal (B, *shape), one CPU generator per sample, so that a sample does not depend on its batch."""
    return torch.stack([torch.randn(shape, generator=g) for g in generators]).to(device)


def restoration_start(
    generators: list[torch.Generator], shape: tuple[int, ...], device: torch.device, steps: int
) -> Tensor:
    """Return what restoration starts from, (B, *shape): noise, or for a single step zeros, the noise's mean.

    One step answers with the mean of all faces that fit, whatever the noise, and the noise it is given only
    disturbs that answer; so a single step does not depend on the generators. Several steps draw one of these faces.
    Source: our choice; with zeros the shipped model's one step was sharper, more like the person and, but for
    severely degraded faces, nearer to the truth (docs/training-log.md, "What the one step starts from").
    """
    if steps == 1:
        return torch.zeros(len(generators), *shape, device=device)
    return initial_noise(generators, shape, device)
