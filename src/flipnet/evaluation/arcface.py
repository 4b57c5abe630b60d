"""Identity angle ("Deg") by the ArcFace network of face-restoration papers, whose weights the user has."""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor, nn

from flipnet.data.colour import luma
from flipnet.data.filters import resize_bilinear
from flipnet.evaluation.weights import MetricWeights, fill, read_tensors

INPUT_PX = 128


class _Block(nn.Module):
    """Residual block BN-conv-BN-PReLU-conv-BN, one PReLU for the inside and the sum."""

    def __init__(self, inputs: int, outputs: int, stride: int) -> None:
        super().__init__()
        self.bn0 = nn.BatchNorm2d(inputs)
        self.conv1 = nn.Conv2d(inputs, inputs, 3, 1, 1, bias=False)
        self.bn1 = nn.BatchNorm2d(inputs)
        self.prelu = nn.PReLU()
        self.conv2 = nn.Conv2d(inputs, outputs, 3, stride, 1, bias=False)
        self.bn2 = nn.BatchNorm2d(outputs)
        self.downsample = nn.Identity() if stride == 1 else _projection(inputs, outputs, stride)

    def forward(self, x: Tensor) -> Tensor:
        inside = self.prelu(self.bn1(self.conv1(self.bn0(x))))
        return self.prelu(self.bn2(self.conv2(inside)) + self.downsample(x))


def _projection(inputs: int, outputs: int, stride: int) -> nn.Sequential:
    return nn.Sequential(nn.Conv2d(inputs, outputs, 1, stride, bias=False), nn.BatchNorm2d(outputs))


class ArcFaceNetwork(nn.Module):
    """ResNet-18 for 128-pixel gray faces; the tensors' names are those of arcface-pytorch's resnet18_110.pth."""

    def __init__(self) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(1, 64, 3, padding=1, bias=False)
        self.bn1, self.prelu, self.maxpool = nn.BatchNorm2d(64), nn.PReLU(), nn.MaxPool2d(2, 2)
        widths = (64, 64, 128, 256, 512)
        for level in range(1, 5):
            inputs, outputs = widths[level - 1], widths[level]
            stride = 1 if level == 1 else 2
            layer = nn.Sequential(_Block(inputs, outputs, stride), _Block(outputs, outputs, 1))
            setattr(self, f"layer{level}", layer)
        self.bn4, self.fc5, self.bn5 = nn.BatchNorm2d(512), nn.Linear(512 * 8 * 8, 512), nn.BatchNorm1d(512)

    @torch.no_grad()
    def forward(self, faces: Tensor) -> Tensor:
        """Map float32 (B, 1, 128, 128) in [-1, 1] to embeddings (B, 512)."""
        x = self.maxpool(self.prelu(self.bn1(self.conv1(faces))))
        for level in range(1, 5):
            x = getattr(self, f"layer{level}")(x)
        return self.bn5(self.fc5(self.bn4(x).flatten(1)))


class ArcFaceEmbedder:
    """Embeds uint8 (S, S, 3) RGB aligned faces; MetricUnavailableError when no weights are given.

    Protocol: luma, bilinear to 128x128, (y - 127.5) / 127.5, as VQFR's and GFPGAN's scripts do.
    """

    def __init__(self, weights: MetricWeights) -> None:
        path = weights.find("arcface")
        self._network = ArcFaceNetwork()
        fill(self._network, read_tensors(path), path)
        self._network.to(weights.device)
        self._device = weights.device

    def __call__(self, face: np.ndarray) -> np.ndarray:
        """Return the embedding, float64 (512,)."""
        gray = resize_bilinear(luma(face)[..., None], INPUT_PX, INPUT_PX)[..., 0]
        batch = torch.from_numpy((gray - 127.5) / 127.5)[None, None].to(self._device)
        return self._network(batch)[0].double().cpu().numpy()


def angle_deg(embedding: np.ndarray, other: np.ndarray) -> float:
    """Angle between two embeddings, degrees from 0 to 180; lower is better. Source: "Deg" of VQFR's script."""
    cosine = embedding @ other / (np.linalg.norm(embedding) * np.linalg.norm(other))
    return float(np.degrees(np.arccos(np.clip(cosine, -1, 1))))
