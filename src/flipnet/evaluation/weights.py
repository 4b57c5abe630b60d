"""Networks that metrics borrow: given by path, never downloaded, left out with a reason when absent."""

from __future__ import annotations

import importlib
import pickle
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, TypeVar

import safetensors
import torch
from safetensors.torch import load_file
from torch import Tensor

from flipnet.types import FlipnetError

T = TypeVar("T")


class MetricUnavailableError(FlipnetError):
    """A metric cannot be measured here; the message says what is missing and how to get it."""


WEIGHT_FILES = {
    "niqe": "BasicSR's niqe_pris_params.npz, or one fitted by benchmarks/fit_niqe.py",
    "lpips-vgg": "torchvision's vgg16-397923af.pth",
    "lpips-alex": "torchvision's alexnet-owt-7be5be79.pth",
    "inception": "torch-fidelity's weights-inception-2015-12-05-6726825d.pth",
    "arcface": "arcface-pytorch's resnet18_110.pth",
    "landmarks": "dlib's shape_predictor_68_face_landmarks.dat, or a heat-map network as .onnx",
}
"""What `--weights NAME=FILE` takes, by name."""


@dataclass(frozen=True)
class MetricWeights:
    """Files of metrics' networks, and where these run.

    Attributes:
        paths: file by name, names as in `WEIGHT_FILES`.
        device: torch device of the networks.
        loaded: what `share` loaded so far.
        used: the files that were asked for and found, by name.

    Raises FlipnetError for a name that is none and a file that does not exist.
    """

    paths: Mapping[str, Path] = field(default_factory=dict)
    device: str = "cpu"
    loaded: dict[str, Any] = field(default_factory=dict, repr=False, compare=False)
    used: dict[str, Path] = field(default_factory=dict, repr=False, compare=False)

    def __post_init__(self) -> None:
        for name, path in self.paths.items():
            if name not in WEIGHT_FILES:
                raise FlipnetError(f"--weights {name}={path}: names are {', '.join(WEIGHT_FILES)}")
            if not path.is_file():
                raise FlipnetError(f"--weights {name}={path}: no such file")

    def find(self, name: str, otherwise: Path | None = None) -> Path:
        """Return the file given for `name`, or `otherwise`; MetricUnavailableError says which file is wanted."""
        path = self.paths.get(name, otherwise)
        if path is None:
            raise MetricUnavailableError(f"needs --weights {name}=FILE ({WEIGHT_FILES[name]})")
        self.used[name] = path
        return path

    def share(self, name: str, load: Callable[[], T]) -> T:
        """Load something once for all metrics that need it."""
        if name not in self.loaded:
            self.loaded[name] = load()
        return self.loaded[name]

    def find_backbone(self, name: str, cached: str) -> Path:
        """Return the file given for `name`, or the one that torch hub downloaded earlier under `cached`."""
        in_hub = Path(torch.hub.get_dir()) / "checkpoints" / cached
        return self.find(name, in_hub if in_hub.is_file() else None)


def read_tensors(path: Path) -> dict[str, Tensor]:
    """Read a state dict from .safetensors, or from a .pth file as tensors only, never running code in it.

    A leading "module." (of DataParallel) is taken off the names. Raises FlipnetError naming the file.
    """
    try:
        if path.suffix == ".safetensors":
            tensors: Any = load_file(path)
        else:
            tensors = torch.load(path, map_location="cpu", weights_only=True)
    except (OSError, RuntimeError, pickle.UnpicklingError, EOFError, safetensors.SafetensorError) as error:
        raise FlipnetError(f"{path}: cannot be read as weights ({str(error).splitlines()[0]})") from error
    if not isinstance(tensors, dict) or not all(isinstance(value, Tensor) for value in tensors.values()):
        raise FlipnetError(f"{path}: is no table of tensors")
    return {name.removeprefix("module."): value for name, value in tensors.items()}


def fill(network: torch.nn.Module, tensors: Mapping[str, Tensor], path: Path) -> None:
    """Load tensors into a network, all of whose own must be there; FlipnetError names the file if they are not."""
    try:
        missing = network.load_state_dict(dict(tensors), strict=False).missing_keys
    except RuntimeError as error:
        raise FlipnetError(f"{path}: does not fit {type(network).__name__}: {error}") from error
    if missing:
        raise FlipnetError(f"{path}: does not fit {type(network).__name__}, it has no '{missing[0]}'")
    network.eval().requires_grad_(False)


def import_optional(module: str, package: str) -> Any:
    """Import an optional package; MetricUnavailableError names it, and the cause where it is there but broken."""
    try:
        return importlib.import_module(module)
    except (ImportError, RuntimeError, OSError) as error:
        # torchvision built for another torch raises RuntimeError or OSError while it is imported.
        raise MetricUnavailableError(f"needs the package {package} ({str(error).splitlines()[0]})") from error
