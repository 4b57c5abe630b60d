"""Stage "texture": the VAE's texture head learns how much fine texture belongs where, everything else frozen."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torch.utils.data import Dataset

from flipnet.config import Recipe, TextureConfig
from flipnet.data.cache import DecodedFaces, fingerprint
from flipnet.data.latents import cached_encoding, degraded_face
from flipnet.models.autoencoder import CompactAutoencoder
from flipnet.models.backbone import decode_latents, downscale_factor, encode_latents, load_vae, texture_shape
from flipnet.models.face_encoder import PatchDiscriminator
from flipnet.pipelines.pipeline import FlipnetPipeline
from flipnet.pipelines.sampling import denoise, initial_noise
from flipnet.training.caching import cached_hq_latents, weights_fingerprint
from flipnet.training.faces import load_faces
from flipnet.training.loop import TrainingStage, seeded_batches
from flipnet.training.objective import (
    gradient_energy,
    hinge_losses,
    psnr,
    texture_energy_distance,
    to_unit_range,
)
from flipnet.types import Mode


class TextureDataset(Dataset[dict[str, Tensor]]):
    """Crops of clean or restored latents with the HQ image below them; indexed by (face, seed)."""

    def __init__(
        self, faces: DecodedFaces, clean: np.ndarray, restored: np.ndarray, factor: int, config: TextureConfig
    ) -> None:
        self.faces, self.clean, self.restored = faces, clean, restored
        self.factor, self.config = factor, config

    def __getitem__(self, item: tuple[int, int]) -> dict[str, Tensor]:
        index, seed = item
        rng = np.random.default_rng(seed)
        latents = self.clean if rng.random() < self.config.clean_fraction else self.restored
        side, factor = self.config.crop_latents, self.factor
        top, left = rng.integers(0, latents.shape[-1] - side + 1, 2)
        crop = latents[index][:, top : top + side, left : left + side]
        image = self.faces.pixels[
            index, top * factor : (top + side) * factor, left * factor : (left + side) * factor
        ]
        return {
            "latents": torch.from_numpy(np.array(crop, np.float32)),
            "hq": torch.from_numpy(np.array(image)).permute(2, 0, 1),
        }


class TextureObjective(nn.Module):
    """The losses of `TextureConfig` for a batch of `TextureDataset`."""

    def __init__(self, vae: CompactAutoencoder, config: TextureConfig) -> None:
        super().__init__()
        self.vae, self.config = vae, config
        self.discriminator = PatchDiscriminator()

    def forward(self, batch: dict[str, Tensor]) -> dict[str, Tensor]:
        """Return total, energy, smooth, adversarial and discriminator."""
        config, latents, hq = self.config, batch["latents"], to_unit_range(batch["hq"])
        shape = texture_shape(self.vae, latents)
        assert shape is not None
        noise = torch.randn(len(latents), *shape, device=latents.device)
        textured = decode_latents(self.vae, latents, noise).float()
        plain = decode_latents(self.vae, latents).float()
        energy = texture_energy_distance(textured, hq)
        smooth = F.avg_pool2d(textured - plain, 4).abs().mean()
        adversarial, judged = hinge_losses(self.discriminator, textured, hq)
        total = config.energy_weight * energy + config.smooth_weight * smooth
        total = total + config.adversarial_weight * adversarial + judged
        terms = {"energy": energy, "smooth": smooth, "adversarial": adversarial, "discriminator": judged}
        return {"total": total, **{name: term.detach() for name, term in terms.items()}}


def build(recipe: Recipe) -> TrainingStage:
    """Assemble the stage from its recipe."""
    config = recipe.texture
    assert config is not None
    torch.manual_seed(recipe.run.seed)
    pipeline = FlipnetPipeline.from_pretrained(config.base)
    pipeline.network.activate(Mode.RESTORATION)
    if config.vae:
        pipeline.register_modules(vae=load_vae(Path(config.vae)).eval())
    faces, val_faces, weights = load_faces(recipe.data)
    cache = Path(recipe.data.cache)
    chosen = np.random.default_rng(recipe.run.seed).choice(
        len(faces), min(config.restored_faces, len(faces)), replace=False, p=weights
    )
    faces = faces.subset(chosen.tolist())
    clean = cached_hq_latents(pipeline.vae, faces, cache)[0]
    restored = restored_latents(pipeline, faces, config, recipe.run.seed, cache)
    val = val_faces.subset(np.linspace(0, len(val_faces) - 1, 24).astype(int).tolist())
    val_restored = restored_latents(pipeline, val, config, recipe.run.seed, cache)
    vae = with_texture(pipeline.vae, config.width)
    vae.requires_grad_(False)
    assert vae.texture is not None
    vae.texture.requires_grad_(True)
    pipeline.register_modules(vae=vae)
    dataset = TextureDataset(faces, clean, restored, downscale_factor(vae), config)
    return TrainingStage(
        TextureObjective(vae, config),
        seeded_batches(dataset, np.ones(len(faces)), recipe),
        validate=lambda: validate_texture(vae, val, val_restored),
        save=lambda folder: pipeline.save_pretrained(folder),
    )


def with_texture(vae: Any, width: int) -> CompactAutoencoder:
    """Return the VAE with a texture head, its own where it has one."""
    if vae.texture is not None:
        return vae
    settings = {key: value for key, value in vae.config.items() if not key.startswith("_")}
    textured = CompactAutoencoder(**{**settings, "texture_width": width})
    textured.load_state_dict(vae.state_dict(), strict=False)
    return textured.eval()


def restored_latents(
    pipeline: FlipnetPipeline, faces: DecodedFaces, config: TextureConfig, seed: int, cache: Path
) -> np.ndarray:
    """Degrade, encode and restore every face once: latents float16 (N, L, h, w), kept on disk."""
    network, presets = pipeline.network, config.degradation.presets

    @torch.no_grad()
    def restore(lq: Tensor) -> dict[str, Tensor]:
        with torch.autocast(lq.device.type, torch.bfloat16):
            latents = encode_latents(pipeline.vae, lq)
            condition = network.condition(latents, network.embed(lq))
            generators = [torch.Generator().manual_seed(i) for i in range(len(lq))]
            noise = initial_noise(generators, tuple(latents.shape[1:]), lq.device)
            clean = denoise(
                lambda x, t: network(x, t, condition), pipeline.scheduler, noise, config.restoration_steps
            )
        return {"latents": clean}

    def picture(index: int) -> Tensor:
        lq = degraded_face(faces.pixels, presets, 0, index, seed)
        return to_unit_range(torch.from_numpy(lq).permute(2, 0, 1)[None])

    model = weights_fingerprint(pipeline.vae, network)
    name = f"restored-{fingerprint(model, seed, config.restoration_steps, *presets, *faces.keys)}"
    return cached_encoding(picture, len(faces), restore, cache, name)["latents"]


@torch.no_grad()
def validate_texture(vae: CompactAutoencoder, faces: DecodedFaces, restored: np.ndarray) -> dict[str, float]:
    """PSNR in dB and gradient-energy ratio of restored faces, without and with texture."""
    hq = to_unit_range(torch.from_numpy(faces.pixels).permute(0, 3, 1, 2))
    latents = torch.from_numpy(np.array(restored, np.float32))
    shape = texture_shape(vae, latents)
    assert shape is not None
    noise = torch.randn(len(latents), *shape, generator=torch.Generator().manual_seed(0))
    numbers = {}
    for name, use in (("plain", False), ("textured", True)):
        with torch.autocast("cpu", torch.bfloat16):
            parts = [
                decode_latents(vae, z, n if use else None)
                for z, n in zip(latents.split(4), noise.split(4), strict=True)
            ]
        image = torch.cat(parts).float().clamp(-1, 1)
        numbers[f"psnr_{name}"] = float(psnr(image, hq))
        numbers[f"sharp_{name}"] = float(gradient_energy(image) / gradient_energy(hq))
    return numbers
