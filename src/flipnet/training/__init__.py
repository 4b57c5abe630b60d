"""Training: `run_recipe` turns a recipe file into a run folder."""

from __future__ import annotations

import importlib
from pathlib import Path

from flipnet.config import load_recipe

STAGE_MODULES = {
    "autoencoder": "flipnet.training.autoencoder",
    "prior": "flipnet.training.prior",
    "embedding": "flipnet.training.embedding",
    "association": "flipnet.training.embedding",
    "restoration": "flipnet.training.restoration",
    "decoder": "flipnet.training.decoder",
    "degradation": "flipnet.training.degradation",
}


def run_recipe(
    recipe_path: Path, overrides: tuple[str, ...] = (), output: Path | None = None, *, resume: bool = False
) -> dict[str, float]:
    """Train the stage that a TOML recipe names and return its last validation numbers.

    Args:
        recipe_path: the recipe.
        overrides: `table.key=value` texts that replace recipe values.
        output: run folder, by default runs/<recipe name>.
        resume: go on from the newest checkpoint in `output`.

    Raises FlipnetError (RecipeError for a bad recipe) with one sentence naming the cause.
    """
    recipe = load_recipe(recipe_path, overrides)
    module = importlib.import_module(STAGE_MODULES[recipe.stage])
    from flipnet.training.loop import start_processes, train

    # The first process fills the caches; the others then find them filled.
    with start_processes().main_process_first():
        stage = module.build(recipe)
    return train(recipe, stage, output or Path("runs") / recipe_path.stem, resume=resume)
