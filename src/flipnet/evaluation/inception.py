"""Inception features for FID and KID, by torch-fidelity's network with weights from a local file."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import torch

from flipnet.evaluation.weights import MetricWeights, import_optional, read_tensors
from flipnet.types import FlipnetError


class InceptionFeatures:
    """The 2048 pooled features of the TensorFlow Inception that FID is defined on.

    Protocol: RGB, resized to 299x299 inside the network as torch-fidelity does ("inception-v3-compat").
    Raises MetricUnavailableError without torch-fidelity or the weights file; nothing is downloaded.
    """

    def __init__(self, weights: MetricWeights) -> None:
        path = weights.find("inception")
        # torch-fidelity unpickles whatever the file holds; it gets to see it only if that is tensors alone.
        read_tensors(path)
        module = import_optional("torch_fidelity.feature_extractor_inceptionv3", "torch-fidelity")
        self._network = module.FeatureExtractorInceptionV3(
            "inception-v3-compat", ["2048"], feature_extractor_weights_path=str(path)
        ).to(weights.device)
        self._device = weights.device

    @torch.no_grad()
    def __call__(self, image: np.ndarray) -> np.ndarray:
        """Return the features, float64 (2048,), of a uint8 (H, W, 3) RGB image."""
        batch = torch.from_numpy(image).permute(2, 0, 1)[None].contiguous().to(self._device)
        return self._network(batch)[0][0].double().cpu().numpy()


def read_statistics(path: Path) -> tuple[np.ndarray, np.ndarray]:
    """Read saved mean (d,) and covariance (d, d) of a reference set from pytorch-fid's .npz ("mu", "sigma").

    Raises FlipnetError naming a file that is missing or no such statistics.
    """
    try:
        with np.load(path, allow_pickle=False) as stored:
            mean, covariance = stored["mu"], stored["sigma"]
    except (OSError, KeyError, ValueError) as error:
        raise FlipnetError(f"{path}: cannot be read as FID statistics ({error})") from error
    if covariance.shape != (len(mean), len(mean)):
        raise FlipnetError(f"{path}: mean {mean.shape} and covariance {covariance.shape} do not fit")
    return mean.astype(np.float64), covariance.astype(np.float64)
