"""The engine as a whole: signals, resuming, what a bad loss leaves behind."""

import json
import os
import signal
import subprocess
import sys
import time
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from safetensors import safe_open
from safetensors.torch import load_file

from flipnet.config import load_recipe
from flipnet.training import autoencoder, run_recipe
from flipnet.training.loop import train
from flipnet.training.stopping import TrainingStoppedError
from flipnet.types import FlipnetError

VAE = "channels = [8, 8]\nblocks = 1\nlatent_channels = 4\ncrop_px = 32"
WEIGHTS = "final/diffusion_pytorch_model.safetensors"
ENVIRONMENT = os.environ | {"OMP_NUM_THREADS": "1", "ACCELERATE_USE_CPU": "true"}


def read_log(output: Path) -> list[dict]:
    return [json.loads(line) for line in (output / "log.jsonl").read_text().splitlines()]


def assert_same_weights(one: Path, other: Path) -> None:
    first, second = load_file(one / WEIGHTS), load_file(other / WEIGHTS)
    assert first.keys() == second.keys()
    assert [key for key in first if not torch.equal(first[key], second[key])] == []


def test_sigterm_saves_a_checkpoint_and_the_resumed_run_equals_an_unbroken_one(tmp_path, write_recipe):
    recipe = write_recipe("autoencoder", VAE, steps=30)
    run_recipe(recipe, output=tmp_path / "unbroken")
    output = tmp_path / "broken"
    command = [sys.executable, "-m", "flipnet", "train", str(recipe), "-o", str(output)]
    with subprocess.Popen(command, stderr=subprocess.PIPE, env=ENVIRONMENT) as process:
        give_up = time.monotonic() + 100
        log = output / "log.jsonl"
        while not (log.exists() and log.read_text().count("\n") >= 3) and time.monotonic() < give_up:
            assert process.poll() is None, process.stderr.read().decode()
            time.sleep(0.02)
        process.send_signal(signal.SIGTERM)
        _, err = process.communicate(timeout=60)
    assert process.returncode == 143
    assert b"Traceback" not in err
    last = err.decode().splitlines()[-1]
    assert last.startswith("flipnet: stopped by a signal after step ")
    assert last.endswith("go on with --resume.")
    stopped = int(last.split("after step ")[1].split(",")[0])
    assert 3 <= stopped < 30
    assert [path.name for path in (output / "checkpoints").iterdir()] == [f"step-{stopped:08d}"]
    assert not (output / "final").exists()

    run_recipe(recipe, output=output, resume=True)
    assert_same_weights(tmp_path / "unbroken", output)
    unbroken, resumed = read_log(tmp_path / "unbroken"), read_log(output)
    assert [line["step"] for line in resumed] == [line["step"] for line in unbroken]
    assert [line.get("total") for line in resumed] == [line.get("total") for line in unbroken]


def test_ctrl_c_stops_a_run_the_same_way(tmp_path, write_recipe):
    recipe = load_recipe(write_recipe("autoencoder", VAE, steps=30))
    stage = autoencoder.build(recipe)
    before = signal.getsignal(signal.SIGINT)

    def interrupted(start):
        for number, batch in enumerate(stage.batches(start)):
            if number == 3:
                signal.raise_signal(signal.SIGINT)
            yield batch

    with pytest.raises(TrainingStoppedError, match="stopped by a signal after step 5") as caught:
        train(recipe, replace(stage, batches=interrupted), tmp_path / "run")
    assert caught.value.exit_code == 130
    assert [path.name for path in (tmp_path / "run/checkpoints").iterdir()] == ["step-00000005"]
    assert signal.getsignal(signal.SIGINT) is before


def test_the_batch_of_a_loss_that_is_not_finite_is_kept(tmp_path, write_recipe):
    path = write_recipe("autoencoder", VAE, steps=50)
    overrides = ("optim.learning_rate=1e30", "optim.gradient_clip=1e30", "optim.gradient_accumulation=2")
    with pytest.raises(FlipnetError, match=r"non-finite at step \d+ \(total .*its batch is in ") as caught:
        run_recipe(path, overrides, tmp_path / "run")
    (file,) = (tmp_path / "run/non_finite").iterdir()
    assert str(file) in str(caught.value)
    with safe_open(file, "pt") as opened:
        losses = json.loads(opened.metadata()["losses"])
        assert f"at step {opened.metadata()['step']} " in str(caught.value)
        assert sorted(opened.keys()) == ["0.image", "1.image"]
        assert opened.get_tensor("0.image").shape == (2, 3, 32, 32)
    assert any(not torch.tensor(each["total"]).isfinite() for each in losses)
    assert not (tmp_path / "run/checkpoints").exists()


def test_a_checkpoint_holds_what_is_trained_alone(tmp_path, write_recipe):
    table = VAE + '\nstart_from = "{}"\nfreeze_encoder = true'
    run_recipe(write_recipe("autoencoder", VAE), output=tmp_path / "first")
    second = write_recipe("autoencoder", table.format(tmp_path / "first/final"))
    run_recipe(second, output=tmp_path / "second")
    (folder,) = (tmp_path / "second/checkpoints").iterdir()
    assert all(key.startswith("vae.decoder.") for key in load_file(folder / "model.safetensors"))


def test_resuming_goes_on_in_the_middle_of_accumulated_gradients_and_workers(tmp_path, write_recipe):
    path = write_recipe("autoencoder", VAE, steps=4, checkpoint_minutes=1e-9, checkpoints_total_limit=9)
    overrides = ("optim.gradient_accumulation=2", "run.workers=1")
    run_recipe(path, overrides, tmp_path / "unbroken")
    (tmp_path / "again/checkpoints").mkdir(parents=True)
    early = sorted((tmp_path / "unbroken/checkpoints").iterdir())[0]
    assert early.name < "step-00000004"
    early.rename(tmp_path / "again/checkpoints" / early.name)
    run_recipe(path, overrides, tmp_path / "again", resume=True)
    assert_same_weights(tmp_path / "unbroken", tmp_path / "again")


@pytest.mark.parametrize(
    ("override", "message"),
    [
        ("run.tracker=wandb", "run.tracker: wandb is not installed: pip install wandb"),
        ("optim.optimizer=adamw8bit", "needs bitsandbytes, which is not installed: pip install"),
        ("run.precision=fp16", "run.precision: fp16 needs a GPU"),
        ("run.gradient_checkpointing=true", "run.gradient_checkpointing: no model of this stage supports it"),
    ],
)
def test_what_cannot_be_had_is_one_sentence(tmp_path, write_recipe, monkeypatch, override, message):
    for name in ("wandb", "bitsandbytes"):
        monkeypatch.setitem(sys.modules, name, None)
    with pytest.raises(FlipnetError, match=message.replace("(", r"\(")) as caught:
        run_recipe(write_recipe("autoencoder", VAE), (override,), tmp_path / "run")
    assert "\n" not in str(caught.value)
