"""Several processes: what they share and what one of them alone may do."""

import json
import os
import socket
import subprocess
import sys

import pytest
import torch
from safetensors.torch import load_file

from flipnet.training import run_recipe

VAE = "channels = [8, 8]\nblocks = 1\nlatent_channels = 4\ncrop_px = 32\nlatent_noise = 0.0"
WEIGHTS = "final/diffusion_pytorch_model.safetensors"


def test_two_processes_equal_one_with_the_doubled_batch(tmp_path, write_recipe):
    # Without the latents' noise, which every process draws for itself.
    recipe = write_recipe("autoencoder", VAE, steps=3)
    run_recipe(recipe, ("optim.batch_size=4",), tmp_path / "one")
    with socket.socket() as free:
        free.bind(("", 0))
        port = str(free.getsockname()[1])
    # What `accelerate launch` calls for several GPUs.
    launcher = [sys.executable, "-m", "torch.distributed.run", "--nproc_per_node", "2", "--master_port", port]
    command = [*launcher, "-m", "flipnet", "train", str(recipe), "-o", str(tmp_path / "two")]
    environment = os.environ | {"OMP_NUM_THREADS": "1", "ACCELERATE_USE_CPU": "true"}
    done = subprocess.run(command, capture_output=True, text=True, env=environment, check=False)
    assert done.returncode == 0, done.stderr
    assert done.stdout.count("reconstruction_psnr_db") == 1  # the main process alone prints
    one, two = (
        [json.loads(line) for line in (tmp_path / run / "log.jsonl").read_text().splitlines()]
        for run in ("one", "two")
    )
    assert [line["step"] for line in two] == [line["step"] for line in one]  # and writes
    for ours, theirs in zip(one[:-1], two[:-1], strict=True):
        assert theirs["total"] == pytest.approx(ours["total"], rel=1e-5)
    first, second = load_file(tmp_path / "one" / WEIGHTS), load_file(tmp_path / "two" / WEIGHTS)
    for key in first:
        torch.testing.assert_close(second[key], first[key], rtol=1e-3, atol=1e-5)
