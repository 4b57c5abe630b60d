"""The recognition network against the graph that its weights come from, written out in plain operations."""

import json
import sys
from pathlib import Path

import numpy as np
import torch
from skimage.data import astronaut
from torch.nn import functional as F

from flipnet.training.recognition import MobileFace, identity_distance

sys.path.insert(0, str(Path(__file__).parents[2] / "benchmarks"))
from convert_mobileface import converted, read_tensors

WIDTHS = ((32, 32), (32, 32), (32, 64), (64, 128))


def _tensors():
    rng = np.random.default_rng(0)

    def random(*shape):
        return (rng.standard_normal(shape) / np.sqrt(np.prod(shape[:-1]))).astype("<f4")

    tensors = {"conv1_weight": random(3, 3, 3, 32), "prelu1_gamma": random(32)}
    for index, (inputs, outputs) in enumerate(WIDTHS):
        unit = f"stage{index + 1}_unit1"
        tensors[f"{unit}_conv0_0_weight"] = random(1, 1, inputs, outputs)
        for inner, name in enumerate(("conv0_1_df", "conv1_df", "conv2_df")):
            tensors[f"{unit}_{name}"] = random(3, 3, outputs, 1)
            tensors[f"{unit}_prelu{inner}_gamma"] = random(outputs)
    tensors |= {
        "dense/kernel": random(2048, 256),
        "batchnorm0/mul": random(256),
        "batchnorm0/sub": random(256),
    }
    tensors["minusscalar0_second"] = np.array([127.5], "<f4")
    tensors["mulscalar0_second"] = np.array([0.0078125], "<f4")
    return tensors


def _written(folder, tensors):
    entries = [{"name": n, "shape": list(t.shape), "dtype": "float32"} for n, t in tensors.items()]
    (folder / "net.bin").write_bytes(b"".join(t.tobytes() for t in tensors.values()))
    manifest = [{"paths": ["net.bin"], "weights": entries}]
    (folder / "net.json").write_text(json.dumps({"weightsManifest": manifest}))
    return folder / "net.json"


def _graph(tensors, levels):
    """What the TensorFlow.js graph does with blue-first levels (B, 3, 112, 112)."""
    t = {name: torch.from_numpy(value) for name, value in tensors.items()}

    def activated(x, slope):
        return x.clamp(min=0) + slope[:, None, None] * x.clamp(max=0)

    def depthwise(x, weight, stride=1):
        return F.conv2d(x, weight.permute(2, 3, 0, 1), None, stride, 1, groups=x.shape[1])

    x = (levels - t["minusscalar0_second"]) * t["mulscalar0_second"]
    x = activated(F.conv2d(x, t["conv1_weight"].permute(3, 2, 0, 1), None, 2, 1), t["prelu1_gamma"])
    for index in range(4):
        unit = f"stage{index + 1}_unit1"
        x = F.conv2d(x, t[f"{unit}_conv0_0_weight"].permute(3, 2, 0, 1))
        x = activated(depthwise(x, t[f"{unit}_conv0_1_df"], 2), t[f"{unit}_prelu0_gamma"])
        y = activated(depthwise(x, t[f"{unit}_conv1_df"]), t[f"{unit}_prelu1_gamma"])
        x = x + activated(depthwise(y, t[f"{unit}_conv2_df"]), t[f"{unit}_prelu2_gamma"])
    flat = x.permute(0, 2, 3, 1).reshape(len(x), -1)
    return flat @ t["dense/kernel"] * t["batchnorm0/mul"] + t["batchnorm0/sub"]


def test_converted_weights_do_what_the_graph_does(tmp_path):
    tensors = _tensors()
    network = MobileFace()
    network.load_state_dict(converted(read_tensors(_written(tmp_path, tensors))))
    face = torch.from_numpy(astronaut()[32:144, 160:272].copy()).permute(2, 0, 1)[None].float()
    wanted = F.normalize(_graph(tensors, face.flip(1)))
    torch.testing.assert_close(network(face / 127.5 - 1), wanted, rtol=0, atol=1e-5)


def test_identity_distance_is_zero_for_the_same_face_and_has_a_gradient_for_another():
    torch.manual_seed(0)
    network = MobileFace()
    face = torch.from_numpy(astronaut()[:352, 64:416].copy()).permute(2, 0, 1)[None].float() / 127.5 - 1
    assert abs(identity_distance(network, face, face).item()) < 1e-6
    other = face.flip(-1).requires_grad_(True)
    distance = identity_distance(network, other, face)
    distance.backward()
    assert 0 < distance.item() <= 2
    assert other.grad.abs().sum() > 0
