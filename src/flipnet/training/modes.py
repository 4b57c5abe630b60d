"""Stage "restoration": LoRA, hubs and tau (and, where the recipe says so, the base) learn LQ -> HQ.

L_rm = L_ldm + mse_weight · L_mse + perceptual_weight · L_p, the last two between the decoded one-step estimate
x̂_0 and the HQ image at every sampled timestep (FLIPNET, "Losses").
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch
from diffusers import UNet2DConditionModel
from torch import Tensor, nn
from torch.nn import functional as F
from torch.utils.data import Dataset

from flipnet.config import Recipe, RestorationConfig
from flipnet.data.cache import decoded_faces, key_weights
from flipnet.data.datasets import FaceDataset
from flipnet.data.degradation import degrade_with, preset
from flipnet.data.latents import is_mirrored
from flipnet.models.backbone import (
    decode_latents,
    downscale_factor,
    encode_latents,
    encoder_features,
    load_component,
    load_vae,
)
from flipnet.models.face_encoder import FaceEncoder
from flipnet.models.flipnet import Flipnet
from flipnet.pipelines.pipeline import FlipnetPipeline, load_scheduler
from flipnet.pipelines.sampling import denoise, initial_noise
from flipnet.training.caching import LqVariants, cached_hq_latents
from flipnet.training.loop import TrainingStage, seeded_batches
from flipnet.training.objective import (
    diffusion_target,
    estimated_clean,
    gradient_energy,
    perceptual_distance,
    psnr,
    sample_timesteps,
    to_unit_range,
)
from flipnet.types import Mode, assign_roles

VALIDATION_FACES = 24


class OnlineDataset(Dataset[dict[str, Tensor]]):
    """HQ and freshly degraded LQ images, uint8 (3, S, S), mirrored together; indexed by (face, seed)."""

    def __init__(self, faces: np.ndarray, presets: Sequence[str]) -> None:
        self.faces, self.presets = faces, tuple(presets)

    def __getitem__(self, item: tuple[int, int]) -> dict[str, Tensor]:
        index, seed = item
        rng = np.random.default_rng(seed)
        face = np.array(self.faces[index])
        if rng.random() < 0.5:
            face = np.ascontiguousarray(face[:, ::-1])
        lq, _ = degrade_with(preset(str(rng.choice(list(self.presets)))), face, seed)
        return {"hq": torch.from_numpy(face).permute(2, 0, 1), "lq": torch.from_numpy(lq).permute(2, 0, 1)}


class CachedDataset(Dataset[dict[str, Tensor]]):
    """HQ and LQ latents, LQ embedding, and a crop of the HQ image with its place; indexed by (face, seed).

    Args:
        faces: uint8 (N, S, S, 3).
        hq: latents of the faces and of their mirror images.
        variants: LQ latents and embeddings of every degraded variant; one variant is drawn per sample.
        crop: side of the crop in latent pixels; the whole face for 0.
        factor: image pixels per latent pixel.
    """

    def __init__(
        self,
        faces: np.ndarray,
        hq: tuple[np.ndarray, np.ndarray],
        variants: Sequence[tuple[np.ndarray, np.ndarray]],
        crop: int,
        factor: int,
    ) -> None:
        self.faces, self.hq, self.variants, self.factor = faces, hq, variants, factor
        self.crop = crop or faces.shape[1] // factor

    def __getitem__(self, item: tuple[int, int]) -> dict[str, Tensor]:
        index, seed = item
        rng = np.random.default_rng(seed)
        variant = int(rng.integers(len(self.variants)))
        lq_latents, embeddings = self.variants[variant]
        mirrored = is_mirrored(variant)
        top, left = rng.integers(0, self.faces.shape[1] // self.factor - self.crop + 1, 2)
        face = self.faces[index][:, ::-1] if mirrored else self.faces[index]
        rows = slice(top * self.factor, (top + self.crop) * self.factor)
        columns = slice(left * self.factor, (left + self.crop) * self.factor)
        return {
            "hq_latents": _float(self.hq[int(mirrored)][index]),
            "lq_latents": _float(lq_latents[index]),
            "embedding": _float(embeddings[index]),
            "hq_crop": torch.from_numpy(np.array(face[rows, columns])).permute(2, 0, 1),
            "corner": torch.tensor([top, left]),
        }


def _float(array: np.ndarray) -> Tensor:
    return torch.from_numpy(np.array(array, np.float32))


class ModeObjective(nn.Module):
    """L_rm for a batch of either `OnlineDataset` or `CachedDataset`."""

    def __init__(self, network: Flipnet, vae: Any, scheduler: Any, config: RestorationConfig) -> None:
        super().__init__()
        self.network, self.scheduler, self.config = network, scheduler, config
        self.frozen_vae = [vae]

    def forward(self, batch: dict[str, Tensor]) -> dict[str, Tensor]:
        """Return total, ldm, and (where their weight is not 0) mse and perceptual."""
        vae, config = self.frozen_vae[0], self.config
        batch = batch if "hq_latents" in batch else self._encoded(batch)
        roles = assign_roles(batch["hq_latents"], batch["lq_latents"], Mode.RESTORATION)
        count = len(roles.target)

        # The condition, withheld at random from the hubs and from the extra input channels.
        device = roles.target.device
        keep = torch.rand(count, device=device) >= config.hub_drop
        concat = (torch.rand(count, 1, 1, 1, device=device) >= config.concat_drop).to(roles.target.dtype)
        condition = self.network.condition(
            roles.condition,
            batch["embedding"],
            concat_scale=concat,
            keep=keep,
            gradient=config.condition_gradient,
        )

        # L_ldm on the noised target.
        scheduler = self.scheduler
        noise = torch.randn_like(roles.target)
        total_steps = scheduler.config.num_train_timesteps
        timesteps = sample_timesteps(count, total_steps, config.timestep_mean, config.timestep_std).to(device)
        noisy = scheduler.add_noise(roles.target, noise, timesteps)
        prediction = self.network(noisy, timesteps, condition).float()
        ldm = F.mse_loss(prediction, diffusion_target(scheduler, roles.target, noise, timesteps))
        losses = {"ldm": ldm.detach()}
        total = ldm

        # Image terms on the decoded one-step estimate.
        if config.mse_weight or config.perceptual_weight:
            estimate = estimated_clean(scheduler, prediction, noisy, timesteps)
            decoded = decode_latents(vae, _crop(estimate, batch["corner"], self._crop_side(estimate))).float()
            reference = to_unit_range(batch["hq_crop"])
            mse = F.mse_loss(decoded, reference)
            total = total + config.mse_weight * mse
            losses["mse"] = mse.detach()
            if config.perceptual_weight:
                perceptual = perceptual_distance(partial(encoder_features, vae), decoded, reference)
                total = total + config.perceptual_weight * perceptual
                losses["perceptual"] = perceptual.detach()
        return {"total": total, **losses}

    def _crop_side(self, latents: Tensor) -> int:
        return self.config.image_crop_latents or latents.shape[-1]

    @torch.no_grad()
    def _encoded(self, batch: dict[str, Tensor]) -> dict[str, Tensor]:
        hq, lq = to_unit_range(batch["hq"]), to_unit_range(batch["lq"])
        vae = self.frozen_vae[0]
        latents = encode_latents(vae, hq)
        side, factor = self._crop_side(latents), downscale_factor(vae)
        corner = torch.randint(0, latents.shape[-1] - side + 1, (len(hq), 2))
        return {
            "hq_latents": latents,
            "lq_latents": encode_latents(vae, lq),
            "embedding": self.network.face_encoder(lq),
            "hq_crop": _crop(hq, corner * factor, side * factor),
            "corner": corner,
        }


def _crop(images: Tensor, corners: Tensor, side: int) -> Tensor:
    """Cut (B, C, side, side) out of (B, C, H, W), each at its own corner (B, 2) = (top, left)."""
    pairs = zip(images, corners.tolist(), strict=True)
    return torch.stack([image[:, top : top + side, left : left + side] for image, (top, left) in pairs])


def build(recipe: Recipe) -> TrainingStage:
    """Assemble restoration training from its recipe."""
    config = recipe.restoration
    assert config is not None
    data = recipe.data
    pipeline = base_pipeline(config, recipe.run.seed)
    vae, network = pipeline.vae, pipeline.network
    faces = FaceDataset(data.train, size_px=data.size_px)
    val_faces = FaceDataset(data.val, size_px=data.size_px)
    cache = Path(data.cache)
    decoded, val_decoded = decoded_faces(faces, cache), decoded_faces(val_faces, cache)
    weights = key_weights(faces.keys, data.source_weights, data.group_power)
    dataset: Dataset[dict[str, Tensor]]
    if config.lq_variants:
        hq = cached_hq_latents(vae, decoded, faces.keys, cache)
        lq = LqVariants(
            decoded,
            faces.keys,
            config.degradation.presets,
            network.face_encoder.config.input_px,
            recipe.run.seed,
            cache,
        )
        variants = [
            (lq.latents(vae, number)["latents"], lq.embeddings(vae, network.face_encoder, number))
            for number in range(config.lq_variants)
        ]
        dataset = CachedDataset(decoded, hq, variants, config.image_crop_latents, downscale_factor(vae))
    else:
        dataset = OnlineDataset(decoded, config.degradation.presets)
    chosen = np.linspace(0, len(val_decoded) - 1, VALIDATION_FACES).astype(int)
    val_online = OnlineDataset(val_decoded[chosen], (config.validation_preset,))

    def scale(name: str) -> float:
        fresh = any(part in name for part in ("lora_", ".processor.", "adapters."))
        return 1.0 if fresh else config.base_learning_rate_scale

    return TrainingStage(
        ModeObjective(network, vae, pipeline.scheduler, config),
        seeded_batches(dataset, weights, recipe),
        validate=lambda: validate_restoration(pipeline, val_online),
        save=lambda folder: pipeline.save_pretrained(folder),
        learning_rate_scale=scale,
    )


def base_pipeline(config: RestorationConfig, seed: int) -> FlipnetPipeline:
    """Return the base with a trainable restoration mode, or an earlier run's pipeline to go on from."""
    torch.manual_seed(seed)
    if config.start_from:
        pipeline = FlipnetPipeline.from_pretrained(config.start_from)
    else:
        base = Path(config.base)
        encoder = load_component(Path(config.face_encoder), {"FaceEncoder": FaceEncoder}).without_decoders()
        unet = load_component(base / "unet", {"UNet2DConditionModel": UNet2DConditionModel})
        pipeline = FlipnetPipeline(load_vae(base / "vae"), unet, load_scheduler(base / "scheduler"), encoder)
        pipeline.network.add_mode(
            Mode.RESTORATION,
            lora_rank=config.lora_rank,
            rotary=config.rotary,
            context_tokens=config.context_tokens or encoder.num_tokens,
        )
    pipeline.vae.eval().requires_grad_(False)
    network = pipeline.network.requires_grad_(False)
    for parameter in network.mode_parameters(Mode.RESTORATION):
        parameter.requires_grad_(True)
    if config.train_base:
        network.unet.requires_grad_(True)
    elif network.concatenates:
        network.unet.conv_in.requires_grad_(True)
    return pipeline


@torch.no_grad()
def validate_restoration(pipeline: FlipnetPipeline, pairs: OnlineDataset) -> dict[str, float]:
    """PSNR in dB and gradient-energy ratio at 1 and 4 steps on degraded validation faces, and of the input."""
    items = [pairs[index, index] for index in range(len(pairs.faces))]
    hq, lq = (to_unit_range(torch.stack([item[key] for item in items])) for key in ("hq", "lq"))
    numbers = {
        "psnr_input": float(psnr(lq, hq)),
        "sharp_input": float(gradient_energy(lq) / gradient_energy(hq)),
    }
    network = pipeline.network
    with torch.autocast(lq.device.type, torch.bfloat16):
        latents = torch.cat([encode_latents(pipeline.vae, face) for face in lq.split(4)])
        condition = network.condition(latents, network.face_encoder(lq))
        noise = initial_noise(
            [torch.Generator().manual_seed(i) for i in range(len(lq))], tuple(latents.shape[1:]), lq.device
        )
        for steps in (1, 4):
            clean = denoise(lambda x, t: network(x, t, condition), pipeline.scheduler, noise, steps)
            decoded = torch.cat([decode_latents(pipeline.vae, part) for part in clean.split(4)])
            restored = decoded.float().clamp(-1, 1)
            numbers[f"psnr_{steps}"] = float(psnr(restored, hq))
            numbers[f"sharp_{steps}"] = float(gradient_energy(restored) / gradient_energy(hq))
    return numbers
