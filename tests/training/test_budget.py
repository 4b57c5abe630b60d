from pathlib import Path

import pytest
import torch
from typer.testing import CliRunner

from flipnet.cli import app
from flipnet.config import load_recipe
from flipnet.training.budget import OperationCounter, count_budget
from flipnet.types import FlipnetError

SHAPES = "channels = [8, 8]\nblocks = 1\nlatent_channels = 4\ncrop_px = 32"


RECIPES = Path(__file__).parents[2] / "recipes"


def test_operations_are_two_per_multiplication_and_addition():
    a, b = torch.zeros(3, 5), torch.zeros(5, 7)
    image, kernel = torch.zeros(1, 2, 8, 8), torch.zeros(4, 2, 3, 3)
    query = torch.zeros(1, 1, 6, 4)
    with OperationCounter() as counter:
        a @ b
        assert counter.total == 2 * 3 * 5 * 7
        torch.nn.functional.conv2d(image, kernel, padding=1)
        assert counter.total == 210 + 2 * 64 * 4 * 2 * 9
        torch.nn.functional.scaled_dot_product_attention(query, query, query)
        assert counter.total == 210 + 9216 + 2 * (2 * 6 * 6 * 4)


def test_parts_of_the_sd21_recipe():
    budget = count_budget(load_recipe(RECIPES / "sd21-degradation.toml"))
    parts = {part.name: part for part in budget.parts}
    # The published counts of Stable Diffusion 2.1's UNet and VAE.
    assert (parts["UNet"].trainable, parts["UNet"].frozen) == (0, 865_910_724)
    assert (parts["VAE"].trainable, parts["VAE"].frozen) == (0, 83_653_863)
    # 16 self-attention layers: five of 320, five of 640, six of 1280 channels; four projections and a bias each.
    widths = [320] * 5 + [640] * 5 + [1280] * 6
    assert parts["hubs"].trainable == sum(4 * c * c + c for c in widths)
    assert parts["LoRA"].trainable == sum(64 * (14 * c + 2 * 1024) for c in widths)
    assert budget.flops.keys() == {"encoding", "condition pass", "denoising", "backward"}
    # 340 GMAC are what others count for this UNet at 64 x 64 without attention's own products.
    assert 680e9 < budget.flops["condition pass"] < 1000e9
    assert any("Stable Diffusion 2.1 are assumed" in note for note in budget.notes)
    everything = sum(part.trainable + part.frozen for part in budget.parts)
    trainable = sum(part.trainable for part in budget.parts)
    assert budget.state_bytes == 4 * everything + 16 * trainable


def test_a_trained_convolution_costs_three_forward_passes(write_recipe):
    budget = count_budget(load_recipe(write_recipe("autoencoder", SHAPES)))
    # But for the first one, 12 to 8 channels on 16 x 16 places: the image itself needs no gradient.
    first = 2 * 16 * 16 * 8 * 12 * 9
    assert budget.flops["backward"] == 2 * budget.flops["forward"] - first
    assert budget.memory_bytes(8, autocast=False) - budget.state_bytes == 8 * budget.activation_bytes
    assert budget.memory_bytes(8, autocast=True) - budget.state_bytes == 4 * budget.activation_bytes


def test_gradient_checkpointing_and_8_bit_adam_save_memory(write_recipe, tiny_checkpoint):
    table = f'base = "{tiny_checkpoint}"\nlora_rank = 4'
    path = write_recipe("restoration", table)
    plain = count_budget(load_recipe(path))
    less = count_budget(load_recipe(path, ("run.gradient_checkpointing=true", "optim.optimizer=adamw8bit")))
    assert less.activation_bytes < 0.8 * plain.activation_bytes
    assert less.step_flops > plain.step_flops
    trained = sum(part.trainable for part in plain.parts)
    assert plain.state_bytes - less.state_bytes == 6 * trained


def test_dry_run_prints_tables_and_writes_nothing(tmp_path, write_recipe, monkeypatch):
    monkeypatch.chdir(tmp_path)
    recipe = write_recipe("autoencoder", SHAPES)
    before = sorted(tmp_path.rglob("*"))
    done = CliRunner().invoke(app, ["train", str(recipe), "--dry-run", "--set", "optim.batch_size=4"])
    assert done.exit_code == 0, done.output
    for text in ("trainable", "GFLOP per sample", "backward", "4 (recipe)", "this machine (", "measured"):
        assert text in done.output
    assert sorted(tmp_path.rglob("*")) == before


def test_a_stage_that_is_not_counted_says_so(tmp_path, write_recipe):
    path = write_recipe("decoder", f'base = "{tmp_path}"')
    with pytest.raises(FlipnetError, match="--dry-run: stage 'decoder' is not counted"):
        count_budget(load_recipe(path))
