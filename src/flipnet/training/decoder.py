"""Stage "decoder": a mode's own decoder, finished for sharpness while latents, UNet and VAE stay as they are.

restoration   cached latents of restored faces + the encoder's features of the LQ crop -> the HQ crop
degradation   latents of real bad pictures + noise -> those pictures, so that grain finer than a latent comes back
"""

from __future__ import annotations

from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any

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
from flipnet.faces.align import template
from flipnet.models.adapter import Adapter
from flipnet.models.autoencoder import CompactAutoencoder
from flipnet.models.backbone import (
    downscale_factor,
    encode_latents,
    encoder_features,
    raw_latents,
)
from flipnet.models.lora_rank import widen_lora
from flipnet.models.mode_decoder import ModeDecoder
from flipnet.pipelines.pipeline import FlipnetPipeline
from flipnet.pipelines.sampling import denoise
from flipnet.training.adversary import Judge, PerceptualNetwork, feature_distance, hinge, places
from flipnet.training.caching import LqVariants, cached_hq_latents
from flipnet.training.degradation import pair_sources
from flipnet.training.faces import load_faces
from flipnet.training.loop import TrainingStage, seeded_batches
from flipnet.training.modes import ModeObjective, crop_each, train_only
from flipnet.training.objective import gradient_energy, gradient_l1, grid_distance, psnr, to_unit_range
from flipnet.training.recognition import MobileFace, identity_distance
from flipnet.training.restoration import VALIDATION_FACES, restoration_pictures, validate_restoration
from flipnet.types import FlipnetError, Mode


@dataclass(frozen=True)
class Variant:
    """One degraded variant of all faces.

    Attributes:
        lq: the LQ faces, uint8 (N, S, S, 3).
        crops: float (N, L, h, w) by name: latents of which the crop's own part is wanted.
        wholes: float (N, ...) by name: what is wanted of the whole face.
    """

    lq: np.ndarray
    crops: dict[str, np.ndarray] = field(default_factory=dict)
    wholes: dict[str, np.ndarray] = field(default_factory=dict)


class FaceCrops(Dataset[dict[str, Tensor]]):
    """Crops of HQ and LQ faces with what was cached of them; indexed by (face, seed).

    Args:
        faces: uint8 (N, S, S, 3).
        variants: one is drawn per item; odd ones are mirrored.
        side: side of the crop in latent pixels.
        factor: image pixels per latent pixel.
        middle_share: share of the crops that are the middle of the face.
        parts_share: share of the rest that lie around one of the five points of the alignment template, so that
            eyes and mouths, a small part of a face's area, are seen more often; the others lie anywhere.
    """

    def __init__(
        self,
        faces: np.ndarray,
        variants: list[Variant],
        side: int,
        factor: int,
        middle_share: float = 0.0,
        parts_share: float = 0.0,
    ) -> None:
        self.faces, self.variants, self.side, self.factor = faces, variants, side, factor
        self.middle_share, self.parts_share = middle_share, parts_share
        self._parts = template(faces.shape[1]) / factor

    def __getitem__(self, item: tuple[int, int]) -> dict[str, Tensor]:
        index, seed = item
        rng = np.random.default_rng(seed)
        number = int(rng.integers(len(self.variants)))
        variant = self.variants[number]
        room = self.faces.shape[1] // self.factor - self.side
        top, left = rng.integers(0, room + 1, 2)
        if self.middle_share and rng.random() < self.middle_share:
            top = left = room // 2
        elif self.parts_share and rng.random() < self.parts_share:
            middle = self._parts[rng.integers(len(self._parts))] + rng.uniform(-0.25, 0.25, 2) * self.side
            left, top = np.clip(np.rint(middle - self.side / 2), 0, room).astype(int)
        rows, columns = (
            slice(first * self.factor, (first + self.side) * self.factor) for first in (top, left)
        )
        hq = self.faces[index][:, ::-1] if is_mirrored(number) else self.faces[index]
        latents = (slice(None), slice(top, top + self.side), slice(left, left + self.side))
        return {
            "target": _channels_first(hq[rows, columns]),
            "condition": _channels_first(variant.lq[index][rows, columns]),
            "corner_px": torch.tensor([top * self.factor, left * self.factor]),
            **{name: _float(array[index][latents]) for name, array in variant.crops.items()},
            **{name: _float(array[index]) for name, array in variant.wholes.items()},
        }


class LqPictures(Dataset[dict[str, Tensor]]):
    """The LQ pictures of real pairs as targets; they lie nowhere in a face, so their corner is always the same.

    `tau` normalises the pairs' codes, where its mode has codes.
    """

    def __init__(self, pairs: TrainingPairs, tau: Adapter) -> None:
        self.pairs, self.tau = pairs, tau

    def __len__(self) -> int:
        return len(self.pairs)

    def __getitem__(self, item: tuple[int, int]) -> dict[str, Tensor]:
        pair = self.pairs[item]
        code = {"code": self.tau.normalised(pair["code"])} if self.tau.code_dim else {}
        return {"target": pair["lq"], "corner_px": torch.zeros(2, dtype=torch.int64), **code}


class DecoderObjective(nn.Module):
    """L1 + gradients + perceptual + adversarial + identity between decoded and target crops.

    A batch holds "target", uint8 (B, 3, s, s); "corner_px" (B, 2), the crop's top left in its face; "latents"
    (B, L, s / f, s / f), by default those of the target itself; and, for a decoder that looks at it, "condition",
    uint8 (B, 3, s, s), or "code" (B, K), normalised. Where the mode is trained together with its decoder,
    "lq_latents", "hq_latents" (B, L, h, w) and "embedding" (B, N, D) of the whole faces stand in the place of
    "latents", and L_ldm is added.
    """

    def __init__(self, pipeline: FlipnetPipeline, decoder: ModeDecoder, config: DecoderConfig) -> None:
        super().__init__()
        self.decoder, self.config = decoder, config
        # In a dictionary, so that the frozen parts are no part of what is trained and saved.
        self._parts: dict[str, Any] = {"vae": pipeline.vae, "perceptual": PerceptualNetwork()}
        if config.identity_network:
            self._parts["recognition"] = MobileFace.from_file(Path(config.identity_network))
        self.size_px = pipeline.native_size_px
        self.judge = Judge() if config.adversarial_weight else None
        self.mode_objective: ModeObjective | None = None
        if config.together is not None:
            self.mode_objective = ModeObjective(pipeline, Mode(config.mode), config.together)

    @property
    def frozen(self) -> tuple[nn.Module, ...]:
        """What is looked at and not trained."""
        return tuple(self._parts.values())

    def forward(self, batch: dict[str, Tensor]) -> dict[str, Tensor]:
        """Return total, l1, gradient, perceptual, and where they apply adversarial, judge, identity and ldm."""
        vae, perceptual_features = self._parts["vae"], self._parts["perceptual"]
        config = self.config
        target = to_unit_range(batch["target"])
        latents = self._latents(batch, target)
        with torch.no_grad():
            fuses = self.decoder.config.fuses
            features = encoder_features(vae, to_unit_range(batch["condition"])) if fuses else ()
            real_features = perceptual_features(target)
        if config.latent_noise:
            latents = latents + config.latent_noise * torch.randn_like(latents)
        made = self.decoder(raw_latents(vae, latents), features, code=batch.get("code")).float()
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
        if config.grid_weight:
            grid = grid_distance(made, target, downscale_factor(vae))
            total = total + config.grid_weight * grid
            losses |= {"grid": grid}
        if self.judge is not None:
            place = places(batch["corner_px"], target.shape[-1], self.size_px)
            adversarial, judged = hinge(
                self.judge, (made, made_features, place), (target, real_features, place)
            )
            total = total + config.adversarial_weight * adversarial + judged
            losses |= {"adversarial": adversarial, "judge": judged}
        if config.identity_weight:
            identity = self._identity(made, target, batch["corner_px"])
            total = total + config.identity_weight * identity.nan_to_num(0)
            losses |= {"identity": identity}
        if self.mode_objective is not None and config.together is not None:
            wholes = ("hq_latents", "lq_latents", "embedding")
            seen = {name: batch[name][: config.together.ldm_faces or None] for name in wholes}
            ldm = self.mode_objective(seen)["total"]
            total = total + config.together.ldm_weight * ldm
            losses |= {"ldm": ldm}
        return {"total": total} | {name: value.detach() for name, value in losses.items()}

    def _latents(self, batch: dict[str, Tensor], target: Tensor) -> Tensor:
        """Latents of the crops: given, made by the mode with gradient, or the target's own."""
        if "latents" in batch:
            return batch["latents"]
        vae, objective = self._parts["vae"], self.mode_objective
        if objective is None:
            with torch.no_grad():
                return encode_latents(vae, target)
        network, lq = objective.network, batch["lq_latents"]
        condition = network.condition(lq, batch["embedding"], gradient=False)
        made = denoise(
            lambda noisy, timestep: network(noisy, timestep, condition),
            objective.scheduler,
            # What restoration will start from (`restoration_start`), by the process's own generator.
            torch.randn_like(lq) if self.config.denoising_steps > 1 else torch.zeros_like(lq),
            self.config.denoising_steps,
        )
        factor = downscale_factor(vae)
        return crop_each(made, batch["corner_px"] // factor, target.shape[-1] // factor)

    def _identity(self, made: Tensor, target: Tensor, corner_px: Tensor) -> Tensor:
        """Identity distance of the crops that are the middle of a face, NaN where none is."""
        middle = (corner_px == (self.size_px - target.shape[-1]) // 2).all(1)
        return identity_distance(self._parts["recognition"], made[middle], target[middle])


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
    if config.together is not None:
        widen_lora(pipeline.network, mode, config.together.lora_rank, config.together.lora_convolutions)
        train_only(pipeline, mode)
    tau = pipeline.network.tau(mode)
    if tau.code_dim and not pipeline.decoders[mode].config.code_dim:
        pipeline.decoders[mode] = pipeline.decoders[mode].with_code(tau.code_dim)
    decoder = pipeline.decoders[mode].requires_grad_(True)
    objective = DecoderObjective(pipeline, decoder, config)
    if mode is Mode.DEGRADATION:
        pairs, val_pairs = (
            LqPictures(TrainingPairs(pair_sources(sources), config.crop_px, storage=config.storage), tau)
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

    def scale(name: str) -> float:
        of_mode = name.startswith("mode_objective.")
        return config.together.learning_rate_scale if config.together and of_mode else 1.0

    return TrainingStage(
        objective,
        batches,
        validate,
        save=pipeline.save_pretrained,
        learning_rate_scale=scale,
        pictures=pictures,
        frozen=objective.frozen,
    )


@torch.no_grad()
def validate_grain(pipeline: FlipnetPipeline, pictures: LqPictures) -> dict[str, float]:
    """Gradient energy of LQ pictures encoded and decoded, relative to their own (1 is right), and PSNR in dB of
    means over 8 x 8 pixels."""
    ratios, fidelity = [], []
    for index in np.linspace(0, len(pictures) - 1, min(VALIDATION_FACES, len(pictures))).astype(int):
        picture = pictures[int(index), int(index)]
        target = to_unit_range(picture["target"])[None]
        codes = picture["code"][None] if "code" in picture else None
        latents, features = pipeline.encode(target)
        generators = [torch.Generator().manual_seed(int(index))]
        made = pipeline.decode(latents, features, generators, codes=codes).clamp(-1, 1)
        ratios.append(float(gradient_energy(made) / gradient_energy(target)))
        fidelity.append(float(psnr(F.avg_pool2d(made, 8), F.avg_pool2d(target, 8))))
    return {"grain_ratio": float(np.median(ratios)), "psnr_8px": float(np.mean(fidelity))}


def _crops(
    pipeline: FlipnetPipeline, config: DecoderConfig, faces: DecodedFaces, recipe: Recipe
) -> FaceCrops:
    vae, encoder, cache = pipeline.vae, pipeline.network.face_encoder, Path(recipe.data.cache)
    factor = downscale_factor(vae)
    lq = LqVariants(faces, config.degradation.presets, encoder.config.input_px, recipe.run.seed, cache)
    if config.together is None:
        variants = [
            Variant(
                lq.pixels(number), {"latents": lq.restored_latents(pipeline, config.denoising_steps, number)}
            )
            for number in range(config.lq_variants)
        ]
    else:
        hq = cached_hq_latents(vae, faces, cache)
        variants = [
            Variant(
                lq.pixels(number),
                wholes={
                    "lq_latents": lq.latents(vae, number)["latents"],
                    "hq_latents": hq[int(is_mirrored(number))],
                    "embedding": lq.embeddings(vae, encoder, number),
                },
            )
            for number in range(config.lq_variants)
        ]
    return FaceCrops(
        faces.pixels, variants, config.crop_px // factor, factor, config.face_share, config.parts_share
    )


def _float(array: np.ndarray) -> Tensor:
    return torch.from_numpy(np.array(array, np.float32))


def _channels_first(image: np.ndarray) -> Tensor:
    return torch.from_numpy(np.array(image)).permute(2, 0, 1)
