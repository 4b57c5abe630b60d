"""The networks of a recipe without their weights: from configurations, on any device, the meta device included."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from diffusers import AutoencoderKL, DDIMScheduler, UNet2DConditionModel
from torch import Tensor, nn

from flipnet.checkpoints import BUNDLED, read_json
from flipnet.config import (
    AutoencoderConfig,
    DegradationModeConfig,
    EmbeddingConfig,
    Recipe,
    RestorationConfig,
)
from flipnet.data.degradation_code import NAMES
from flipnet.models.autoencoder import CompactAutoencoder
from flipnet.models.backbone import VAE_CLASSES, downscale_factor
from flipnet.models.base import SD21_UNET, SD_SCHEDULER, SD_VAE
from flipnet.models.face_encoder import FaceEncoder
from flipnet.pipelines.pipeline import FlipnetPipeline
from flipnet.training.autoencoder import AutoencoderObjective
from flipnet.training.embedding import AssociationObjective, EmbeddingObjective
from flipnet.training.modes import ModeObjective, add_mode, train_only
from flipnet.training.prior import PriorObjective
from flipnet.training.restoration import restoration_objective
from flipnet.types import FlipnetError, Mode

# The embedding of recipes/sd21-embedding.toml, for when its folder is not there yet.
SD21_FACE_ENCODER: dict[str, Any] = {
    "channels": (128, 256, 384, 512),
    "unshuffle": 4,
    "embedding_dim": 512,
    "input_px": 512,
}


@dataclass(frozen=True)
class Shapes:
    """Networks with weights of no meaning.

    Attributes:
        objective: what the stage trains, as in `TrainingStage`.
        frozen: what the objective uses but does not hold, by name.
        notes: what was assumed because a folder is not there.
    """

    objective: nn.Module
    frozen: dict[str, nn.Module]
    notes: tuple[str, ...]


def build_shapes(recipe: Recipe, device: torch.device) -> Shapes:
    """Build what a recipe trains; folders that are missing are taken for what the bundled recipes make there."""
    notes: list[str] = []
    with device:
        objective, frozen = _BUILDERS[recipe.stage](recipe, notes)
    for module in (objective, *frozen.values()):
        module.to(memory_format=torch.channels_last)  # type: ignore[call-overload]
    return Shapes(objective, frozen, tuple(dict.fromkeys(notes)))


def random_batch(recipe: Recipe, shapes: Shapes, count: int, device: torch.device) -> dict[str, Tensor]:
    """Return a batch of `count` samples in the form that the stage's data sets have."""

    def pictures(side: int) -> Tensor:
        return torch.zeros(count, 3, side, side, dtype=torch.uint8, device=device)

    objective: Any = shapes.objective
    if recipe.autoencoder is not None:
        return {"image": pictures(recipe.autoencoder.crop_px)}
    if recipe.prior is not None:
        config = objective.unet.config
        side = config.sample_size
        return {"latents": torch.randn(count, config.out_channels, side, side, device=device)}
    if recipe.embedding is not None or recipe.association is not None:
        side = objective.encoder.config.input_px
        return {"hq": pictures(side), "lq": pictures(side)}
    if recipe.restoration is not None and recipe.restoration.lq_variants:
        return _cached_batch(recipe.restoration, recipe.data.size_px, objective, count, device)
    side = recipe.degradation.crop_px if recipe.degradation is not None else recipe.data.size_px
    coded = recipe.degradation is not None and recipe.degradation.code
    code = {"code": torch.zeros(count, len(NAMES), device=device)} if coded else {}
    return {"hq": pictures(side), "lq": pictures(side), **code}


def _cached_batch(
    config: RestorationConfig, size_px: int, objective: ModeObjective, count: int, device: torch.device
) -> dict[str, Tensor]:
    network, factor = objective.network, downscale_factor(objective._vae[0])
    encoder, side = network.face_encoder, size_px // factor
    crop = config.image_crop_latents or side
    shape = (count, network.latent_channels, side, side)
    return {
        "hq_latents": torch.randn(shape, device=device),
        "lq_latents": torch.randn(shape, device=device),
        "embedding": torch.randn(count, encoder.num_tokens, encoder.config.embedding_dim, device=device),
        "hq_crop": torch.zeros(count, 3, crop * factor, crop * factor, dtype=torch.uint8, device=device),
        "corner": torch.zeros(count, 2, dtype=torch.long),
    }


def _autoencoder(recipe: Recipe, notes: list[str]) -> tuple[nn.Module, dict[str, nn.Module]]:
    config = recipe.autoencoder
    assert isinstance(config, AutoencoderConfig)
    vae = CompactAutoencoder(
        channels=config.channels,
        blocks=config.blocks,
        unshuffle=config.unshuffle,
        latent_channels=config.latent_channels,
    )
    vae.encoder.requires_grad_(not config.freeze_encoder)
    return AutoencoderObjective(vae, config), {}


def _prior(recipe: Recipe, notes: list[str]) -> tuple[nn.Module, dict[str, nn.Module]]:
    assert recipe.prior is not None
    unet = UNet2DConditionModel(**recipe.prior.unet)
    return PriorObjective(unet, DDIMScheduler(**recipe.prior.scheduler)), {}


def _embedding(recipe: Recipe, notes: list[str]) -> tuple[nn.Module, dict[str, nn.Module]]:
    config = recipe.embedding
    assert isinstance(config, EmbeddingConfig)
    vae = _vae(config.vae, notes).eval().requires_grad_(False)
    encoder = FaceEncoder(
        channels=config.channels,
        blocks=config.blocks,
        unshuffle=config.unshuffle,
        embedding_dim=config.embedding_dim,
        input_px=config.input_px,
    )
    return EmbeddingObjective(encoder, vae, config), {"VAE encoder": vae.encoder}


def _association(recipe: Recipe, notes: list[str]) -> tuple[nn.Module, dict[str, nn.Module]]:
    assert recipe.association is not None
    encoder = _face_encoder(recipe.association.face_encoder, notes, with_decoders=True)
    return AssociationObjective(encoder, recipe.association), {}


def _mode(recipe: Recipe, notes: list[str]) -> tuple[nn.Module, dict[str, nn.Module]]:
    config: RestorationConfig | DegradationModeConfig | None = recipe.restoration or recipe.degradation
    assert config is not None
    location = (config.start_from if isinstance(config, RestorationConfig) else None) or config.base
    vae, unet, scheduler = _vae(location, notes), _unet(location, notes), _scheduler(location, notes)
    encoder = _face_encoder(config.face_encoder or f"{location}/face_encoder", notes, with_decoders=False)
    pipeline = FlipnetPipeline(vae, unet, scheduler, encoder)
    if recipe.run.gradient_checkpointing:
        unet.enable_gradient_checkpointing()
    if isinstance(config, RestorationConfig):
        add_mode(pipeline, Mode.RESTORATION, config, embeds=True)
        return restoration_objective(pipeline, config), {"VAE": vae}
    add_mode(pipeline, Mode.DEGRADATION, config, embeds=False)
    if config.code:
        pipeline.network.add_code(Mode.DEGRADATION, len(NAMES))
    train_only(pipeline, Mode.DEGRADATION)
    return ModeObjective(pipeline, Mode.DEGRADATION, config), {"VAE": vae}


_BUILDERS: dict[str, Callable[[Recipe, list[str]], tuple[nn.Module, dict[str, nn.Module]]]] = {
    "autoencoder": _autoencoder,
    "prior": _prior,
    "embedding": _embedding,
    "association": _association,
    "restoration": _mode,
    "degradation": _mode,
}
COUNTED_STAGES = tuple(_BUILDERS)


def _stand_in(location: str, notes: list[str]) -> Path | None:
    """Return the bundled model's folder for the compact recipes, None for Stable Diffusion 2.1."""
    compact = "compact" in location
    name = "the bundled compact model" if compact else "Stable Diffusion 2.1"
    notes.append(f"{location} is not a folder here: the shapes of {name} are assumed")
    return BUNDLED / "compact" if compact else None


def _config_of(
    location: str, part: str, notes: list[str], file: str = "config.json"
) -> dict[str, Any] | None:
    """Return the configuration of a part of a base, None where Stable Diffusion 2.1 stands in."""
    folder = BUNDLED / location if location == "compact" else Path(location)
    for candidate in (folder / part / file, folder / file):
        if candidate.is_file():
            return read_json(candidate)
    stand_in = _stand_in(location, notes)
    return None if stand_in is None else read_json(stand_in / part / file)


def _vae(location: str, notes: list[str]) -> Any:
    config = _config_of(location, "vae", notes)
    if config is None:
        return AutoencoderKL(**SD_VAE)
    if config["_class_name"] not in VAE_CLASSES:
        raise FlipnetError(f"{location}: its VAE is a {config['_class_name']}.")
    return VAE_CLASSES[config["_class_name"]].from_config(config)


def _unet(location: str, notes: list[str]) -> UNet2DConditionModel:
    config = _config_of(location, "unet", notes)
    return UNet2DConditionModel(**SD21_UNET) if config is None else UNet2DConditionModel.from_config(config)


def _scheduler(location: str, notes: list[str]) -> DDIMScheduler:
    # On the CPU: its tables are read, not counted.
    with torch.device("cpu"):
        config = _config_of(location, "scheduler", notes, "scheduler_config.json")
        return DDIMScheduler(**SD_SCHEDULER) if config is None else DDIMScheduler.from_config(config)


def _face_encoder(location: str, notes: list[str], *, with_decoders: bool) -> FaceEncoder:
    config = _config_of(location, "", notes) if Path(location).is_dir() else None
    if config is None:
        stand_in = _stand_in(location, notes)
        config = SD21_FACE_ENCODER if stand_in is None else read_json(stand_in / "face_encoder/config.json")
    known = {key: value for key, value in config.items() if not key.startswith("_")}
    return FaceEncoder(**{**known, "with_decoders": with_decoders})
