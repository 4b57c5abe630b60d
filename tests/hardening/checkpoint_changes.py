"""Ways to spoil a checkpoint folder, and the sentence that refuses it."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from command_line import is_one_sentence
from safetensors import safe_open
from safetensors.torch import load_file, save_file

from flipnet.pipelines.pipeline import FlipnetPipeline
from flipnet.types import FlipnetError

UNET = "unet/diffusion_pytorch_model.safetensors"
VAE = "vae/diffusion_pytorch_model.safetensors"
FACES = "face_encoder/diffusion_pytorch_model.safetensors"
MODE = "modes/restoration.safetensors"
WEIGHTS = (UNET, VAE, FACES, MODE)


def refusal(folder: Path) -> str:
    """The one sentence that loading the folder ends with."""
    with pytest.raises(FlipnetError) as caught:
        FlipnetPipeline.from_pretrained(folder)
    sentence = str(caught.value)
    assert is_one_sentence(sentence), sentence
    assert str(folder) in sentence
    return sentence


def change_tensors(file: Path, change: Callable[[dict[str, torch.Tensor]], object]) -> str:
    """Rewrite a safetensors file with `change` applied to its tensors; return the first key."""
    with safe_open(file, "pt") as opened:
        metadata = opened.metadata()
    tensors = load_file(file)
    first = min(tensors)
    change(tensors)
    save_file(tensors, file, metadata)
    return first


def change_json(file: Path, **values: object) -> None:
    file.write_text(json.dumps(json.loads(file.read_text()) | values))
