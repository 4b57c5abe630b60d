"""What restoring and degrading share: aligned faces in, aligned faces out, by one mode of a checkpoint."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any, ClassVar, Self

import torch
from torch import Tensor

from flipnet.pipelines.pipeline import FlipnetPipeline
from flipnet.types import FlipnetError, Mode


class FaceMapping:
    """Aligned faces in, aligned faces out, with φ and the number of steps settled.

    Attributes:
        mode: which of the network's jobs it does; set by each subclass.
        native_size_px: side of the square faces.
        phi: boosting weight φ.
        steps: denoising steps, None for the mode's own number.
        model_name: what the model was loaded by.
        device: "cpu", "cuda", ...

    Raises FlipnetError for φ < 0, fewer steps than one, and a model without the mode.
    """

    mode: ClassVar[Mode]

    def __init__(
        self,
        pipeline: FlipnetPipeline,
        *,
        phi: float,
        steps: int | None,
        model_name: str,
    ) -> None:
        if phi < 0:
            raise FlipnetError(f"phi must be at least 0, got {phi}.")
        try:
            pipeline.network.activate(self.mode.value)
        except FlipnetError as error:
            raise FlipnetError(f"{model_name}: {error}") from error
        if steps is None:
            steps = pipeline.network.default_steps[self.mode.value]
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
        own_mode_only: bool = False,
    ) -> Self:
        """Load a checkpoint by bundled name, folder or hub id.

        Args:
            device: "auto" takes CUDA, then MPS, then the CPU.
            own_mode_only: leave out the checkpoint's other modes, which starts sooner; no other mapping can then
                use its pipeline, and it cannot be saved.

        Raises FlipnetError (CheckpointError) when the model, its mode or the device cannot be had.
        """
        modes = (cls.mode.value,) if own_mode_only else None
        pipeline = FlipnetPipeline.from_pretrained(str(name_or_path), modes=modes)
        pipeline.to(_device(device))
        return cls(
            pipeline,
            phi=phi,
            steps=steps,
            model_name=str(name_or_path),
        )

    def __call__(self, faces: Tensor, seeds: Sequence[int]) -> Tensor:
        """Map float32 (B, 3, S, S) RGB in [-1, 1] to the same shape and range, on the CPU; one seed per face."""
        # Steps are cheaper with the LoRA merged (benchmarks/step_cost.py); another mapping may share the pipeline.
        self.pipeline.network.activate(self.mode.value)
        self.pipeline.network.fuse()
        output: Any = self.pipeline(
            faces,
            mode=self.mode.value,
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
