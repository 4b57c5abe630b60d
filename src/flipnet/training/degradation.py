"""Stage "degradation": LoRA, hubs and the null context learn HQ -> LQ on real pairs, the base frozen."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch
from torch import Tensor

from flipnet.config import PairSourceConfig, Recipe
from flipnet.data.pairs import PairSource, TrainingPairs
from flipnet.images import tensor_to_uint8
from flipnet.pipelines.pipeline import FlipnetPipeline
from flipnet.training.loop import TrainingStage, seeded_batches
from flipnet.training.modes import ModeObjective, add_mode, train_only
from flipnet.training.objective import to_unit_range
from flipnet.training.run_log import Pictures
from flipnet.training.starting_point import starting_pipeline
from flipnet.types import Mode

VALIDATION_PAIRS = 48
PICTURED_PAIRS = 4
VALIDATION_BATCH = 8


def build(recipe: Recipe) -> TrainingStage:
    """Assemble degradation training from its recipe; FlipnetError names a source that cannot be used."""
    config = recipe.degradation
    assert config is not None
    torch.manual_seed(recipe.run.seed)
    pipeline = starting_pipeline(
        config.base, config.face_encoder, recipe.data.size_px, config.prediction_type
    )
    if Mode.DEGRADATION in pipeline.network.adapters:
        pipeline.network.activate(Mode.DEGRADATION)
    else:
        add_mode(pipeline, Mode.DEGRADATION, config, embeds=False)
    train_only(pipeline, Mode.DEGRADATION)
    pairs, val_pairs = (
        TrainingPairs(
            pair_sources(sources),
            config.crop_px,
            window=config.window,
            flip_horizontal=config.flip_horizontal,
            flip_vertical=config.flip_vertical,
        )
        for sources in (config.pairs, config.val_pairs)
    )
    objective = ModeObjective(pipeline, Mode.DEGRADATION, config)
    return TrainingStage(
        objective,
        seeded_batches(pairs, pairs.weights(), recipe),
        validate=lambda: validate_degradation(objective, val_pairs),
        save=lambda folder: pipeline.save_pretrained(folder),
        pictures=lambda: degradation_pictures(pipeline, val_pairs),
        frozen=(pipeline.vae,),
    )


def pair_sources(sources: Sequence[PairSourceConfig]) -> list[PairSource]:
    """Return the sources of pairs that a recipe names."""
    return [PairSource(s.layout, s.path, s.weight, s.key_weights) for s in sources]


@torch.no_grad()
def validate_degradation(objective: ModeObjective, pairs: TrainingPairs) -> dict[str, float]:
    """L_ldm on held-out pairs with the same crops, noise and timesteps every time."""
    chosen = np.linspace(0, len(pairs) - 1, min(VALIDATION_PAIRS, len(pairs))).astype(int)
    items = [pairs[int(index), int(index)] for index in chosen]
    losses, device = [], next(objective.parameters()).device
    with torch.random.fork_rng(), torch.autocast(device.type, torch.bfloat16):
        torch.manual_seed(0)
        for first in range(0, len(items), VALIDATION_BATCH):
            part = items[first : first + VALIDATION_BATCH]
            batch = {key: torch.stack([item[key] for item in part]).to(device) for key in ("hq", "lq")}
            losses.append(float(objective(batch)["ldm"]))
    return {"val_ldm": float(np.mean(losses))}


def degradation_pictures(pipeline: FlipnetPipeline, pairs: TrainingPairs) -> Pictures:
    """Return held-out pairs: the clean picture, two degraded ones of the mode's, and the real degraded one."""
    chosen = np.linspace(0, len(pairs) - 1, min(PICTURED_PAIRS, len(pairs))).astype(int)
    items = [pairs[int(index), int(index)] for index in chosen]
    hq, lq = (to_unit_range(torch.stack([item[key] for item in items])) for key in ("hq", "lq"))
    columns = [hq, _degraded(pipeline, hq, 0), _degraded(pipeline, hq, 1), lq]
    rows = zip(*(tensor_to_uint8(pictures) for pictures in columns), strict=True)
    return Pictures(("clean", "degraded", "again", "real"), list(rows))


def _degraded(pipeline: FlipnetPipeline, hq: Tensor, seed: int) -> Tensor:
    hq = hq.to(pipeline.device)
    generators = [torch.Generator().manual_seed(seed) for _ in hq]
    latents, features = pipeline.encode(hq)
    steps = pipeline.network.default_steps[Mode.DEGRADATION]
    denoised = pipeline.denoise(latents, hq, generators, steps)
    return pipeline.decode(denoised, features, generators).clamp(-1, 1).cpu()
