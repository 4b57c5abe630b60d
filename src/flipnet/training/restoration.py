"""Stage "restoration": LoRA, hubs and tau (and, where the recipe says so, the base) learn LQ -> HQ."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import torch
from diffusers import UNet2DConditionModel
from torch import Tensor
from torch.utils.data import Dataset

from flipnet.config import Recipe, RestorationConfig
from flipnet.data.cache import DecodedFaces
from flipnet.data.datasets import DegradedFaceDataset
from flipnet.data.degradation import preset
from flipnet.data.shards import OfflinePairs
from flipnet.models.backbone import decode_latents, downscale_factor, encode_latents, load_component, load_vae
from flipnet.models.face_encoder import FaceEncoder
from flipnet.pipelines.pipeline import FlipnetPipeline, load_scheduler
from flipnet.pipelines.sampling import denoise, initial_noise
from flipnet.training.caching import LqVariants, cached_hq_latents
from flipnet.training.faces import load_faces
from flipnet.training.loop import TrainingStage, seeded_batches
from flipnet.training.mode_data import CachedDataset, MixedDataset
from flipnet.training.modes import ImageTerms, ModeObjective, add_mode, train_only
from flipnet.training.objective import gradient_energy, psnr, to_unit_range
from flipnet.types import Mode

VALIDATION_FACES = 24


def build(recipe: Recipe) -> TrainingStage:
    """Assemble restoration training from its recipe."""
    config = recipe.restoration
    assert config is not None
    pipeline = base_pipeline(config, recipe.run.seed)
    faces, val_faces, weights = load_faces(recipe.data)
    dataset = _dataset(pipeline, config, faces, recipe.run.seed, Path(recipe.data.cache))
    chosen = np.linspace(0, len(val_faces) - 1, VALIDATION_FACES).astype(int)
    val = DegradedFaceDataset(val_faces.subset(chosen.tolist()), [preset(config.validation_preset)])
    terms = ImageTerms(config.mse_weight, config.perceptual_weight, config.image_crop_latents)
    wanted = terms.mse_weight or terms.perceptual_weight

    def scale(name: str) -> float:
        fresh = any(part in name for part in ("lora_", ".processor.", "adapters."))
        return 1.0 if fresh else config.base_learning_rate_scale

    return TrainingStage(
        ModeObjective(pipeline, Mode.RESTORATION, config, terms if wanted else None),
        seeded_batches(dataset, weights, recipe),
        validate=lambda: validate_restoration(pipeline, val),
        save=lambda folder: pipeline.save_pretrained(folder),
        learning_rate_scale=scale,
    )


def base_pipeline(config: RestorationConfig, seed: int) -> FlipnetPipeline:
    """Return the base with a trainable restoration mode, or an earlier run's pipeline to go on from."""
    torch.manual_seed(seed)
    if config.start_from:
        pipeline = FlipnetPipeline.from_pretrained(config.start_from)
        pipeline.network.activate(Mode.RESTORATION)
    else:
        base = Path(config.base)
        encoder = load_component(Path(config.face_encoder), {"FaceEncoder": FaceEncoder}).without_decoders()
        unet = load_component(base / "unet", {"UNet2DConditionModel": UNet2DConditionModel})
        pipeline = FlipnetPipeline(load_vae(base / "vae"), unet, load_scheduler(base / "scheduler"), encoder)
        if config.condition_init:
            channels = pipeline.network.latent_channels
            weight = unet.conv_in.weight.data
            weight[:, channels:] += config.condition_init * weight[:, :channels]
        add_mode(pipeline, Mode.RESTORATION, config, embeds=True)
    train_only(pipeline, Mode.RESTORATION)
    if config.train_base:
        pipeline.unet.requires_grad_(True)
    elif pipeline.network.concatenates:
        # The base never saw condition latents, so at least the convolution that reads them has to learn.
        pipeline.unet.conv_in.requires_grad_(True)
    return pipeline


def _dataset(
    pipeline: FlipnetPipeline,
    config: RestorationConfig,
    faces: DecodedFaces,
    seed: int,
    cache: Path,
) -> Dataset[dict[str, Tensor]]:
    """Online pairs ("+O"), a mixture with offline ones ("+O/F"), or cached latents of online pairs."""
    presets, vae, encoder = config.degradation.presets, pipeline.vae, pipeline.network.face_encoder
    if not config.lq_variants:
        online = DegradedFaceDataset(faces, [preset(name) for name in presets])
        if not config.offline:
            return online
        return MixedDataset(online, OfflinePairs(*config.offline), config.offline_share)
    hq = cached_hq_latents(vae, faces, cache)
    lq = LqVariants(faces, presets, encoder.config.input_px, seed, cache)
    variants = [
        (lq.latents(vae, number)["latents"], lq.embeddings(vae, encoder, number))
        for number in range(config.lq_variants)
    ]
    return CachedDataset(faces.pixels, hq, variants, config.image_crop_latents, downscale_factor(vae))


@torch.no_grad()
def validate_restoration(pipeline: FlipnetPipeline, pairs: DegradedFaceDataset) -> dict[str, float]:
    """PSNR in dB and gradient-energy ratio at 1 and 4 steps on degraded validation faces, and of the input."""
    items = [pairs[index, index] for index in range(len(pairs))]
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
