"""Stage "restoration": LoRA, hubs and tau (and, where the recipe says so, the base) learn LQ -> HQ."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import torch
from torch import Tensor
from torch.utils.data import Dataset

from flipnet.config import Recipe, RestorationConfig
from flipnet.data.cache import DecodedFaces
from flipnet.data.datasets import DegradedFaceDataset, FaceSource
from flipnet.data.degradation import preset
from flipnet.data.shards import OfflinePairs
from flipnet.images import tensor_to_uint8
from flipnet.models.backbone import downscale_factor
from flipnet.pipelines.pipeline import FlipnetPipeline
from flipnet.training.caching import LqVariants, cached_hq_latents
from flipnet.training.faces import load_or_stream_faces
from flipnet.training.loop import TrainingStage, seeded_batches
from flipnet.training.mode_data import CachedDataset, MixedDataset
from flipnet.training.modes import ImageTerms, ModeObjective, add_mode, train_only
from flipnet.training.objective import gradient_energy, psnr, to_unit_range
from flipnet.training.run_log import Pictures
from flipnet.training.starting_point import starting_pipeline
from flipnet.types import Mode

VALIDATION_FACES = 24
PICTURED_FACES = 4


def build(recipe: Recipe) -> TrainingStage:
    """Assemble restoration training from its recipe."""
    config = recipe.restoration
    assert config is not None
    pipeline = base_pipeline(config, recipe.data.size_px, recipe.run.seed)
    faces, val_faces, draw = load_or_stream_faces(recipe.data)
    dataset = _dataset(pipeline, config, faces, recipe.run.seed, Path(recipe.data.cache))
    chosen = np.linspace(0, len(val_faces) - 1, VALIDATION_FACES).astype(int)
    val = DegradedFaceDataset(val_faces.subset(chosen.tolist()), [preset(config.validation_preset)])

    def scale(name: str) -> float:
        fresh = any(part in name for part in ("lora_", ".processor.", "adapters."))
        return 1.0 if fresh else config.base_learning_rate_scale

    return TrainingStage(
        restoration_objective(pipeline, config),
        seeded_batches(dataset, draw, recipe),
        validate=lambda: validate_restoration(pipeline, val),
        save=lambda folder: pipeline.save_pretrained(folder),
        learning_rate_scale=scale,
        pictures=lambda: restoration_pictures(pipeline, val),
        frozen=(pipeline.vae,),
    )


def base_pipeline(config: RestorationConfig, size_px: int, seed: int) -> FlipnetPipeline:
    """Return the base with a new restoration mode, or an earlier run's pipeline to go on from."""
    torch.manual_seed(seed)
    if config.start_from:
        pipeline = FlipnetPipeline.from_pretrained(config.start_from)
        pipeline.network.activate(Mode.RESTORATION)
    else:
        pipeline = starting_pipeline(config.base, config.face_encoder, size_px, config.prediction_type)
        if config.condition_init:
            channels = pipeline.network.latent_channels
            weight = pipeline.unet.conv_in.weight.data
            weight[:, channels:] += config.condition_init * weight[:, :channels]
        add_mode(pipeline, Mode.RESTORATION, config, embeds=True)
    return pipeline


def restoration_objective(pipeline: FlipnetPipeline, config: RestorationConfig) -> ModeObjective:
    """Mark what the recipe trains and return the losses of a pipeline whose restoration mode is in use."""
    train_only(pipeline, Mode.RESTORATION)
    if config.train_base:
        pipeline.unet.requires_grad_(True)
    elif pipeline.network.concatenates:
        # The base never saw condition latents, so at least the convolution that reads them has to learn.
        pipeline.unet.conv_in.requires_grad_(True)
    terms = ImageTerms(config.mse_weight, config.perceptual_weight, config.image_crop_latents)
    wanted = terms.mse_weight or terms.perceptual_weight
    return ModeObjective(pipeline, Mode.RESTORATION, config, terms if wanted else None)


def _dataset(
    pipeline: FlipnetPipeline,
    config: RestorationConfig,
    faces: FaceSource,
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
    assert isinstance(faces, DecodedFaces)  # recipes with variants do not stream
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
    for steps in (1, 4):
        restored = torch.cat([_restored(pipeline, part, steps) for part in lq.split(4)])
        numbers[f"psnr_{steps}"] = float(psnr(restored, hq))
        numbers[f"sharp_{steps}"] = float(gradient_energy(restored) / gradient_energy(hq))
    return numbers


def _restored(pipeline: FlipnetPipeline, lq: Tensor, steps: int) -> Tensor:
    lq = lq.to(pipeline.device)
    generators = [torch.Generator().manual_seed(index) for index in range(len(lq))]
    latents, features = pipeline.encode(lq)
    denoised = pipeline.denoise(latents, lq, generators, steps)
    return pipeline.decode(denoised, features, generators).clamp(-1, 1).cpu()


def restoration_pictures(pipeline: FlipnetPipeline, pairs: DegradedFaceDataset) -> Pictures:
    """Return the first validation faces: input, restored in 1 and in 4 steps, truth."""
    items = [pairs[index, index] for index in range(min(PICTURED_FACES, len(pairs)))]
    hq, lq = (to_unit_range(torch.stack([item[key] for item in items])) for key in ("hq", "lq"))
    columns = [lq, _restored(pipeline, lq, 1), _restored(pipeline, lq, 4), hq]
    rows = zip(*(tensor_to_uint8(faces) for faces in columns), strict=True)
    return Pictures(("input", "1 step", "4 steps", "truth"), list(rows))
