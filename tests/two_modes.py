"""The tiny pipeline of `tiny`, with the degradation mode beside restoration."""

from __future__ import annotations

import torch

from flipnet.pipelines.pipeline import FlipnetPipeline
from tiny import tiny_pipeline


def two_mode_pipeline() -> FlipnetPipeline:
    """The tiny pipeline with a degradation mode whose weights do something."""
    pipeline = tiny_pipeline()
    pipeline.network.add_mode("degradation", lora_rank=4, rotary=True, context_tokens=16, embeds=False)
    torch.manual_seed(1)
    for parameter in pipeline.network.mode_parameters("degradation"):
        if parameter.detach().abs().sum() == 0:
            torch.nn.init.normal_(parameter, std=0.1)
    pipeline.network.eval().requires_grad_(False)
    pipeline.precision = "no"
    return pipeline
