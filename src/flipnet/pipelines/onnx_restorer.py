"""Restoration by an exported ONNX file: without diffusers, transformers and peft, whose imports take seconds.

Source: our choice; see docs/onnx.md and docs/speed.md.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import onnxruntime
import torch
from onnxruntime.capi import onnxruntime_pybind11_state as state
from torch import Tensor

from flipnet.pipelines.sampling import restoration_start
from flipnet.types import FlipnetError

_INVALID = (state.InvalidProtobuf, state.InvalidGraph, state.Fail, state.InvalidArgument, state.NoSuchFile)


class OnnxRestorer:
    """LQ faces in, restored faces out, float32 on the CPU; follows `flipnet.types.Restorer`.

    The same seed gives what `FaceRestorer` gives in float32, within 2 levels of 255.

    Args:
        file: written by `flipnet export MODEL --onnx FILE`.
        threads: of onnxruntime; None takes as many as torch.

    Attributes:
        native_size_px: side of the square faces.
        phi: boosting weight φ, as exported.
        steps: denoising steps, as exported.
        model_name: the file's path.
        device: "cpu".

    Raises:
        FlipnetError: the file is missing, damaged, or not one that flipnet exported.
    """

    device = "cpu"

    def __init__(self, file: str | Path, *, threads: int | None = None) -> None:
        settings = onnxruntime.SessionOptions()
        settings.intra_op_num_threads = torch.get_num_threads() if threads is None else threads
        try:
            self._session = onnxruntime.InferenceSession(
                str(file), settings, providers=["CPUExecutionProvider"]
            )
        except _INVALID as error:
            raise FlipnetError(f"{file}: cannot be loaded: {str(error).splitlines()[0]}") from error
        about = self._session.get_modelmeta().custom_metadata_map
        shapes = {entry.name: entry.shape for entry in self._session.get_inputs()}
        if shapes.keys() != {"face", "noise"} or not about.keys() >= {"phi", "steps"}:
            raise FlipnetError(f"{file}: is not a restorer that `flipnet export --onnx` wrote")
        self.native_size_px = int(shapes["face"][-1])
        self._noise_shape = tuple(shapes["noise"][1:])
        self.phi, self.steps = float(about["phi"]), int(about["steps"])
        self.model_name = str(file)

    def __call__(self, faces: Tensor, seeds: Sequence[int]) -> Tensor:
        """Map float32 (B, 3, S, S) RGB in [-1, 1] to the same shape and range; one seed per face."""
        generators = [torch.Generator().manual_seed(seed) for seed in seeds]
        noise = restoration_start(generators, self._noise_shape, torch.device("cpu"), self.steps)
        (restored,) = self._session.run(None, {"face": faces.numpy(), "noise": noise.numpy()})
        return torch.from_numpy(restored)
