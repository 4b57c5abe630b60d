import json
from dataclasses import replace

import pytest
import torch
from safetensors.torch import load_file

from flipnet.config import load_recipe
from flipnet.training import autoencoder, run_recipe
from flipnet.training.loop import train
from flipnet.training.optimizer import learning_rate_factor
from flipnet.types import FlipnetError

VAE = "channels = [8, 8]\nblocks = 1\nlatent_channels = 4\ncrop_px = 32"
WEIGHTS = "final/diffusion_pytorch_model.safetensors"


def test_learning_rate_warms_up_and_falls_to_zero(write_recipe):
    optim = load_recipe(write_recipe("autoencoder", VAE, steps=101)).optim
    assert learning_rate_factor(0, optim) == 1.0  # one warm-up step
    assert learning_rate_factor(51, optim) == pytest.approx(0.5)
    assert learning_rate_factor(101, optim) == pytest.approx(0.0)


def test_a_stopped_run_resumes_to_the_very_same_weights(tmp_path, write_recipe):
    path = write_recipe("autoencoder", VAE, steps=5, checkpoint_minutes=1e-9)
    run_recipe(path, output=tmp_path / "unbroken")

    recipe = load_recipe(path)
    stage = autoencoder.build(recipe)

    def three_batches(start):
        for number, batch in enumerate(stage.batches(start)):
            if number == 3:
                raise KeyboardInterrupt
            yield batch

    broken = replace(stage, batches=three_batches)
    with pytest.raises(KeyboardInterrupt):
        train(recipe, broken, tmp_path / "broken")
    assert not (tmp_path / "broken/final").exists()
    run_recipe(path, output=tmp_path / "broken", resume=True)

    unbroken, resumed = load_file(tmp_path / "unbroken" / WEIGHTS), load_file(tmp_path / "broken" / WEIGHTS)
    assert all(torch.equal(unbroken[key], resumed[key]) for key in unbroken)
    assert len(list((tmp_path / "unbroken/checkpoints").iterdir())) == 2


def test_resume_without_a_checkpoint_says_so(tmp_path, write_recipe):
    with pytest.raises(FlipnetError, match="no checkpoint to resume from"):
        run_recipe(write_recipe("autoencoder", VAE), output=tmp_path / "nothing", resume=True)


def test_a_loss_that_is_not_finite_stops_the_run(tmp_path, write_recipe):
    path = write_recipe("autoencoder", VAE, steps=50)
    with pytest.raises(FlipnetError, match="non-finite at step"):
        run_recipe(path, ("optim.learning_rate=1e30", "optim.gradient_clip=1e30"), tmp_path / "run")
    assert not (tmp_path / "run/final").exists()


def test_log_has_losses_speed_and_validation(tmp_path, write_recipe):
    run_recipe(write_recipe("autoencoder", VAE, steps=3), output=tmp_path / "run")
    lines = [json.loads(line) for line in (tmp_path / "run/log.jsonl").read_text().splitlines()]
    assert [line["step"] for line in lines] == [1, 2, 3, 3]
    assert lines[0]["images_per_second"] > 0
    assert "reconstruction_psnr_db" in lines[-1]["validation"]


def test_accumulated_gradients_take_several_batches_a_step(tmp_path, write_recipe):
    path = write_recipe("autoencoder", VAE, steps=3)
    run_recipe(path, ("optim.gradient_accumulation=2",), tmp_path / "run")
    lines = [json.loads(line) for line in (tmp_path / "run/log.jsonl").read_text().splitlines()]
    assert [line["step"] for line in lines if "total" in line] == [1, 2, 3]
