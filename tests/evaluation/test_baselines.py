import sys
import types

import numpy as np
import pytest
import torch

from flipnet.evaluation.baselines import ClassicalRestorer, SpandrelRestorer, find_method
from flipnet.evaluation.metrics import gradient_energy, psnr
from flipnet.evaluation.timing import measure_speed
from flipnet.evaluation.weights import MetricUnavailableError
from flipnet.images import faces_to_tensor, tensor_to_uint8
from flipnet.pipelines.restore import FaceRestorer


def test_the_classical_filter_takes_noise_away_and_steepens_edges():
    levels = 125 + 65 * np.tanh((np.arange(64) - 31.5) / 3)
    clean = np.repeat(np.rint(levels).astype(np.uint8)[None, :, None], 64, axis=0).repeat(3, axis=2)
    noise = np.random.default_rng(0).normal(0, 6, clean.shape)
    noisy = np.rint(clean + noise).clip(0, 255).astype(np.uint8)
    restored, sharpened = tensor_to_uint8(
        ClassicalRestorer(64)(faces_to_tensor(np.stack([noisy, clean])), [0, 0])
    )
    flat = slice(0, 16)
    assert gradient_energy(restored[:, flat]) < gradient_energy(noisy[:, flat]) / 3
    assert restored[:, flat].mean() == pytest.approx(60, abs=2)
    assert np.diff(sharpened[32, :, 0].astype(int)).max() > np.diff(clean[32, :, 0].astype(int)).max()


def test_a_spandrel_model_gets_0_to_1_and_a_larger_output_comes_back_to_size(monkeypatch, tmp_path):
    seen = []

    class Loader:
        def __init__(self, device):
            pass

        def load_from_file(self, path):
            class Model(torch.nn.Module):
                def forward(self, image):
                    seen.append((float(image.min()), float(image.max())))
                    return torch.nn.functional.interpolate(image, scale_factor=2)

            return Model()

    # spandrel needs torchvision, which the tests' environment may lack; only its two calls stand in here.
    monkeypatch.setitem(sys.modules, "spandrel", types.SimpleNamespace(ModelLoader=Loader))
    restorer = find_method("esrgan", str(_touch(tmp_path / "x.pth")), 32)
    assert isinstance(restorer, SpandrelRestorer)
    face = np.repeat(np.linspace(0, 255, 32).astype(np.uint8)[None, :, None], 32, 0).repeat(3, 2)
    restored = tensor_to_uint8(restorer(faces_to_tensor(face), [0]))[0]
    assert seen == [(0, 1)]
    assert psnr(restored, face) > 35


def test_spandrel_missing_names_the_package(monkeypatch, tmp_path):
    monkeypatch.setitem(sys.modules, "spandrel", None)
    with pytest.raises(MetricUnavailableError, match="spandrel"):
        find_method("esrgan", str(_touch(tmp_path / "x.pth")), 32)


def test_a_model_folder_is_a_restorer_and_any_other_folder_holds_outputs(tiny_checkpoint, tmp_path):
    assert isinstance(find_method("regression", str(tiny_checkpoint), 64), FaceRestorer)
    assert find_method("others", str(tmp_path), 64) == tmp_path


def test_speed_is_measured_in_a_process_of_its_own(tiny_checkpoint):
    rows = measure_speed(str(tiny_checkpoint), phi=1.0, steps=2, device="cpu", threads=1)
    assert [row["what"] for row in rows] == ["face", "photo"]
    for row in rows:
        assert (row["steps"], row["device"], row["threads"]) == (2, "cpu", 1)
        assert 0 < row["warm_s"] < 30
        assert row["cold_s"] > 0
        assert row["load_s"] > 0
        assert 100 < row["peak_mib"] < 8000


def _touch(path):
    path.write_bytes(b"")
    return path
