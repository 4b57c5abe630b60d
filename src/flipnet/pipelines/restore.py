"""Restoration as a `Restorer`: what the photo path, the CLI and the benchmark call."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from flipnet.pipelines.pipeline import DEFAULT_STEPS, FlipnetPipeline
from flipnet.types import FlipnetError, Mode


class FaceRestorer:
    """Aligned faces in, restored faces out, with φ and the number of steps settled.

    Attributes:
        native_size_px: side of the square faces.
        phi: boosting weight φ.
        steps: denoising steps.
        model_name: what the model was loaded by.
        device: "cpu", "cuda", ...
    """

    def __init__(self, pipeline: FlipnetPipeline, *, phi: float, steps: int, model_name: str) -> None:
        if phi < 0:
            raise FlipnetError(f"phi must be at least 0, got {phi}.")
        if steps < 1:
            raise FlipnetError(f"steps must be at least 1, got {steps}.")
        self.pipeline, self.phi, self.steps, self.model_name = pipeline, phi, steps, model_name
        self.native_size_px = pipeline.native_size_px
        self.device = str(pipeline.device)

    @classmethod
    def from_checkpoint(
        cls,
        name_or_path: str | Path = "compact",
        *,
        phi: float = 1.0,
        steps: int | None = None,
        device: str = "auto",
    ) -> FaceRestorer:
        """Load a checkpoint by bundled name, folder or hub id.

        Args:
            device: "auto" takes CUDA, then MPS, then the CPU.

        Raises FlipnetError (CheckpointError) when the model or the device cannot be had.
        """
        pipeline = FlipnetPipeline.from_pretrained(str(name_or_path))
        pipeline.to(_device(device))
        return cls(pipeline, phi=phi, steps=steps or DEFAULT_STEPS, model_name=str(name_or_path))

    def __call__(self, faces: Tensor, seeds: Sequence[int]) -> Tensor:
        """Restore float32 (B, 3, S, S) RGB in [-1, 1]; one seed per face."""
        output: Any = self.pipeline(
            faces,
            mode=Mode.RESTORATION.value,
            phi=self.phi,
            num_inference_steps=self.steps,
            generator=[torch.Generator().manual_seed(seed) for seed in seeds],
            output_type="pt",
        )
        return output.images.cpu()


def _device(name: str) -> torch.device:
    if name == "auto":
        if torch.cuda.is_available():
            return torch.device("cuda")
        return torch.device("mps" if torch.backends.mps.is_available() else "cpu")
    try:
        device = torch.device(name)
        torch.empty(0, device=device)
    except (RuntimeError, AssertionError) as error:
        raise FlipnetError(f"Device '{name}' cannot be used: {str(error).splitlines()[0]}") from error
    return device
