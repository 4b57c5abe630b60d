"""Tiny real components: the same classes as at full size, a few thousand parameters each."""

from __future__ import annotations

import torch
from diffusers import DDIMScheduler, UNet2DConditionModel

from flipnet.models.autoencoder import CompactAutoencoder
from flipnet.models.face_encoder import FaceEncoder
from flipnet.pipelines.pipeline import FlipnetPipeline

TINY_LATENT_CHANNELS = 4


def tiny_unet(*, concatenates: bool = True) -> UNet2DConditionModel:
    return UNet2DConditionModel(
        sample_size=8,
        in_channels=TINY_LATENT_CHANNELS * (2 if concatenates else 1),
        out_channels=TINY_LATENT_CHANNELS,
        block_out_channels=(16, 32),
        layers_per_block=1,
        down_block_types=("CrossAttnDownBlock2D", "CrossAttnDownBlock2D"),
        up_block_types=("CrossAttnUpBlock2D", "CrossAttnUpBlock2D"),
        cross_attention_dim=16,
        attention_head_dim=2,
        norm_num_groups=8,
    )


def tiny_pipeline(*, rotary: bool = True, concatenates: bool = True) -> FlipnetPipeline:
    """Native size 64: 8x8 latents, 16 face tokens, random weights from a fixed seed, hubs that do something."""
    torch.manual_seed(0)
    vae = CompactAutoencoder(channels=(8, 8, 8), blocks=1, unshuffle=2, latent_channels=TINY_LATENT_CHANNELS)
    encoder = FaceEncoder(channels=(8, 8, 8), blocks=1, unshuffle=2, embedding_dim=12, input_px=32)
    scheduler = DDIMScheduler(
        beta_schedule="squaredcos_cap_v2",
        prediction_type="v_prediction",
        rescale_betas_zero_snr=True,
        timestep_spacing="trailing",
        clip_sample=False,
    )
    pipeline = FlipnetPipeline(vae, tiny_unet(concatenates=concatenates), scheduler, encoder)
    pipeline.network.add_mode("restoration", lora_rank=4, rotary=rotary, context_tokens=encoder.num_tokens)
    for parameter in pipeline.network.mode_parameters("restoration"):
        if parameter.detach().abs().sum() == 0:
            torch.nn.init.normal_(parameter, std=0.1)
    pipeline.network.eval().requires_grad_(False)
    pipeline.vae.eval().requires_grad_(False)
    return pipeline
