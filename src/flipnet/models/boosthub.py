"""BoostHub: cross-attention from the target's features to the condition's, beside every self-attention layer.

    F_ro    = W_O · softmax(Q_x K_yᵀ / √d) V_y      Q_x = W_Q F_x,  K_y = W_K F_y,  V_y = W_V F_y
    F_joint = SelfAttn(F_x) + φ · F_ro                              (FLIPNET, "BoostHub")

The condition passes through the same UNet once, recording F_y at every self-attention layer; the record is
then handed to every denoising step. Nothing is kept on the modules, so one network can serve several images
at a time.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, field
from typing import Any

import torch
from diffusers import UNet2DConditionModel
from diffusers.models.attention_processor import Attention, AttnProcessor2_0
from torch import Tensor, nn
from torch.nn import functional as F


@dataclass
class ConditionFeatures:
    """F_y of every self-attention layer, and K_y, V_y once a hub has projected them.

    Attributes:
        recording: True during the condition pass, which fills `states`.
        phi: boosting weight φ, a number or a tensor (B, 1, 1); 0 ignores the condition.
        states: layer name -> F_y, (B, N, C).
        projected: layer name -> (K_y, V_y), filled only where no gradient is wanted.
    """

    recording: bool = False
    phi: float | Tensor = 1.0
    states: dict[str, Tensor] = field(default_factory=dict)
    projected: dict[str, tuple[Tensor, Tensor]] = field(default_factory=dict)

    def with_phi(self, phi: float | Tensor) -> ConditionFeatures:
        """Return the same features under another φ."""
        return ConditionFeatures(False, phi, self.states, self.projected)


class BoostHub(nn.Module):
    """One hub: Q from the target, K and V from the condition, zero-initialised output projection.

    Args:
        channels: width C of the layer.
        heads: attention heads, as in the self-attention beside it.
        rotary: 2-D rotary positions on Q and K; with the constant biases and small weights it starts as a local
            kernel, "look at the same place" (our choice: measured in docs/training-log.md).
    """

    def __init__(self, channels: int, heads: int, rotary: bool) -> None:
        super().__init__()
        self.heads, self.rotary = heads, rotary
        self.hub_q = nn.Linear(channels, channels, bias=rotary)
        self.hub_k = nn.Linear(channels, channels, bias=rotary)
        self.hub_v = nn.Linear(channels, channels, bias=False)
        self.hub_out = nn.Linear(channels, channels)
        nn.init.zeros_(self.hub_out.weight)
        nn.init.zeros_(self.hub_out.bias)
        if rotary:
            for projection in (self.hub_q, self.hub_k):
                nn.init.normal_(projection.weight, std=0.2 / math.sqrt(channels))
                nn.init.constant_(projection.bias, 1.2)

    def project_condition(self, condition: Tensor) -> tuple[Tensor, Tensor]:
        """Map F_y (B, N, C) to K_y and V_y, each (B, heads, N, C / heads)."""
        key, value = self._split(self.hub_k(condition)), self._split(self.hub_v(condition))
        return (rotate_2d(key) if self.rotary else key), value

    def forward(self, target: Tensor, key: Tensor, value: Tensor) -> Tensor:
        """Map F_x (B, N, C) and the projected condition to F_ro (B, N, C)."""
        query = self._split(self.hub_q(target))
        if self.rotary:
            query = rotate_2d(query)
        attended = F.scaled_dot_product_attention(query, key.to(query.dtype), value.to(query.dtype))
        return self.hub_out(attended.transpose(1, 2).flatten(2))

    def _split(self, x: Tensor) -> Tensor:
        batch, tokens, channels = x.shape
        return x.view(batch, tokens, self.heads, channels // self.heads).transpose(1, 2)


def rotate_2d(x: Tensor) -> Tensor:
    """Rotary embedding over a square token grid: (B, heads, N, D), N a square, D a multiple of 4.

    The first half of the channels turns with the row, the second with the column; frequencies fall
    geometrically from π/2 to π/(2·side) per token. Source: our choice, RoPE applied per axis.
    """
    tokens, dim = x.shape[-2:]
    side = math.isqrt(tokens)
    if side * side != tokens or dim % 4:
        raise ValueError(
            f"rotary positions need a square grid and 4 | head width, got {tokens} tokens x {dim}"
        )
    pairs = dim // 4
    exponent = torch.arange(pairs, device=x.device, dtype=torch.float32) / max(1, pairs - 1)
    frequency = math.pi / 2 * float(side) ** -exponent
    angle = torch.arange(side, device=x.device, dtype=torch.float32)[:, None] * frequency
    rows = angle[:, None, :].expand(side, side, pairs)
    columns = angle[None, :, :].expand(side, side, pairs)
    angles = torch.cat([rows, columns], dim=-1).reshape(tokens, dim // 2)
    cos, sin = angles.cos().to(x.dtype), angles.sin().to(x.dtype)
    a, b = x.chunk(2, dim=-1)
    return torch.cat([a * cos - b * sin, a * sin + b * cos], dim=-1)


class BoostHubProcessor(nn.Module):
    """Attention processor of a self-attention layer: SDPA self-attention plus φ times the active hub.

    Holds one hub per named adapter; without a condition, or while recording one, it is plain self-attention.
    """

    def __init__(self, layer: str) -> None:
        super().__init__()
        self.layer = layer
        self.hubs = nn.ModuleDict()
        self.active: str | None = None
        self._self_attention = AttnProcessor2_0()

    def __call__(
        self,
        attn: Attention,
        hidden_states: Tensor,
        encoder_hidden_states: Tensor | None = None,
        attention_mask: Tensor | None = None,
        temb: Tensor | None = None,
        condition: ConditionFeatures | None = None,
    ) -> Tensor:
        """Self-attention on (B, N, C), recording or adding the condition."""
        attended = self._self_attention(attn, hidden_states, encoder_hidden_states, attention_mask, temb)
        if condition is None:
            return attended
        if condition.recording:
            condition.states[self.layer] = hidden_states
            return attended
        if self.active is None:
            return attended
        hub = self.hubs[self.active]
        return attended + condition.phi * hub(hidden_states, *self._projected(hub, condition))

    def _projected(self, hub: Any, condition: ConditionFeatures) -> tuple[Tensor, Tensor]:
        if torch.is_grad_enabled():
            return hub.project_condition(condition.states[self.layer])
        if self.layer not in condition.projected:
            condition.projected[self.layer] = hub.project_condition(condition.states[self.layer])
        return condition.projected[self.layer]


class TokenAttentionProcessor(AttnProcessor2_0):
    """Cross-attention to the face tokens; takes, and has no use for, the condition features."""

    def __call__(
        self,
        attn: Attention,
        hidden_states: Tensor,
        encoder_hidden_states: Tensor | None = None,
        attention_mask: Tensor | None = None,
        temb: Tensor | None = None,
        condition: ConditionFeatures | None = None,
    ) -> Tensor:
        """Plain SDPA attention, (B, N, C) -> (B, N, C)."""
        return super().__call__(attn, hidden_states, encoder_hidden_states, attention_mask, temb)


def install_hub_processors(unet: UNet2DConditionModel) -> dict[str, BoostHubProcessor]:
    """Put hub processors on every self-attention layer and return them by layer name; idempotent.

    The UNet computes what it did before until a hub is added and made active.
    """
    processors: dict[str, Any] = {}
    for name, old in unet.attn_processors.items():
        if not name.endswith("attn1.processor"):
            processors[name] = TokenAttentionProcessor()
        else:
            layer = name.removesuffix(".processor")
            processors[name] = old if isinstance(old, BoostHubProcessor) else BoostHubProcessor(layer)
    unet.set_attn_processor(dict(processors))
    return hub_processors(unet)


def hub_processors(unet: UNet2DConditionModel) -> dict[str, BoostHubProcessor]:
    """Return the hub processors by layer name."""
    return {
        processor.layer: processor
        for processor in unet.attn_processors.values()
        if isinstance(processor, BoostHubProcessor)
    }


def add_hubs(unet: UNet2DConditionModel, adapter: str, *, rotary: bool) -> None:
    """Add a named hub beside every self-attention layer (W_O zero, so nothing changes yet)."""
    for layer, processor in install_hub_processors(unet).items():
        attention = unet.get_submodule(layer)
        processor.hubs[adapter] = BoostHub(attention.query_dim, attention.heads, rotary)


def activate_hubs(unet: UNet2DConditionModel, adapter: str | None) -> None:
    """Make the named hubs the ones in use, None for none."""
    for processor in hub_processors(unet).values():
        if adapter is not None and adapter not in processor.hubs:
            raise ValueError(f"no hub named '{adapter}', there are {sorted(processor.hubs)}")
        processor.active = adapter
