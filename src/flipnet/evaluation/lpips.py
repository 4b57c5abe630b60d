"""LPIPS: perceptual distance by the features of an image classifier.

The classifier's weights come from torchvision's file, its graph is written out here, and the learned weights of the
channels come from torchmetrics (or lpips), so that torchvision itself is not needed.
"""

from __future__ import annotations

import importlib.util
from pathlib import Path

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from flipnet.evaluation.weights import MetricUnavailableError, MetricWeights, fill, read_tensors
from flipnet.images import faces_to_tensor

_SHIFT = torch.tensor([-0.030, -0.088, -0.188]).view(1, 3, 1, 1)
_SCALE = torch.tensor([0.458, 0.448, 0.450]).view(1, 3, 1, 1)

# Layers as in torchvision's `features`: a convolution's (channels, kernel, stride, padding), "pool", or "tap" where
# LPIPS looks.
_Layer = tuple[int, int, int, int] | str


def _vgg_layers() -> list[_Layer]:
    layers: list[_Layer] = []
    for width, count in ((64, 2), (128, 2), (256, 3), (512, 3), (512, 3)):
        layers += [*[(width, 3, 1, 1)] * count, "tap", "pool"]
    return layers[:-1]


_ALEX_LAYERS: list[_Layer] = [
    (64, 11, 4, 2), "tap", "pool", (192, 5, 1, 2), "tap", "pool", (384, 3, 1, 1), "tap", (256, 3, 1, 1), "tap",
    (256, 3, 1, 1), "tap",
]  # fmt: skip

LAYERS = {"vgg": _vgg_layers(), "alex": _ALEX_LAYERS}
CACHED = {"vgg": "vgg16-397923af.pth", "alex": "alexnet-owt-7be5be79.pth"}
_POOL = {"vgg": 2, "alex": 3}


class Lpips(nn.Module):
    """Learned perceptual image patch similarity, version 0.1.

    Args:
        kind: "vgg" (what face-restoration tables use) or "alex".

    Source: Zhang et al. 2018, and their package lpips; torchvision's names of the tensors.
    """

    def __init__(self, kind: str) -> None:
        super().__init__()
        self.kind = kind
        features: list[nn.Module] = []
        self.taps: list[int] = []
        widths: list[int] = []
        channels = 3
        for layer in LAYERS[kind]:
            if isinstance(layer, tuple):
                features += [nn.Conv2d(channels, *layer), nn.ReLU()]
                channels = layer[0]
            elif layer == "pool":
                features.append(nn.MaxPool2d(_POOL[kind], 2))
            else:
                self.taps.append(len(features) - 1)
                widths.append(channels)
        self.features = nn.Sequential(*features)
        self.heads = nn.ParameterList(torch.ones(1, width, 1, 1) / width for width in widths)

    @torch.no_grad()
    def forward(self, image: Tensor, reference: Tensor) -> Tensor:
        """Distances (B,) of float32 (B, 3, H, W) RGB in [-1, 1]; lower is better, 0 for equal images."""
        total = image.new_zeros(len(image))
        pairs = zip(self._tapped(image), self._tapped(reference), self.heads, strict=True)
        for x, y, head in pairs:
            difference = (F.normalize(x, eps=1e-10) - F.normalize(y, eps=1e-10)) ** 2
            total += (difference * head).sum(1).mean((1, 2))
        return total

    def _tapped(self, image: Tensor) -> list[Tensor]:
        x = (image - _SHIFT.to(image)) / _SCALE.to(image)
        found = []
        for index, layer in enumerate(self.features):
            x = layer(x)
            if index in self.taps:
                found.append(x)
        return found


def load_lpips(kind: str, weights: MetricWeights) -> Lpips:
    """Load backbone and heads; MetricUnavailableError says what is missing."""
    backbone = weights.find_backbone(f"lpips-{kind}", CACHED[kind])
    heads_file = _heads_file(kind)
    heads = read_tensors(heads_file)
    tensors = read_tensors(backbone)
    tensors |= {f"heads.{index}": heads[f"lin{index}.model.1.weight"] for index in range(5)}
    network = Lpips(kind)
    fill(network, tensors, backbone)
    return network.to(weights.device)


def _heads_file(kind: str) -> Path:
    for package, inside in (
        ("torchmetrics", f"functional/image/lpips_models/{kind}.pth"),
        ("lpips", f"weights/v0.1/{kind}.pth"),
    ):
        # Found as files: importing either package would load torchvision.
        spec = importlib.util.find_spec(package)
        for folder in (spec.submodule_search_locations if spec else None) or ():
            if (Path(folder) / inside).is_file():
                return Path(folder) / inside
    raise MetricUnavailableError("needs the package torchmetrics: pip install 'flipnet[evaluation]'")


def lpips_distance(network: Lpips, image: np.ndarray, reference: np.ndarray) -> float:
    """LPIPS of two uint8 (H, W, 3) RGB images. Lower is better; unitless, from 0, rarely above 1.

    Protocol: RGB in [-1, 1], whole image, spatial mean per layer, sum of five layers. Tables that fed BGR or
    [0, 1] are not comparable.
    """
    device = next(network.parameters()).device
    pair = [faces_to_tensor(pixels).to(device) for pixels in (image, reference)]
    return float(network(*pair)[0])
