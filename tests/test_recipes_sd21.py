"""The recipes for Stable Diffusion 2.1, run end to end on a tiny random base of its kind."""

import tomllib
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from safetensors.torch import load_file

from flipnet.config import load_recipe
from flipnet.data.shards import PairRecord, ShardWriter
from flipnet.pipelines.pipeline import FlipnetPipeline
from flipnet.training import run_recipe
from sd_like import save_base

RECIPES = Path(__file__).parents[1] / "recipes"
NAMES = ("embedding", "association", "degradation", "restoration", "restoration-offline")


TRAINING_RECIPES = sorted([*RECIPES.glob("compact-*.toml"), *RECIPES.glob("sd21-*.toml")])


@pytest.mark.parametrize("path", TRAINING_RECIPES, ids=lambda path: path.stem)
def test_every_training_recipe_is_valid(path):
    recipe = load_recipe(path)
    assert recipe.stage in tomllib.loads(path.read_text())


def test_the_papers_setting_is_in_the_recipes():
    recipes = {name: load_recipe(RECIPES / f"sd21-{name}.toml") for name in NAMES}
    for name in ("degradation", "restoration", "restoration-offline"):
        mode = recipes[name].degradation or recipes[name].restoration
        assert (mode.lora_rank, mode.context_tokens, mode.rotary) == (64, 77, False)
        assert recipes[name].data.size_px == 512
    online, mixed = recipes["restoration"].restoration, recipes["restoration-offline"].restoration
    assert online.mse_weight > 0
    assert online.perceptual_weight > 0
    assert not online.train_base
    assert not online.offline
    # "+O/F" differs in its offline pairs and in standing on the mode that made them, in nothing else.
    other = {"offline": (), "base": online.base, "face_encoder": online.face_encoder}
    assert mixed.model_copy(update=other) == online
    assert recipes["restoration-offline"].optim == recipes["restoration"].optim
    assert "--variants 5" in (RECIPES / "sd21-restoration-offline.toml").read_text()


@pytest.fixture
def faces(tmp_path):
    folder = tmp_path / "faces"
    folder.mkdir()
    rng = np.random.default_rng(0)
    for index in range(3):
        small = Image.fromarray(rng.integers(0, 256, (6, 6, 3), np.uint8))
        small.resize((64, 64), Image.Resampling.BICUBIC).save(folder / f"face-{index}.png")
    return folder


@pytest.fixture
def run(tmp_path, faces):
    """Run one of the recipes at toy size, everything else as it stands; return its result's folder."""
    toy = (
        "optim.steps=2",
        "optim.batch_size=2",
        "optim.warmup_steps=1",
        "optim.learning_rate=1e-2",
        "run.workers=0",
        "run.log_every=1",
        "run.precision=no",
        f'data.train=["{faces}"]',
        f'data.val=["{faces}"]',
        "data.size_px=64",
        f'data.cache="{tmp_path}/cache"',
    )

    def run_one(name: str, *overrides: str) -> Path:
        run_recipe(RECIPES / f"sd21-{name}.toml", (*toy, *overrides), tmp_path / name)
        return tmp_path / name / "final"

    return run_one


def test_the_recipes_follow_each_other_on_a_tiny_base(tmp_path, faces, run):
    base = save_base(tmp_path / "base")
    shape = ("channels=[16, 16]", "blocks=1", "embedding_dim=12", "input_px=32")
    embedding = run("embedding", f"embedding.vae={base}", *(f"embedding.{each}" for each in shape))
    association = run("association", f"association.face_encoder={embedding}")

    with ShardWriter(tmp_path / "pairs") as writer:
        for index, file in enumerate(sorted(faces.iterdir())):
            picture = np.asarray(Image.open(file))
            writer.write(f"pair-{index}", picture, picture // 2, PairRecord(method="flipnet", seed=index))
    pairs = f'[{{layout="shards", path="{tmp_path}/pairs"}}]'
    degradation = run(
        "degradation",
        f"degradation.base={base}",
        f"degradation.face_encoder={association}",
        f"degradation.pairs={pairs}",
        f"degradation.val_pairs={pairs}",
        "degradation.crop_px=64",
        "degradation.default_steps=2",
    )
    small = ("restoration.image_crop_latents=4", "restoration.default_steps=2")
    encoder = f"restoration.face_encoder={association}"
    online = run("restoration", f"restoration.base={base}", encoder, *small)
    mixed = run(
        "restoration-offline",
        f"restoration.base={degradation}",
        f'restoration.offline=["{tmp_path}/pairs"]',
        *small,
    )

    for result, modes in ((online, {"restoration"}), (mixed, {"degradation", "restoration"})):
        pipeline = FlipnetPipeline.from_pretrained(result)
        assert set(pipeline.network.adapters) == modes
        assert pipeline.native_size_px == 64
        assert pipeline.vae.config.scaling_factor == 0.18215
        restored = pipeline(torch.zeros(1, 3, 64, 64), output_type="pt").images
        assert torch.isfinite(restored).all()
        # The base is frozen: what is in the result is what was on disk.
        weights = "unet/diffusion_pytorch_model.safetensors"
        before, after = load_file(base / weights), load_file(result / weights)
        assert all(torch.equal(before[key], after[key]) for key in before)
    mode = load_file(mixed / "modes/restoration.safetensors")
    assert mode["tau.null"].shape == (77, 24)
    assert any("lora_A" in key and value.shape[0] == 64 for key, value in mode.items())
    for name in NAMES:
        assert (tmp_path / name / "validation/step-00000002.png").is_file()
