"""Losses as pure functions of tensors. Images are (B, 3, H, W) in [-1, 1] unless said otherwise."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F


def to_unit_range(pixels: Tensor) -> Tensor:
    """uint8 levels to float32 in [-1, 1]; float tensors pass unchanged."""
    return pixels.float() / 127.5 - 1 if pixels.dtype == torch.uint8 else pixels


def gradient_l1(restored: Tensor, reference: Tensor) -> Tensor:
    """Mean absolute difference of horizontal and vertical finite differences."""
    horizontal = (restored.diff(dim=-1) - reference.diff(dim=-1)).abs().mean()
    vertical = (restored.diff(dim=-2) - reference.diff(dim=-2)).abs().mean()
    return horizontal + vertical


def psnr(restored: Tensor, reference: Tensor) -> Tensor:
    """Mean PSNR in dB over the batch, peak 2 (the width of [-1, 1])."""
    mse = (restored - reference).square().mean((1, 2, 3))
    return (10 * torch.log10(4 / mse)).mean()


def association_loss(hq_tokens: Tensor, lq_tokens: Tensor, temperature: float) -> Tensor:
    """L_ce^H + L_ce^L: matching patches of the two encoders pulled together.

    Args:
        hq_tokens, lq_tokens: (B, N, D), patch features of the same faces.
        temperature: divides the cosine similarities (our choice).

    M = similarity (B, N, N); cross-entropy over its rows and over its columns with identity targets.
    Source: FLIPNET, "Association".
    """
    similarity = F.normalize(hq_tokens, dim=-1) @ F.normalize(lq_tokens, dim=-1).transpose(1, 2) / temperature
    target = torch.arange(similarity.shape[1], device=similarity.device).expand(similarity.shape[0], -1)
    return F.cross_entropy(similarity, target) + F.cross_entropy(similarity.transpose(1, 2), target)


def diffusion_target(scheduler: Any, clean: Tensor, noise: Tensor, timesteps: Tensor) -> Tensor:
    """What the base is to predict, by its scheduler's prediction type: noise, velocity or the clean latents."""
    kind = scheduler.config.prediction_type
    if kind == "epsilon":
        return noise
    if kind == "v_prediction":
        return scheduler.get_velocity(clean, noise, timesteps)
    if kind == "sample":
        return clean
    raise ValueError(f"unknown prediction type '{kind}'")


def estimated_clean(scheduler: Any, prediction: Tensor, noisy: Tensor, timesteps: Tensor) -> Tensor:
    """The one-step estimate x̂_0 from a prediction at the given timesteps; all (B, L, h, w), timesteps (B,)."""
    alpha_bar = scheduler.alphas_cumprod.to(noisy.device)[timesteps].view(-1, 1, 1, 1)
    signal, sigma = alpha_bar.sqrt(), (1 - alpha_bar).sqrt()
    kind = scheduler.config.prediction_type
    if kind == "epsilon":
        return (noisy - sigma * prediction) / signal
    if kind == "v_prediction":
        return signal * noisy - sigma * prediction
    return prediction


def min_snr_weights(scheduler: Any, timesteps: Tensor, gamma: float) -> Tensor:
    """Return min-SNR-gamma's weights of the squared error at every timestep, (B,).

    With SNR = ᾱ / (1 - ᾱ): min(SNR, γ) / SNR for noise, min(SNR, γ) / (SNR + 1) for velocity, min(SNR, γ) for
    the clean latents, which all weigh the error of the clean latents by min(SNR, γ).
    Source: Hang et al., "Efficient Diffusion Training via Min-SNR Weighting Strategy".
    """
    alpha_bar = scheduler.alphas_cumprod.to(timesteps.device)[timesteps]
    snr = alpha_bar / (1 - alpha_bar)
    kind = scheduler.config.prediction_type
    if kind == "epsilon":
        # Written so that a last timestep without any signal, SNR 0, weighs 1.
        return (gamma / snr).clamp(max=1)
    if kind == "v_prediction":
        return snr.clamp(max=gamma) / (snr + 1)
    return snr.clamp(max=gamma)


def perceptual_distance(features: Callable[[Tensor], list[Tensor]], a: Tensor, b: Tensor) -> Tensor:
    """Mean squared difference of channel-normalised features, averaged over levels.

    Source: L_p in FLIPNET; the form is LPIPS without its learned weights, the features are those of the
    VAE's encoder (our choice: no network trained elsewhere is needed).
    """
    levels = [
        (F.normalize(x.float(), dim=1) - F.normalize(y.float(), dim=1)).square().sum(1).mean()
        for x, y in zip(features(a), features(b), strict=True)
    ]
    return torch.stack(levels).mean()


def sample_timesteps(
    count: int,
    total: int,
    mean: float,
    std: float,
    terminal_share: float = 0.0,
    generator: torch.Generator | None = None,
) -> Tensor:
    """Timesteps, int64 (count,) in [0, total): logit-normal, uniform where std is 0.

    A share of them, on average, is the last timestep total - 1. Source: our choice.
    """
    if std == 0:
        timesteps = torch.randint(0, total, (count,), generator=generator)
    else:
        unit = torch.sigmoid(mean + std * torch.randn(count, generator=generator))
        timesteps = (unit * total).long().clamp(max=total - 1)
    timesteps[torch.rand(count, generator=generator) < terminal_share] = total - 1
    return timesteps


def gradient_energy(images: Tensor) -> Tensor:
    """Mean squared horizontal and vertical finite difference of the channel mean; scalar."""
    luma = images.mean(1)
    return luma.diff(dim=-1).square().mean() + luma.diff(dim=-2).square().mean()


def grid_distance(made: Tensor, truth: Tensor, period: int) -> Tensor:
    """How much more of a grid of `period` pixels there is in one batch than in the other, 0 for none.

    Args:
        made, truth: (B, 3, H, W) in [-1, 1], H and W at least two periods, the grid starting at their corner.
        period: of the grid, pixels: what one latent pixel covers.

    Steps between rows, and between columns, are averaged by where in the period they lie and taken relative to
    their mean; third differences, since a slope or a curve crosses a border as well and a step does not. Source:
    our choice; decoders that enlarge by pixel shuffling, and errors of single latent pixels, leave such grids.
    """
    return (_steps_by_phase(made, period) - _steps_by_phase(truth, period)).abs().mean()


def _steps_by_phase(images: Tensor, period: int) -> Tensor:
    luma, phases = images.float().mean(1), []
    for turned in (luma, luma.transpose(-1, -2)):
        steps = turned.diff(n=3, dim=-1).abs().mean((0, 1))
        whole = steps[: len(steps) // period * period].view(-1, period).mean(0)
        phases.append(whole / whole.mean())
    return torch.cat(phases)


def hinge_losses(judge: nn.Module, made: Tensor, real: Tensor) -> tuple[Tensor, Tensor]:
    """Return the maker's adversarial loss and the judge's hinge loss for one batch of each.

    The judge stands frozen in the first and sees detached pictures in the second, so one optimiser serves both.
    """
    for parameter in judge.parameters():
        parameter.requires_grad_(False)
    adversarial = -judge(made).mean()
    for parameter in judge.parameters():
        parameter.requires_grad_(True)
    return adversarial, F.relu(1 - judge(real)).mean() + F.relu(1 + judge(made.detach())).mean()
