"""What a mode adds to the base beside its hubs: LoRA on the attention projections, and Adapter tau.

Source: FLIPNET, "LoRA" and "Adapter".
"""

from __future__ import annotations

import warnings

import torch
from diffusers import UNet2DConditionModel
from peft import LoraConfig
from torch import Tensor, nn

LORA_TARGETS = ("to_q", "to_k", "to_v", "to_out.0")
CONVOLUTION_TARGETS = ("conv_in", "conv1", "conv2", "conv_out")


class Adapter(nn.Module):
    """Adapter tau: projects the face embedding to the tokens that the base's cross-attention expects.

    Args:
        num_tokens, embedding_dim: N and D of the embedding.
        context_tokens, context_dim: M and C that the base expects (77 and 1024 for Stable Diffusion 2.1).
        embeds: False leaves the learned null context alone, for a mode whose training pairs are not faces.

    The last projection starts small, so that training starts near the null context. Source: FLIPNET,
    "Adapter"; a linear map, an MLP and a linear map along the tokens where N differs from M are our choice.
    """

    def __init__(
        self,
        num_tokens: int,
        embedding_dim: int,
        context_tokens: int,
        context_dim: int,
        *,
        embeds: bool = True,
    ) -> None:
        super().__init__()
        self.embeds = embeds
        self.null = nn.Parameter(torch.zeros(context_tokens, context_dim))
        if not embeds:
            return
        self.norm = nn.LayerNorm(embedding_dim)
        self.tau_in = nn.Linear(embedding_dim, context_dim)
        self.tau_out = nn.Linear(context_dim, context_dim)
        self.position = nn.Parameter(torch.zeros(num_tokens, context_dim))
        self.resample = (
            nn.Linear(num_tokens, context_tokens) if num_tokens != context_tokens else nn.Identity()
        )
        nn.init.normal_(self.tau_out.weight, std=0.02)

    def forward(self, embedding: Tensor) -> Tensor:
        """Map (B, N, D) to context tokens (B, M, C)."""
        x = self.tau_in(self.norm(embedding)) + self.position
        x = self.tau_out(nn.functional.silu(x))
        return self.resample(x.transpose(1, 2)).transpose(1, 2)

    def null_tokens(self, batch: int) -> Tensor:
        """Return the learned context (B, M, C) that stands for "no condition"."""
        return self.null.expand(batch, -1, -1)


def add_lora(unet: UNet2DConditionModel, adapter: str, rank: int, *, convolutions: bool = False) -> None:
    """Add a named LoRA of the given rank to every self- and cross-attention projection (output zero at first).

    `convolutions` adds the base's convolutions too (our choice for the compact degradation mode: the texture of
    noise and compression is made where the compact base has no attention).
    """
    targets = [*LORA_TARGETS, *(CONVOLUTION_TARGETS if convolutions else ())]
    with warnings.catch_warnings():
        # Several adapters on one base are what the modes are.
        warnings.filterwarnings("ignore", message="Already found a `peft_config`")
        unet.add_adapter(
            LoraConfig(r=rank, lora_alpha=rank, init_lora_weights="gaussian", target_modules=targets),
            adapter_name=adapter,
        )
