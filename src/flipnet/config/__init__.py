"""Recipes: what a training run is, read from TOML, every key checked and every contradiction named.

A recipe file holds `stage`, and the tables `[data]`, `[optim]`, `[run]` and one named like the stage.
The resolved recipe is saved with the run. Source: our choice; litgpt's checked argument objects were the model.
"""

from flipnet.config.data import DataConfig, DegradationConfig, PairSourceConfig, StorageConfig
from flipnet.config.decoder import DecoderConfig, TogetherConfig
from flipnet.config.foundation import AssociationConfig, AutoencoderConfig, EmbeddingConfig, PriorConfig
from flipnet.config.modes import DegradationModeConfig, ModeConfig, PredictionType, RestorationConfig
from flipnet.config.recipe import STREAMING_STAGES, Recipe, RecipeError, Stage, load_recipe, save_recipe
from flipnet.config.run import OptimConfig, RunConfig
from flipnet.config.table import Fraction, NonNegative, Positive, Quality

__all__ = [
    "STREAMING_STAGES",
    "AssociationConfig",
    "AutoencoderConfig",
    "DataConfig",
    "DecoderConfig",
    "DegradationConfig",
    "DegradationModeConfig",
    "EmbeddingConfig",
    "Fraction",
    "ModeConfig",
    "NonNegative",
    "OptimConfig",
    "PairSourceConfig",
    "Positive",
    "PredictionType",
    "PriorConfig",
    "Quality",
    "Recipe",
    "RecipeError",
    "RestorationConfig",
    "RunConfig",
    "Stage",
    "StorageConfig",
    "TogetherConfig",
    "load_recipe",
    "save_recipe",
]
