"""Gives a mode's LoRA more room without changing what it does, or less while changing it least."""

from __future__ import annotations

import torch
from peft.utils import get_peft_model_state_dict, set_peft_model_state_dict
from torch import Tensor

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
        raise ValueError(f"the LoRA of mode '{mode}' has rank {own.r} and is not widened to {rank}")
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


@torch.no_grad()
def narrow_lora(network: Flipnet, mode: str, rank: int) -> float:
    """Narrow a mode's LoRA to `rank`, keeping the largest directions of every layer's update.

    Returns the share of the updates' energy (squared Frobenius norm, summed over layers) that is kept, 1 where
    the LoRA is that narrow already. Source: Eckart-Young, the best approximation of that rank, layer by layer.
    """
    unet = network.unet
    own = unet.peft_config[mode]
    if own.r <= rank:
        return 1.0
    learnt = get_peft_model_state_dict(unet, adapter_name=mode)
    unet.delete_adapters(mode)
    add_lora(unet, mode, rank, convolutions="conv1" in own.target_modules)
    narrowed: dict[str, Tensor] = {}
    kept = whole = 0.0
    for name in (name for name in learnt if "lora_A" in name):
        other = name.replace("lora_A", "lora_B")
        first, second, energies = _largest_directions(learnt[name], learnt[other], rank)
        narrowed |= {name: first, other: second}
        kept, whole = kept + float(energies[:rank].sum()), whole + float(energies.sum())
    set_peft_model_state_dict(unet, narrowed, adapter_name=mode)
    network.activate(mode)
    return kept / whole if whole else 1.0


def _largest_directions(first: Tensor, second: Tensor, rank: int) -> tuple[Tensor, Tensor, Tensor]:
    """Return both matrices at a lower rank, and the energies of all directions, largest first.

    `first` is (r, inputs, ...), `second` (outputs, r, ...), with the sides of a convolution's kernel behind.
    """
    # The product itself would be large; its singular values are those of the small matrix between the two Qs.
    q_in, r_in = torch.linalg.qr(first.float().flatten(1).T)
    q_out, r_out = torch.linalg.qr(second.float().flatten(1))
    u, values, vt = torch.linalg.svd(r_out @ r_in.T)
    # A layer narrower than the rank has fewer directions; the rest of the matrices stays zero.
    count = min(rank, len(values))
    share = values[:count].sqrt()
    narrow_first = first.new_zeros(rank, q_in.shape[0])
    narrow_second = second.new_zeros(len(second), rank)
    narrow_first[:count] = (share[:, None] * vt[:count]) @ q_in.T
    narrow_second[:, :count] = (q_out @ u[:, :count]) * share
    return (
        narrow_first.reshape(-1, *first.shape[1:]),
        narrow_second.reshape(len(second), -1, *second.shape[2:]),
        values.square(),
    )
