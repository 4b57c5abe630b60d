"""MUSIQ, MANIQA, CLIPIQA and DISTS through pyiqa, where the user installed it."""

from __future__ import annotations

import warnings
from collections.abc import Callable

import numpy as np
import torch

from flipnet.evaluation.weights import MetricUnavailableError, MetricWeights, import_optional
from flipnet.images import faces_to_tensor

LICENCE_NOTE = (
    "pyiqa is under the PolyForm Noncommercial licence and fetches its networks' weights on first use; "
    "numbers made with it are for non-commercial work only"
)


def load_pyiqa(name: str, weights: MetricWeights) -> Callable[[np.ndarray, np.ndarray | None], float]:
    """Load one of pyiqa's metrics, saying its licence aloud as a warning.

    The function measures uint8 (H, W, 3) RGB images. Raises MetricUnavailableError without pyiqa or its weights.
    """
    pyiqa = import_optional("pyiqa", "pyiqa, pip install pyiqa (PolyForm Noncommercial licence)")
    warnings.warn(LICENCE_NOTE, stacklevel=2)
    try:
        metric = pyiqa.create_metric(name, device=torch.device(weights.device))
    except (OSError, RuntimeError, ValueError) as error:
        raise MetricUnavailableError(f"pyiqa cannot load {name} ({str(error).splitlines()[0]})") from error

    def measure(image: np.ndarray, reference: np.ndarray | None) -> float:
        images = [
            faces_to_tensor(pixels).add(1).div(2) for pixels in (image, reference) if pixels is not None
        ]
        return float(metric(*images[: 2 if name == "dists" else 1]))

    return measure
