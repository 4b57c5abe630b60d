"""Stage "autoencoder": the compact VAE. L1 + gradient L1 on random crops, some degraded, noise on the latents."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import torch
from torch import Tensor, nn
from torch.utils.data import Dataset

from flipnet.config import AutoencoderConfig, Recipe
from flipnet.data.degradation import degrade_with, preset
from flipnet.models.autoencoder import CompactAutoencoder
from flipnet.models.backbone import load_component
from flipnet.training.faces import load_faces
from flipnet.training.loop import TrainingStage, seeded_batches
from flipnet.training.objective import gradient_l1, psnr, to_unit_range

STATISTICS_FACES = 150


class CropDataset(Dataset[dict[str, Tensor]]):
    """Random flipped crops, uint8 (3, S, S), the stated share of them degraded; indexed by (face, seed)."""

    def __init__(self, faces: np.ndarray, config: AutoencoderConfig) -> None:
        self.faces, self.config = faces, config

    def __getitem__(self, item: tuple[int, int]) -> dict[str, Tensor]:
        index, seed = item
        rng = np.random.default_rng(seed)
        size = self.config.crop_px
        top, left = rng.integers(0, self.faces.shape[1] - size + 1, 2)
        crop = np.array(self.faces[index, top : top + size, left : left + size])
        if rng.random() < 0.5:
            crop = crop[:, ::-1]
        if rng.random() < self.config.degraded_fraction:
            name = str(rng.choice(self.config.degradation.presets))
            crop, _ = degrade_with(preset(name), np.ascontiguousarray(crop), seed)
        return {"image": torch.from_numpy(np.ascontiguousarray(crop)).permute(2, 0, 1)}


class AutoencoderObjective(nn.Module):
    """Losses of the compact VAE for a batch of uint8 (B, 3, S, S) crops."""

    def __init__(self, vae: CompactAutoencoder, config: AutoencoderConfig) -> None:
        super().__init__()
        self.vae, self.config = vae, config

    def forward(self, batch: dict[str, Tensor]) -> dict[str, Tensor]:
        """Return total, l1, gradient and latent (mean square) losses."""
        image = to_unit_range(batch["image"])
        latents = self.vae.encode(image).latents
        noisy = latents + self.config.latent_noise * torch.randn_like(latents)
        restored = self.vae.decode(noisy).sample.float()
        l1 = (restored - image).abs().mean()
        gradient = gradient_l1(restored, image)
        penalty = latents.float().square().mean()
        total = l1 + self.config.gradient_weight * gradient + self.config.latent_penalty * penalty
        return {"total": total, "l1": l1.detach(), "gradient": gradient.detach(), "latent": penalty.detach()}


def build(recipe: Recipe) -> TrainingStage:
    """Assemble the stage from its recipe."""
    config = recipe.autoencoder
    assert config is not None
    faces, val_faces, weights = load_faces(recipe.data)
    crops, val = CropDataset(faces.pixels, config), val_faces.pixels
    if config.start_from:
        vae = load_component(Path(config.start_from), {"CompactAutoencoder": CompactAutoencoder})
    else:
        torch.manual_seed(recipe.run.seed)
        vae = CompactAutoencoder(
            channels=config.channels,
            blocks=config.blocks,
            unshuffle=config.unshuffle,
            latent_channels=config.latent_channels,
        )
    vae.encoder.requires_grad_(not config.freeze_encoder)

    def save(folder: Path) -> None:
        if not config.freeze_encoder:
            sample = np.linspace(0, len(faces) - 1, min(STATISTICS_FACES, len(faces))).astype(int)
            mean, std = latent_statistics(vae, faces.pixels[sample])
            vae.register_to_config(latents_mean=mean, latents_std=std)
        vae.save_pretrained(folder)

    return TrainingStage(
        objective=AutoencoderObjective(vae, config),
        batches=seeded_batches(crops, weights, recipe),
        validate=lambda: {"reconstruction_psnr_db": reconstruction_psnr(vae, val)},
        save=save,
    )


@torch.no_grad()
def reconstruction_psnr(vae: CompactAutoencoder, faces: np.ndarray) -> float:
    """Mean PSNR in dB, over faces, of encoding and decoding clean uint8 (N, S, S, 3) faces; autocast bf16."""
    values = []
    for face in faces:
        image = to_unit_range(torch.from_numpy(np.array(face)).permute(2, 0, 1)[None])
        image = image.to(vae.device)
        with torch.autocast(vae.device.type, torch.bfloat16):
            restored = vae(image)
        values.append(float(psnr(restored.float().clamp(-1, 1), image)))
    return float(np.mean(values))


@torch.no_grad()
def latent_statistics(vae: CompactAutoencoder, faces: np.ndarray) -> tuple[list[float], list[float]]:
    """Per-channel mean and standard deviation of the raw latents of uint8 (N, S, S, 3) faces."""
    latents = torch.cat(
        [
            vae.encode(
                to_unit_range(torch.from_numpy(np.array(f)).permute(2, 0, 1)[None]).to(vae.device)
            ).latents
            for f in faces
        ]
    )
    return latents.mean((0, 2, 3)).tolist(), latents.std((0, 2, 3)).tolist()
