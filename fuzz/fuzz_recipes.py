"""Random bytes as a recipe, and as an override: a recipe or a `RecipeError`, nothing else. See README.md."""

from __future__ import annotations

import sys
import tempfile
from contextlib import suppress
from pathlib import Path

import atheris

with atheris.instrument_imports(include=["flipnet.config", "tomllib"]):
    from flipnet.config import RecipeError, load_recipe

FOLDER = Path(tempfile.mkdtemp(prefix="flipnet-fuzz-"))
GOOD = FOLDER / "good.toml"
GOOD.write_text('stage = "autoencoder"\n[data]\ntrain = ["a"]\nval = ["b"]\n[autoencoder]\n')


def one_input(data: bytes) -> None:
    """Read the bytes as a recipe, and as an override of a good one."""
    path = FOLDER / "recipe.toml"
    path.write_bytes(data)
    for source, overrides in ((path, ()), (GOOD, (data.decode("utf-8", "replace"),))):
        with suppress(RecipeError):
            load_recipe(source, overrides)


if __name__ == "__main__":
    atheris.Setup(sys.argv, one_input)
    atheris.Fuzz()
