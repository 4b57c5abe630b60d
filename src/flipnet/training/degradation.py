"""Stage "degradation": LoRA, hubs and the null context learn HQ -> LQ on real pairs, the base frozen."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch
from torch import Tensor
from torch.utils.data import DataLoader

from flipnet.config import PairSourceConfig, Recipe, RunConfig
from flipnet.data.degradation_code import NAMES
from flipnet.data.pairs import PairSource, TrainingPairs
from flipnet.data.sampling import SeededBatches
from flipnet.images import tensor_to_uint8
from flipnet.pipelines.pipeline import FlipnetPipeline
from flipnet.training.loop import TrainingStage, seeded_batches
from flipnet.training.modes import ModeObjective, add_mode, train_only
from flipnet.training.objective import to_unit_range
from flipnet.training.run_log import Pictures
from flipnet.training.starting_point import starting_pipeline
from flipnet.types import FlipnetError, Mode

VALIDATION_PAIRS = 48
PICTURED_PAIRS = 4
VALIDATION_BATCH = 8
BANK_BATCH = 16


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
    pairs, val_pairs = (
        TrainingPairs(
            pair_sources(sources),
            config.crop_px,
            window=config.window,
            flip_horizontal=config.flip_horizontal,
            flip_vertical=config.flip_vertical,
            storage=config.storage,
        )
        for sources in (config.pairs, config.val_pairs)
    )
    if config.code:
        give_codes(pipeline, pairs, config.code_bank, recipe.run)
    train_only(pipeline, Mode.DEGRADATION)
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


def give_codes(pipeline: FlipnetPipeline, pairs: TrainingPairs, count: int, run: RunConfig) -> None:
    """Measure the codes of `count` training items, seeded, and let the mode draw from them.

    A mode that learned without a code gets one, and keeps all else; one that has a code goes on reading it as
    before. FlipnetError where it is a code of other numbers.
    """
    network, code_dim = pipeline.network, len(NAMES)
    if not network.code_dim(Mode.DEGRADATION):
        network.add_code(Mode.DEGRADATION, code_dim)
    if network.code_dim(Mode.DEGRADATION) != code_dim:
        raise FlipnetError(
            f"degradation.base: its mode reads codes of {network.code_dim(Mode.DEGRADATION)} numbers, "
            f"pairs are measured by {code_dim}."
        )
    draw = SeededBatches(pairs.weights(), BANK_BATCH, -(-count // BANK_BATCH), seed=run.seed)
    items = DataLoader(pairs, batch_sampler=draw, num_workers=run.workers)
    measured = torch.cat([batch["code"] for batch in items])[:count]
    network.tau(Mode.DEGRADATION).set_codes(measured)


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
            batch = {key: torch.stack([item[key] for item in part]).to(device) for key in part[0]}
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
    generators = [torch.Generator().manual_seed(seed * len(hq) + row) for row in range(len(hq))]
    latents, features = pipeline.encode(hq)
    steps = pipeline.network.default_steps[Mode.DEGRADATION]
    codes = pipeline.draw_codes(generators)
    denoised = pipeline.denoise(latents, hq, generators, steps, codes=codes)
    return pipeline.decode(denoised, features, generators, codes=codes).clamp(-1, 1).cpu()
