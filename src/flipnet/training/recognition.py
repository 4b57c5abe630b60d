"""A frozen face recognition network, so that a restorer is told when it makes somebody else of a face."""

from __future__ import annotations

from pathlib import Path

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file
from torch import Tensor, nn
from torch.nn import functional as F

from flipnet.types import FlipnetError

INPUT_PX = 112
MARGIN_PX = 80
"""What is cut off an aligned 512-pixel face on every side; a multiple of the VAE's 16. Our choice: between 24 and
80 px the network tells faces apart equally well, and less has to be decoded."""


class _Conv(nn.Sequential):
    """Convolution, depthwise for `groups` = channels, then PReLU for all but 1 x 1 ones."""

    def __init__(self, inputs: int, outputs: int, side: int, stride: int = 1, groups: int = 1) -> None:
        convolution = nn.Conv2d(inputs, outputs, side, stride, side // 2, groups=groups, bias=False)
        super().__init__(convolution, nn.PReLU(outputs) if side > 1 else nn.Identity())


class _Stage(nn.Module):
    """Halves the side, then adds what two depthwise convolutions find."""

    def __init__(self, inputs: int, outputs: int) -> None:
        super().__init__()
        self.down = nn.Sequential(
            _Conv(inputs, outputs, 1), _Conv(outputs, outputs, 3, stride=2, groups=outputs)
        )
        self.rest = nn.Sequential(*(_Conv(outputs, outputs, 3, groups=outputs) for _ in range(2)))

    def forward(self, x: Tensor) -> Tensor:
        x = self.down(x)
        return x + self.rest(x)


class MobileFace(nn.Module):
    """Embeds faces for recognition: the layers of MobileFace (becauseofAI, 2018, MIT), 2 MB.

    Its weights are not part of flipnet: `benchmarks/convert_mobileface.py` makes the safetensors file. Only
    training looks at it, and what is reported comes from another network (dlib's), so that no restorer is measured
    by what it was trained to please. Source: an identity loss is GFPGAN's (Wang et al., 2021); this network is our
    choice, for it can be had offline and costs next to nothing.
    """

    def __init__(self) -> None:
        super().__init__()
        self.first = _Conv(3, 32, 3, stride=2)
        self.stages = nn.Sequential(_Stage(32, 32), _Stage(32, 32), _Stage(32, 64), _Stage(64, 128))
        self.last = nn.Linear(128 * 4 * 4, 256)
        self.requires_grad_(False)

    @classmethod
    def from_file(cls, file: Path) -> MobileFace:
        """Load a safetensors file; FlipnetError names it when it cannot be read or does not fit."""
        network = cls()
        try:
            network.load_state_dict(load_file(file))
        except (OSError, SafetensorError, RuntimeError) as error:
            cause = str(error).splitlines()[0]
            raise FlipnetError(f"{file}: not the recognition network's weights: {cause}") from error
        return network

    def forward(self, faces: Tensor) -> Tensor:
        """Embed the middle of aligned faces.

        Args:
            faces: (B, 3, S, S) in [-1, 1], RGB: 512-pixel faces less `MARGIN_PX` on every side, S = 352.

        Returns:
            unit vectors (B, 256), float32.
        """
        size = (INPUT_PX, INPUT_PX)
        small = F.interpolate(faces.float(), size, mode="bilinear", antialias=True, align_corners=False)
        # Blue first, as the network was found to tell degraded faces apart best.
        features = self.stages(self.first(small.flip(1)))
        return F.normalize(self.last(features.permute(0, 2, 3, 1).flatten(1)).float())


def identity_distance(network: MobileFace, made: Tensor, truth: Tensor) -> Tensor:
    """Mean of 1 - cosine between the embeddings of two batches of faces, 0 to 2."""
    with torch.no_grad():
        wanted = network(truth)
    return 1 - (network(made) * wanted).sum(1).mean()
