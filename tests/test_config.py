from pathlib import Path

import pytest

from flipnet.config import RecipeError, load_recipe

RECIPES = sorted(
    path
    for path in (Path(__file__).parents[1] / "recipes").glob("*.toml")
    if not path.stem.startswith("benchmark-")
)
MINIMAL = """stage = "autoencoder"
[data]
train = ["a"]
val = ["b"]
[optim]
steps = 10
batch_size = 2
learning_rate = 1e-3
[autoencoder]
"""


def write(tmp_path, text):
    path = tmp_path / "recipe.toml"
    path.write_text(text)
    return path


@pytest.mark.parametrize("path", RECIPES, ids=lambda path: path.stem)
def test_shipped_recipes_are_valid_and_named_after_their_stage(path):
    assert load_recipe(path).stage in path.stem.split("-")


def test_overrides_replace_values(tmp_path):
    path = write(tmp_path, MINIMAL)
    recipe = load_recipe(path, ("optim.steps=7", "data.cache=/tmp/x", 'data.train=["c", "d"]'))
    assert (recipe.optim.steps, recipe.data.cache, recipe.data.train) == (7, "/tmp/x", ("c", "d"))


@pytest.mark.parametrize(
    ("text", "message"),
    [
        (MINIMAL.replace("steps", "setps"), r"recipe\.toml: optim\.steps: Field required"),
        (MINIMAL + "chanels = [8]\n", r"autoencoder\.chanels: Extra inputs are not permitted"),
        (MINIMAL.replace("batch_size = 2", "batch_size = 0"), r"optim\.batch_size: .*greater than 0"),
        (MINIMAL + "crop_px = 100\n", "crop_px 100 is not a multiple of the downscale factor 16"),
        (MINIMAL.replace("[autoencoder]", ""), r"stage tables given are \[\]"),
        (MINIMAL.replace('"autoencoder"', '"painting"'), "stage: Input should be 'autoencoder'"),
        ("stage = ", "not a valid TOML recipe"),
    ],
)
def test_mistakes_are_named(tmp_path, text, message):
    with pytest.raises(RecipeError, match=message):
        load_recipe(write(tmp_path, text))


def test_missing_recipe(tmp_path):
    with pytest.raises(RecipeError, match=r"nothing\.toml: cannot read the recipe: No such file"):
        load_recipe(tmp_path / "nothing.toml")


@pytest.mark.parametrize("override", ["optim.steps", "stage.steps=3"])
def test_malformed_override(tmp_path, override):
    with pytest.raises(RecipeError, match=f"--set {override}"):
        load_recipe(write(tmp_path, MINIMAL), (override,))
