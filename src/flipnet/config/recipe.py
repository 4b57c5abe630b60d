"""A whole recipe, and its way in from TOML and out to JSON."""

from __future__ import annotations

import json
import tomllib
from pathlib import Path
from typing import Any, Literal, get_args

from pydantic import ValidationError, model_validator

from flipnet.config.data import DataConfig
from flipnet.config.decoder import DecoderConfig
from flipnet.config.foundation import AssociationConfig, AutoencoderConfig, EmbeddingConfig, PriorConfig
from flipnet.config.modes import DegradationModeConfig, RestorationConfig
from flipnet.config.run import OptimConfig, RunConfig
from flipnet.config.table import Table
from flipnet.types import FlipnetError

Stage = Literal["autoencoder", "prior", "embedding", "association", "restoration", "decoder", "degradation"]
STREAMING_STAGES = ("embedding", "association", "restoration")
"""Stages that degrade online and so can read their faces while they train."""


class RecipeError(FlipnetError):
    """A recipe that cannot be used; the message names the file, the key and the cause."""


class Recipe(Table):
    """One training run. Exactly the table named by `stage` must be present beside data, optim and run."""

    stage: Stage
    data: DataConfig = DataConfig()
    optim: OptimConfig
    run: RunConfig = RunConfig()
    autoencoder: AutoencoderConfig | None = None
    prior: PriorConfig | None = None
    embedding: EmbeddingConfig | None = None
    association: AssociationConfig | None = None
    restoration: RestorationConfig | None = None
    decoder: DecoderConfig | None = None
    degradation: DegradationModeConfig | None = None

    @model_validator(mode="after")
    def _one_stage(self) -> Recipe:
        tables = get_args(Stage)
        given = [name for name in tables if getattr(self, name) is not None]
        if given != [self.stage]:
            raise ValueError(f"stage is '{self.stage}' but the stage tables given are {given}")
        has_pairs = self.stage == "degradation" or (self.decoder is not None and bool(self.decoder.pairs))
        if not has_pairs and not (self.data.train and self.data.val):
            raise ValueError(f"data.train and data.val: stage '{self.stage}' needs faces")
        if self.data.streaming and self.stage not in STREAMING_STAGES:
            raise ValueError(f"data.streaming: stage '{self.stage}' trains on decoded faces")
        if self.data.streaming and self.restoration is not None and self.restoration.lq_variants:
            raise ValueError("data.streaming: variants are not cached, so set restoration.lq_variants = 0")
        return self


def load_recipe(path: Path, overrides: tuple[str, ...] = ()) -> Recipe:
    """Read a TOML recipe and apply `table.key=value` overrides, whose values are TOML literals.

    Raises RecipeError naming the file, the key and the cause.
    """
    try:
        content = tomllib.loads(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise RecipeError(f"{path}: cannot read the recipe: {error.strerror}") from error
    except (tomllib.TOMLDecodeError, UnicodeDecodeError, RecursionError) as error:
        raise RecipeError(f"{path}: not a valid TOML recipe: {error}") from error
    for override in overrides:
        _apply_override(content, override)
    try:
        return Recipe.model_validate(content)
    except ValidationError as error:
        first = error.errors()[0]
        key = ".".join(str(part) for part in first["loc"]) or "recipe"
        raise RecipeError(f"{path}: {key}: {first['msg']}") from error


def _apply_override(content: dict[str, Any], override: str) -> None:
    key, separator, text = override.partition("=")
    if not separator:
        raise RecipeError(f"--set {override}: expected table.key=value")
    try:
        value = tomllib.loads(f"value = {text}")["value"]
    except tomllib.TOMLDecodeError:
        value = text
    table = content
    *tables, name = key.split(".")
    for part in tables:
        table = table.setdefault(part, {})
        if not isinstance(table, dict):
            raise RecipeError(f"--set {override}: '{part}' is not a table")
    table[name] = value


def save_recipe(recipe: Recipe, path: Path) -> None:
    """Write the resolved recipe as JSON."""
    path.write_text(json.dumps(recipe.model_dump(mode="json", exclude_none=True), indent=2) + "\n")
