"""A mode's LoRA merged into the base's weights for inference, and taken out again without a trace."""

from __future__ import annotations

from diffusers import UNet2DConditionModel
from peft.tuners.lora import LoraLayer
from torch import Tensor


class FusedLora:
    """One LoRA merged into a UNet: the same predictions but for rounding, without LoRA's own products.

    The weights as they were are kept, so that `undo` brings back every bit; subtracting what was added would not.

    Args:
        unet: the base, with LoRA layers.
        name: of the adapter to merge.
    """

    def __init__(self, unet: UNet2DConditionModel, name: str) -> None:
        self.name = name
        self._kept: list[tuple[LoraLayer, Tensor]] = []
        for layer in unet.modules():
            if isinstance(layer, LoraLayer) and name in layer.lora_A:
                self._kept.append((layer, layer.get_base_layer().weight.detach().clone()))
                layer.merge(adapter_names=[name])

    def undo(self) -> None:
        """Put the base's weights back."""
        for layer, weight in self._kept:
            layer.unmerge()
            layer.get_base_layer().weight.data.copy_(weight)
        self._kept = []


def is_fused(unet: UNet2DConditionModel) -> bool:
    """Whether any LoRA is merged into the weights at the moment."""
    return any(layer.merged for layer in unet.modules() if isinstance(layer, LoraLayer))
