"""Stage "degradation": LoRA, hubs and the null context learn HQ -> LQ on real pairs, the base frozen."""

from __future__ import annotations

import numpy as np
import torch

from flipnet.config import DegradationModeConfig, PairSourceConfig, Recipe
from flipnet.data.pairs import PairSource, TrainingPairs
from flipnet.pipelines.pipeline import FlipnetPipeline
from flipnet.training.loop import TrainingStage, seeded_batches
from flipnet.training.modes import ModeObjective, add_mode, train_only
from flipnet.types import Mode

VALIDATION_PAIRS = 48
VALIDATION_BATCH = 8


def build(recipe: Recipe) -> TrainingStage:
    """Assemble degradation training from its recipe; FlipnetError names a source that cannot be used."""
    config = recipe.degradation
    assert config is not None
    torch.manual_seed(recipe.run.seed)
    pipeline = FlipnetPipeline.from_pretrained(config.base)
    if Mode.DEGRADATION in pipeline.network.adapters:
        pipeline.network.activate(Mode.DEGRADATION)
    else:
        add_mode(pipeline, Mode.DEGRADATION, config, embeds=False)
    train_only(pipeline, Mode.DEGRADATION)
    pairs, val_pairs = training_pairs(config, config.pairs), training_pairs(config, config.val_pairs)
    objective = ModeObjective(pipeline, Mode.DEGRADATION, config)
    return TrainingStage(
        objective,
        seeded_batches(pairs, pairs.weights(), recipe),
        validate=lambda: validate_degradation(objective, val_pairs),
        save=lambda folder: pipeline.save_pretrained(folder),
    )


def training_pairs(config: DegradationModeConfig, sources: tuple[PairSourceConfig, ...]) -> TrainingPairs:
    """Return the crops of real pairs that a recipe names."""
    return TrainingPairs(
        [PairSource(s.layout, s.path, s.weight, s.key_weights) for s in sources],
        config.crop_px,
        window=config.window,
        flip_horizontal=config.flip_horizontal,
        flip_vertical=config.flip_vertical,
    )


@torch.no_grad()
def validate_degradation(objective: ModeObjective, pairs: TrainingPairs) -> dict[str, float]:
    """L_ldm on held-out pairs with the same crops, noise and timesteps every time."""
    chosen = np.linspace(0, len(pairs) - 1, min(VALIDATION_PAIRS, len(pairs))).astype(int)
    items = [pairs[int(index), int(index)] for index in chosen]
    losses = []
    with torch.random.fork_rng(), torch.autocast("cpu", torch.bfloat16):
        torch.manual_seed(0)
        for first in range(0, len(items), VALIDATION_BATCH):
            part = items[first : first + VALIDATION_BATCH]
            losses.append(
                float(
                    objective({key: torch.stack([item[key] for item in part]) for key in ("hq", "lq")})["ldm"]
                )
            )
    return {"val_ldm": float(np.mean(losses))}
