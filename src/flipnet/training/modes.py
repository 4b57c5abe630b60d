"""Training a mode, whichever way the faces go: the objective that `restoration` and `degradation` share.

restoration   L_rm = L_ldm + mse_weight · L_mse + perceptual_weight · L_p, the last two between the decoded
              one-step estimate x̂_0 and the target at every sampled timestep
degradation   L_ldm alone: image terms would fight the noise it must learn     (FLIPNET, "Losses")
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import partial

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from flipnet.config import ModeConfig
from flipnet.models.backbone import decode_latents, downscale_factor, encode_latents, encoder_features
from flipnet.models.flipnet import Flipnet
from flipnet.pipelines.pipeline import FlipnetPipeline
from flipnet.training.mode_data import OFFLINE, ONLINE
from flipnet.training.objective import (
    diffusion_target,
    estimated_clean,
    min_snr_weights,
    perceptual_distance,
    sample_timesteps,
    to_unit_range,
)
from flipnet.types import Mode, assign_roles


@dataclass(frozen=True)
class ImageTerms:
    """Weights of L_mse and L_p, and the side in latent pixels of the random crop they are taken on (0: whole)."""

    mse_weight: float
    perceptual_weight: float
    crop_latents: int


class ModeObjective(nn.Module):
    """The losses of one mode.

    A batch holds either images "hq" and "lq", uint8 (B, 3, S, S), or what was cached of them: "hq_latents" and
    "lq_latents" (B, L, h, w), "embedding" (B, N, D), and for image terms "hq_crop", uint8, with its "corner" in
    latent pixels (B, 2). "kind" (B,) marks online and offline pairs, whose L_ldm is then also given apart. A mode
    that has codes needs "code" (B, K), as measured.
    """

    def __init__(
        self, pipeline: FlipnetPipeline, mode: Mode, config: ModeConfig, image_terms: ImageTerms | None = None
    ) -> None:
        super().__init__()
        self.network: Flipnet = pipeline.network
        self.scheduler = pipeline.scheduler
        self.mode, self.config, self.image_terms = mode, config, image_terms
        # In a list, so that the frozen VAE is no part of what is trained and saved.
        self._vae = [pipeline.vae]

    def forward(self, batch: dict[str, Tensor]) -> dict[str, Tensor]:
        """Return total, ldm, and where they apply ldm_online, ldm_offline, mse and perceptual."""
        batch = batch if "hq_latents" in batch else batch | self._encoded(batch)
        roles = assign_roles(batch["hq_latents"], batch["lq_latents"], self.mode)
        count, device = len(roles.target), roles.target.device
        config, scheduler = self.config, self.scheduler

        # The condition, withheld at random from the hubs and from the extra input channels.
        keep = torch.rand(count, device=device) >= config.hub_drop
        concat = (torch.rand(count, 1, 1, 1, device=device) >= config.concat_drop).to(roles.target.dtype)
        condition = self.network.condition(
            roles.condition,
            batch.get("embedding"),
            concat_scale=concat,
            keep=keep,
            code=self.normalised_code(batch),
            gradient=config.condition_gradient,
        )

        # L_ldm on the noised target.
        noise = torch.randn_like(roles.target)
        timesteps = sample_timesteps(
            count,
            scheduler.config.num_train_timesteps,
            config.timestep_mean,
            config.timestep_std,
            config.terminal_share,
        ).to(device, non_blocking=True)
        noisy = scheduler.add_noise(roles.target, noise, timesteps)
        prediction = self.network(noisy, timesteps, condition).float()
        target = diffusion_target(scheduler, roles.target, noise, timesteps)
        per_sample = F.mse_loss(prediction, target, reduction="none").mean((1, 2, 3))
        if config.min_snr_gamma is not None:
            per_sample = per_sample * min_snr_weights(scheduler, timesteps, config.min_snr_gamma)
        total = per_sample.mean()
        losses = {"ldm": total.detach(), **_by_kind(per_sample.detach(), batch.get("kind"))}

        if self.image_terms is not None:
            estimate = estimated_clean(scheduler, prediction, noisy, timesteps)
            added, terms = self._image_losses(self.image_terms, estimate, batch)
            total, losses = total + added, losses | terms
        return {"total": total, **losses}

    def _image_losses(
        self, terms: ImageTerms, estimate: Tensor, batch: dict[str, Tensor]
    ) -> tuple[Tensor, dict[str, Tensor]]:
        vae = self._vae[0]
        side = terms.crop_latents or estimate.shape[-1]
        decoded = decode_latents(vae, crop_each(estimate, batch["corner"], side)).float()
        reference = to_unit_range(batch["hq_crop"])
        mse = F.mse_loss(decoded, reference)
        perceptual = perceptual_distance(partial(encoder_features, vae), decoded, reference)
        added = terms.mse_weight * mse + terms.perceptual_weight * perceptual
        return added, {"mse": mse.detach(), "perceptual": perceptual.detach()}

    def normalised_code(self, batch: dict[str, Tensor]) -> Tensor | None:
        """Return the batch's codes as the mode reads them, (B, K), None for a mode without codes."""
        tau = self.network.tau(self.mode)
        return tau.normalised(batch["code"]) if tau.code_dim else None

    @torch.no_grad()
    def _encoded(self, batch: dict[str, Tensor]) -> dict[str, Tensor]:
        hq, lq = to_unit_range(batch["hq"]), to_unit_range(batch["lq"])
        vae = self._vae[0]
        encoded = {"hq_latents": encode_latents(vae, hq), "lq_latents": encode_latents(vae, lq)}
        embedding = self.network.embed(assign_roles(hq, lq, self.mode).condition)
        if embedding is not None:
            encoded["embedding"] = embedding
        if self.image_terms is not None:
            latents, factor = encoded["hq_latents"], downscale_factor(vae)
            side = self.image_terms.crop_latents or latents.shape[-1]
            corner = torch.randint(0, latents.shape[-1] - side + 1, (len(hq), 2))
            encoded |= {"corner": corner, "hq_crop": crop_each(hq, corner * factor, side * factor)}
        return encoded


def crop_each(images: Tensor, corners: Tensor, side: int) -> Tensor:
    """Cut (B, C, side, side) out of (B, C, H, W), each at its own corner (B, 2) = (top, left)."""
    pairs = zip(images, corners.tolist(), strict=True)
    return torch.stack([image[:, top : top + side, left : left + side] for image, (top, left) in pairs])


def _by_kind(per_sample: Tensor, kind: Tensor | None) -> dict[str, Tensor]:
    """Means over the samples of either kind, NaN where a batch has none; no shape waits for the device."""
    if kind is None:
        return {}
    names = {"ldm_online": ONLINE, "ldm_offline": OFFLINE}
    return {name: (per_sample * (kind == k)).sum() / (kind == k).sum() for name, k in names.items()}


def add_mode(pipeline: FlipnetPipeline, mode: Mode, config: ModeConfig, *, embeds: bool) -> None:
    """Add an untrained mode as its recipe describes it."""
    pipeline.network.add_mode(
        mode,
        lora_rank=config.lora_rank,
        rotary=config.rotary,
        context_tokens=config.context_tokens or pipeline.network.face_encoder.num_tokens,
        embeds=embeds,
        lora_convolutions=config.lora_convolutions,
        default_steps=config.default_steps,
    )


def train_only(pipeline: FlipnetPipeline, mode: Mode) -> None:
    """Freeze everything but one mode's own parameters."""
    pipeline.vae.eval().requires_grad_(False)
    pipeline.network.requires_grad_(False)
    for parameter in pipeline.network.mode_parameters(mode):
        parameter.requires_grad_(True)
