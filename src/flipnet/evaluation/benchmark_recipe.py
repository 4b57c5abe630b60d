"""Benchmark recipes: a test set as people have it on disk, and the methods to run on it, in TOML."""

from __future__ import annotations

import tomllib
from pathlib import Path
from typing import Annotated

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from flipnet.config import RecipeError


class BenchmarkRecipe(BaseModel):
    """One test set.

    Attributes:
        name: what tables call it.
        input: folder or shard of the bad, aligned faces.
        reference: the true faces by the same names, None for real photographs.
        real: real faces for Fréchet distances, or FID statistics (.npz); None takes the reference.
        size_px: every picture is resized to this side first (Lanczos); None takes them as they are.
        expected_images: how many pictures the published set has; another number is remarked on.
        metrics: names as in `catalogue`, empty for the standard ones.
        methods: further columns, as `--method NAME=WHERE` takes them; "" for a built-in one.
        weights: networks of metrics, as `--weights NAME=FILE` takes them.

    Paths are relative to the working directory.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    name: str
    input: Path
    reference: Path | None = None
    real: Path | None = None
    size_px: Annotated[int, Field(ge=16)] | None = None
    expected_images: Annotated[int, Field(ge=1)] | None = None
    metrics: tuple[str, ...] = ()
    methods: dict[str, str] = {}
    weights: dict[str, Path] = {}


def load_benchmark_recipe(path: Path) -> BenchmarkRecipe:
    """Read a TOML recipe; RecipeError names the file, the key and the cause."""
    try:
        return BenchmarkRecipe.model_validate(tomllib.loads(path.read_text(encoding="utf-8")))
    except OSError as error:
        raise RecipeError(f"{path}: cannot read the recipe: {error.strerror}") from error
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise RecipeError(f"{path}: not a valid TOML recipe: {error}") from error
    except ValidationError as error:
        first = error.errors()[0]
        key = ".".join(str(part) for part in first["loc"]) or "recipe"
        raise RecipeError(f"{path}: {key}: {first['msg']}") from error
