"""Stage "prior": an unconditional face UNet on the VAE's latents, the base that the modes build on."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import torch
from diffusers import DDIMScheduler, UNet2DConditionModel
from torch import Tensor, nn
from torch.nn import functional as F
from torch.utils.data import Dataset

from flipnet.config import Recipe
from flipnet.models.backbone import load_vae
from flipnet.training.caching import cached_hq_latents
from flipnet.training.faces import load_faces
from flipnet.training.loop import TrainingStage, seeded_batches
from flipnet.training.objective import diffusion_target, sample_timesteps

CONTEXT_TOKENS = 64


class LatentDataset(Dataset[dict[str, Tensor]]):
    """HQ latents (L, h, w) of a face or its mirror image, indexed by (face, seed)."""

    def __init__(self, latents: tuple[np.ndarray, np.ndarray]) -> None:
        self.latents = latents

    def __getitem__(self, item: tuple[int, int]) -> dict[str, Tensor]:
        index, seed = item
        flip = int(np.random.default_rng(seed).integers(2))
        return {"latents": torch.from_numpy(np.array(self.latents[flip][index], np.float32))}


class PriorObjective(nn.Module):
    """L_ldm without a condition, for a batch of clean latents (B, L, h, w)."""

    def __init__(self, unet: UNet2DConditionModel, scheduler: DDIMScheduler) -> None:
        super().__init__()
        self.unet, self.scheduler = unet, scheduler

    def forward(self, batch: dict[str, Tensor]) -> dict[str, Tensor]:
        """Return total, the mean squared error of the prediction."""
        clean = batch["latents"]
        noise = torch.randn_like(clean)
        timesteps = sample_timesteps(len(clean), self.scheduler.config.num_train_timesteps, 0.0, 1.3)
        timesteps = timesteps.to(clean.device, non_blocking=True)
        noisy = self.scheduler.add_noise(clean, noise, timesteps)
        extra = self.unet.config.in_channels - clean.shape[1]
        padded = (
            torch.cat([noisy, noisy.new_zeros(len(noisy), extra, *noisy.shape[2:])], 1) if extra else noisy
        )
        context = clean.new_zeros(len(clean), CONTEXT_TOKENS, self.unet.config.cross_attention_dim)
        prediction = self.unet(padded, timesteps, context, return_dict=False)[0].float()
        return {"total": F.mse_loss(prediction, diffusion_target(self.scheduler, clean, noise, timesteps))}


def build(recipe: Recipe) -> TrainingStage:
    """Assemble the stage from its recipe."""
    config = recipe.prior
    assert config is not None
    vae = load_vae(Path(config.vae)).eval().requires_grad_(False)
    train_faces, val_faces, weights = load_faces(recipe.data)
    cache = Path(recipe.data.cache)
    dataset = LatentDataset(cached_hq_latents(vae, train_faces, cache))
    val = cached_hq_latents(vae, val_faces, cache)
    torch.manual_seed(recipe.run.seed)
    if config.start_from:
        unet = UNet2DConditionModel.from_pretrained(config.start_from)
    else:
        unet = UNet2DConditionModel(**config.unet)
        # Condition channels exist but say nothing until a mode learns to use them.
        unet.conv_in.weight.data[:, unet.config.out_channels :] = 0
    scheduler = DDIMScheduler(**config.scheduler)
    objective = PriorObjective(unet, scheduler)

    def validate() -> dict[str, float]:
        latents = torch.from_numpy(np.array(val[0], np.float32))
        with torch.random.fork_rng(), torch.autocast(unet.device.type, torch.bfloat16):
            torch.manual_seed(0)
            losses = [
                float(objective({"latents": part.to(unet.device)})["total"]) for part in latents.split(32)
            ]
        return {"val_loss": float(np.mean(losses))}

    def save(folder: Path) -> None:
        unet.save_pretrained(folder / "unet")
        vae.save_pretrained(folder / "vae")
        scheduler.save_pretrained(folder / "scheduler")

    return TrainingStage(objective, seeded_batches(dataset, weights, recipe), validate, save)
