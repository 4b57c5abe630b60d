"""Stage "decoder": a mode's own decoder, finished for sharpness while latents, UNet and VAE stay as they are.

restoration   cached latents of restored faces + the encoder's features of the LQ crop -> the HQ crop
degradation   latents of real bad pictures + noise -> those pictures, so that grain finer than a latent comes back
"""

from __future__ import annotations

from functools import partial
from pathlib import Path

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torch.utils.data import Dataset

from flipnet.config import DecoderConfig, Recipe
from flipnet.data.cache import DecodedFaces
from flipnet.data.datasets import DegradedFaceDataset
from flipnet.data.degradation import preset
from flipnet.data.latents import is_mirrored
from flipnet.data.pairs import TrainingPairs
from flipnet.models.autoencoder import CompactAutoencoder
from flipnet.models.backbone import (
    downscale_factor,
    encode_latents,
    encoder_features,
    raw_latents,
)
from flipnet.models.mode_decoder import ModeDecoder
from flipnet.pipelines.pipeline import FlipnetPipeline
from flipnet.training.adversary import Judge, PerceptualNetwork, feature_distance, hinge, places
from flipnet.training.caching import LqVariants
from flipnet.training.degradation import pair_sources
from flipnet.training.faces import load_faces
from flipnet.training.loop import TrainingStage, seeded_batches
from flipnet.training.objective import gradient_energy, gradient_l1, psnr, to_unit_range
from flipnet.training.restoration import VALIDATION_FACES, restoration_pictures, validate_restoration
from flipnet.types import FlipnetError, Mode


class RestoredCrops(Dataset[dict[str, Tensor]]):
    """Crops of HQ and LQ faces and of the latents restored from the LQ face; indexed by (face, seed).

    Args:
        faces: uint8 (N, S, S, 3).
        variants: LQ faces, uint8 (N, S, S, 3), and restored latents (N, L, h, w), of every variant.
        side: side of the crop in latent pixels.
        factor: image pixels per latent pixel.
    """

    def __init__(
        self, faces: np.ndarray, variants: list[tuple[np.ndarray, np.ndarray]], side: int, factor: int
    ) -> None:
        self.faces, self.variants, self.side, self.factor = faces, variants, side, factor

    def __getitem__(self, item: tuple[int, int]) -> dict[str, Tensor]:
        index, seed = item
        rng = np.random.default_rng(seed)
        variant = int(rng.integers(len(self.variants)))
        lq, latents = self.variants[variant]
        top, left = rng.integers(0, latents.shape[-1] - self.side + 1, 2)
        rows, columns = (
            slice(first * self.factor, (first + self.side) * self.factor) for first in (top, left)
        )
        hq = self.faces[index][:, ::-1] if is_mirrored(variant) else self.faces[index]
        crop = latents[index, :, top : top + self.side, left : left + self.side]
        return {
            "target": _channels_first(hq[rows, columns]),
            "condition": _channels_first(lq[index][rows, columns]),
            "latents": torch.from_numpy(np.array(crop, np.float32)),
            "corner_px": torch.tensor([top * self.factor, left * self.factor]),
        }


class LqPictures(Dataset[dict[str, Tensor]]):
    """The LQ pictures of real pairs as targets; they lie nowhere in a face, so their corner is always the same."""

    def __init__(self, pairs: TrainingPairs) -> None:
        self.pairs = pairs

    def __len__(self) -> int:
        return len(self.pairs)

    def __getitem__(self, item: tuple[int, int]) -> dict[str, Tensor]:
        return {"target": self.pairs[item]["lq"], "corner_px": torch.zeros(2, dtype=torch.int64)}


class DecoderObjective(nn.Module):
    """L1 + gradients + perceptual + adversarial between decoded and target crops.

    A batch holds "target", uint8 (B, 3, s, s); "corner_px" (B, 2), the crop's top left in its face; "latents"
    (B, L, s / f, s / f), by default those of the target itself; and, for a decoder that looks at it, "condition",
    uint8 (B, 3, s, s).
    """

    def __init__(self, pipeline: FlipnetPipeline, decoder: ModeDecoder, config: DecoderConfig) -> None:
        super().__init__()
        self.decoder, self.config = decoder, config
        # In a tuple, so that the frozen parts are no part of what is trained and saved.
        self.frozen = (pipeline.vae, PerceptualNetwork())
        self.size_px = pipeline.native_size_px
        self.judge = Judge() if config.adversarial_weight else None

    def forward(self, batch: dict[str, Tensor]) -> dict[str, Tensor]:
        """Return total, l1, gradient, perceptual and (when its weight is not 0) adversarial and judge."""
        vae, perceptual_features = self.frozen
        config = self.config
        target = to_unit_range(batch["target"])
        with torch.no_grad():
            latents = batch["latents"] if "latents" in batch else encode_latents(vae, target)
            fuses = self.decoder.config.fuses
            features = encoder_features(vae, to_unit_range(batch["condition"])) if fuses else ()
            real_features = perceptual_features(target)
        made = self.decoder(raw_latents(vae, latents), features).float()
        made_features = perceptual_features(made)

        coarse, coarse_target = (F.avg_pool2d(x, config.fidelity_px) for x in (made, target))
        l1, gradient = (coarse - coarse_target).abs().mean(), gradient_l1(coarse, coarse_target)
        perceptual = feature_distance(made_features, real_features)
        if config.perceptual_halved:
            # At half size the same network looks at the shape of eyes and mouth, not at lashes and pores.
            small, small_target = (F.avg_pool2d(x, 2) for x in (made, target))
            with torch.no_grad():
                wanted = perceptual_features(small_target)
            perceptual = (perceptual + feature_distance(perceptual_features(small), wanted)) / 2
        total = l1 + config.gradient_weight * gradient + config.perceptual_weight * perceptual
        losses = {"l1": l1, "gradient": gradient, "perceptual": perceptual}
        if self.judge is not None:
            place = places(batch["corner_px"], target.shape[-1], self.size_px)
            adversarial, judged = hinge(
                self.judge, (made, made_features, place), (target, real_features, place)
            )
            total = total + config.adversarial_weight * adversarial + judged
            losses |= {"adversarial": adversarial, "judge": judged}
        return {"total": total} | {name: value.detach() for name, value in losses.items()}


def build(recipe: Recipe) -> TrainingStage:
    """Assemble the stage from its recipe."""
    config = recipe.decoder
    assert config is not None
    pipeline = FlipnetPipeline.from_pretrained(config.base)
    if not isinstance(pipeline.vae, CompactAutoencoder):
        raise FlipnetError(f"{config.base}: only the compact VAE can be given a decoder of a mode's own")
    mode = Mode(config.mode)
    pipeline.network.activate(mode)
    torch.manual_seed(recipe.run.seed)
    if mode not in pipeline.decoders:
        restores = mode is Mode.RESTORATION
        pipeline.decoders[mode] = ModeDecoder.from_vae(pipeline.vae, fuses=restores, noise=not restores)
    decoder = pipeline.decoders[mode].requires_grad_(True)
    objective = DecoderObjective(pipeline, decoder, config)
    if mode is Mode.DEGRADATION:
        pairs, val_pairs = (
            LqPictures(TrainingPairs(pair_sources(sources), config.crop_px))
            for sources in (config.pairs, config.val_pairs)
        )
        batches = seeded_batches(pairs, pairs.pairs.weights(), recipe)
        validate, pictures = partial(validate_grain, pipeline, val_pairs), None
    else:
        faces, val_faces, weights = load_faces(recipe.data)
        chosen = np.linspace(0, len(val_faces) - 1, VALIDATION_FACES).astype(int)
        val = DegradedFaceDataset(val_faces.subset(chosen.tolist()), [preset(config.validation_preset)])
        batches = seeded_batches(_crops(pipeline, config, faces, recipe), weights, recipe)
        validate = partial(validate_restoration, pipeline, val)
        pictures = partial(restoration_pictures, pipeline, val)
    return TrainingStage(
        objective,
        batches,
        validate,
        save=pipeline.save_pretrained,
        pictures=pictures,
        frozen=objective.frozen,
    )


@torch.no_grad()
def validate_grain(pipeline: FlipnetPipeline, pictures: LqPictures) -> dict[str, float]:
    """Gradient energy of LQ pictures encoded and decoded, relative to their own (1 is right), and PSNR in dB of
    means over 8 x 8 pixels."""
    ratios, fidelity = [], []
    for index in np.linspace(0, len(pictures) - 1, min(VALIDATION_FACES, len(pictures))).astype(int):
        target = to_unit_range(pictures[int(index), int(index)]["target"])[None]
        latents, features = pipeline.encode(target)
        generators = [torch.Generator().manual_seed(int(index))]
        made = pipeline.decode(latents, features, generators).clamp(-1, 1)
        ratios.append(float(gradient_energy(made) / gradient_energy(target)))
        fidelity.append(float(psnr(F.avg_pool2d(made, 8), F.avg_pool2d(target, 8))))
    return {"grain_ratio": float(np.median(ratios)), "psnr_8px": float(np.mean(fidelity))}


def _crops(
    pipeline: FlipnetPipeline, config: DecoderConfig, faces: DecodedFaces, recipe: Recipe
) -> RestoredCrops:
    factor = downscale_factor(pipeline.vae)
    input_px = pipeline.network.face_encoder.config.input_px
    lq = LqVariants(faces, config.degradation.presets, input_px, recipe.run.seed, Path(recipe.data.cache))
    variants = [
        (lq.pixels(number), lq.restored_latents(pipeline, config.denoising_steps, number))
        for number in range(config.lq_variants)
    ]
    return RestoredCrops(faces.pixels, variants, config.crop_px // factor, factor)


def _channels_first(image: np.ndarray) -> Tensor:
    return torch.from_numpy(np.array(image)).permute(2, 0, 1)
