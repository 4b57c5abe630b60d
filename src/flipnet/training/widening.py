"""Gives a mode's LoRA more room without changing what it does."""

from __future__ import annotations

import torch
from peft.utils import get_peft_model_state_dict, set_peft_model_state_dict

from flipnet.models.adapter import add_lora
from flipnet.models.flipnet import Flipnet


def widen_lora(network: Flipnet, mode: str, rank: int, convolutions: bool) -> None:
    """Widen a mode's LoRA to `rank`, on the convolutions too if asked, keeping what it has learnt.

    New rows of the first matrix are random and what they feed is zero, so predictions stay the same. Nothing
    happens where it is that wide already; a rank below its own raises ValueError. Source: our choice.
    """
    unet = network.unet
    own = unet.peft_config[mode]
    has_convolutions = "conv1" in own.target_modules
    if own.r == rank and has_convolutions >= convolutions:
        return
    if rank < own.r:
        raise ValueError(f"the LoRA of mode '{mode}' has rank {own.r} and cannot be narrowed to {rank}")
    learnt = get_peft_model_state_dict(unet, adapter_name=mode)
    unet.delete_adapters(mode)
    add_lora(unet, mode, rank, convolutions=convolutions or has_convolutions)
    widened = get_peft_model_state_dict(unet, adapter_name=mode)
    for name, tensor in learnt.items():
        # Scale is alpha / rank, and alpha is the rank: the product stays the same.
        rows, columns = tensor.shape[:2]
        wide = widened[name].clone()
        if "lora_A" in name:
            wide[:rows] = tensor
        else:
            wide[:, :columns] = tensor
        widened[name] = wide
    with torch.no_grad():
        set_peft_model_state_dict(unet, widened, adapter_name=mode)
    network.activate(mode)
