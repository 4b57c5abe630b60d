from __future__ import annotations

import shutil
from pathlib import Path

import pytest
import torch
from diffusers import UNet2DConditionModel

from flipnet.pipelines.pipeline import FlipnetPipeline
from tiny import TINY_LATENT_CHANNELS, tiny_pipeline


@pytest.fixture(scope="session", autouse=True)
def one_thread():
    torch.set_num_threads(1)


@pytest.fixture(scope="session")
def tiny_checkpoint(tmp_path_factory) -> Path:
    """The tiny pipeline with a UNet of one level: hundreds of files go through it, and none asks for beauty."""
    tiny = tiny_pipeline()
    torch.manual_seed(1)
    unet = UNet2DConditionModel(
        sample_size=8,
        in_channels=2 * TINY_LATENT_CHANNELS,
        out_channels=TINY_LATENT_CHANNELS,
        block_out_channels=(16,),
        layers_per_block=1,
        down_block_types=("CrossAttnDownBlock2D",),
        up_block_types=("CrossAttnUpBlock2D",),
        cross_attention_dim=16,
        attention_head_dim=2,
        norm_num_groups=8,
    )
    pipeline = FlipnetPipeline(tiny.vae, unet, tiny.scheduler, tiny.network.face_encoder)
    tokens = pipeline.network.face_encoder.num_tokens
    pipeline.network.add_mode("restoration", lora_rank=4, rotary=True, context_tokens=tokens)
    for parameter in pipeline.network.mode_parameters("restoration"):
        if parameter.detach().abs().sum() == 0:
            torch.nn.init.normal_(parameter, std=0.1)
    folder = tmp_path_factory.mktemp("checkpoints") / "tiny"
    pipeline.save_pretrained(folder)
    return folder


@pytest.fixture
def folder(tmp_path, tiny_checkpoint) -> Path:
    """A good checkpoint to be spoilt."""
    return shutil.copytree(tiny_checkpoint, tmp_path / "model")
