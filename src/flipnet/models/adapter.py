"""What a mode adds to the base beside its hubs: LoRA on the attention projections, and Adapter tau.

Source: FLIPNET, "LoRA" and "Adapter"; the code is our choice.
"""

from __future__ import annotations

import warnings

import torch
from diffusers import UNet2DConditionModel
from peft import LoraConfig
from torch import Tensor, nn

LORA_TARGETS = ("to_q", "to_k", "to_v", "to_out.0")
SMALLEST_DEVIATION = 0.01
CONVOLUTION_TARGETS = ("conv_in", "conv1", "conv2", "conv_out")


class Adapter(nn.Module):
    """Adapter tau: projects the face embedding to the tokens that the base's cross-attention expects.

    Args:
        num_tokens, embedding_dim: N and D of the embedding.
        context_tokens, context_dim: M and C that the base expects (77 and 1024 for Stable Diffusion 2.1).
        embeds: False leaves the learned null context alone, for a mode whose training pairs are not faces.

    Attributes:
        code_dim: K of the codes that tell this mode what to make, 0 for none (see `add_code`).
        codes: with a code alone: the normalised codes of N real examples (N, K), to draw from.

    The last projection starts small, so that training starts near the null context. Source: FLIPNET,
    "Adapter"; a linear map, an MLP and a linear map along the tokens where N differs from M are our choice.
    """

    codes: Tensor
    code_mean: Tensor
    code_std: Tensor

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
        self.code_dim = 0
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

    def add_code(self, code_dim: int, time_dim: int) -> None:
        """Let codes (B, K) change the time embedding (B, T) of the base; no change before training.

        Source: our choice, the way of diffusers' class labels.
        """
        self.code_dim = code_dim
        self.code_in = nn.Linear(code_dim, time_dim)
        self.code_out = nn.Linear(time_dim, time_dim)
        nn.init.zeros_(self.code_out.weight)
        nn.init.zeros_(self.code_out.bias)
        self.register_buffer("codes", torch.zeros(0, code_dim))
        self.register_buffer("code_mean", torch.zeros(code_dim))
        self.register_buffer("code_std", torch.ones(code_dim))

    def set_codes(self, measured: Tensor) -> None:
        """Keep measured codes (N, K) to draw from; the first ones also say what normal is, N at least 2."""
        if not len(self.codes):
            self.code_mean = measured.mean(0).to(self.code_mean)
            # Something that never varies stays near zero.
            self.code_std = measured.std(0).clamp(min=SMALLEST_DEVIATION).to(self.code_std)
        self.codes = self.normalised(measured.to(self.code_mean))

    def normalised(self, measured: Tensor) -> Tensor:
        """Measured codes (B, K) in deviations from the mean of those that the mode learned from."""
        return (measured - self.code_mean) / self.code_std

    def embed_code(self, code: Tensor) -> Tensor:
        """Map normalised codes (B, K) to what is added to the time embedding, (B, T)."""
        return self.code_out(nn.functional.silu(self.code_in(code)))

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
