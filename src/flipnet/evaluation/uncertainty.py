"""Checking the uncertainty map of the product: several samples of faces whose truth is known."""

from __future__ import annotations

import numpy as np

from flipnet.evaluation.calibration import Calibration, calibrate, check_plotting
from flipnet.images import faces_to_tensor, tensor_to_uint8
from flipnet.pipelines.invention import SAMPLING_STEPS, FaceSampler
from flipnet.pipelines.restore import FaceRestorer


class UncertaintyCheck:
    """Restores faces as `flipnet restore --samples K --uncertainty` does, and keeps what calibration needs.

    Args:
        restorer: the model; with fewer steps than `SAMPLING_STEPS` it is given that many, as the command does.
        samples: K, at least 2.

    Attributes:
        samples: K.
        steps: denoising steps of every sample.

    Raises MetricUnavailableError without matplotlib, which the plot needs, before any work is done.
    """

    def __init__(self, restorer: FaceRestorer, samples: int) -> None:
        check_plotting()
        self.samples, self.steps = samples, max(restorer.steps, SAMPLING_STEPS)
        sampled = FaceRestorer(
            restorer.pipeline, phi=restorer.phi, steps=self.steps, model_name=restorer.model_name
        )
        self._sampler = FaceSampler(sampled, samples)
        self._found: list[tuple[np.ndarray, np.ndarray, np.ndarray]] = []

    def add(self, degraded: np.ndarray, truth: np.ndarray, seed: int) -> None:
        """Sample one face; both are uint8 (S, S, 3) RGB."""
        batch = self._sampler(faces_to_tensor(degraded), [seed])
        self._found.append((batch.findings[0].spread, tensor_to_uint8(batch.faces)[0], truth))

    def result(self) -> Calibration:
        """Return the calibration over all faces added; FlipnetError for none."""
        spreads, restored, truths = ([found[index] for found in self._found] for index in range(3))
        return calibrate(spreads, restored, truths)
