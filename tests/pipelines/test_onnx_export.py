import io

import numpy as np
import onnx
import onnxruntime
import pytest
import torch
from diffusers import EulerDiscreteScheduler

from flipnet.models.mode_decoder import ModeDecoder
from flipnet.pipelines import onnx_export
from flipnet.pipelines.onnx_export import RestorationGraph, export_onnx
from flipnet.pipelines.onnx_restorer import OnnxRestorer
from flipnet.pipelines.restore import FaceRestorer
from flipnet.types import FlipnetError
from tiny import tiny_pipeline

PHI, STEPS = 0.5, 2


def pipeline_with_decoder(**options):
    pipeline = tiny_pipeline()  # seeds torch
    decoder = ModeDecoder.from_vae(pipeline.vae, **options)
    for parameter in decoder.fusions.parameters():
        torch.nn.init.normal_(parameter, std=0.1)
    pipeline.decoders["restoration"] = decoder.eval().requires_grad_(False)
    return pipeline


def smooth_faces(count):
    torch.manual_seed(3)
    coarse = torch.rand(count, 3, 6, 6) * 2 - 1
    return torch.nn.functional.interpolate(coarse, (64, 64), mode="bicubic").clamp(-1, 1)


@pytest.fixture(scope="module")
def graph():
    return RestorationGraph(pipeline_with_decoder(fuses=True), phi=PHI, steps=STEPS)


@pytest.fixture(scope="module")
def exported(graph):
    return export_onnx(graph, smooth_faces(1), model_name="tiny", licence="none")


@pytest.fixture(scope="module")
def session(exported):
    return onnxruntime.InferenceSession(exported.content)


@pytest.fixture(scope="module")
def file(exported, tmp_path_factory):
    path = tmp_path_factory.mktemp("onnx") / "restorer.onnx"
    path.write_bytes(exported.content)
    return path


def test_a_file_restores_what_the_pipeline_restores_from_the_same_seeds(file):
    pipeline = pipeline_with_decoder(fuses=True)
    pipeline.precision = "no"
    expected = FaceRestorer(pipeline, phi=PHI, steps=STEPS, model_name="tiny")(smooth_faces(2), [5, 6])
    restorer = OnnxRestorer(file)
    restored = restorer(smooth_faces(2), [5, 6])
    assert (restorer.native_size_px, restorer.phi, restorer.steps) == (64, PHI, STEPS)
    assert expected.std() > 0.1
    assert (restored - expected).abs().max() * 127.5 < 2
    assert (restorer(smooth_faces(2), [5, 7])[1] - expected[1]).abs().max() * 127.5 > 2


def test_another_file_is_no_restorer(tmp_path):
    (tmp_path / "text.onnx").write_text("not a model")
    for name in ("text.onnx", "missing.onnx"):
        with pytest.raises(FlipnetError, match=f"{name}: cannot be loaded"):
            OnnxRestorer(tmp_path / name)
    info = onnx.helper.make_tensor_value_info("x", onnx.TensorProto.FLOAT, [1])
    node = onnx.helper.make_node("Identity", ["x"], ["y"])
    output = onnx.helper.make_tensor_value_info("y", onnx.TensorProto.FLOAT, [1])
    graph = onnx.helper.make_graph([node], "g", [info], [output])
    onnx.save(
        onnx.helper.make_model(graph, opset_imports=[onnx.helper.make_opsetid("", 18)], ir_version=9),
        tmp_path / "other.onnx",
    )
    with pytest.raises(FlipnetError, match="not a restorer that"):
        OnnxRestorer(tmp_path / "other.onnx")


def test_faces_do_not_depend_on_their_batch(session):
    faces, noise = smooth_faces(3).numpy(), np.random.default_rng(0).standard_normal((3, 4, 8, 8), np.float32)
    (together,) = session.run(None, {"face": faces, "noise": noise})
    (alone,) = session.run(None, {"face": faces[2:], "noise": noise[2:]})
    np.testing.assert_allclose(together[2:], alone, atol=1e-4)


def test_the_file_says_what_it_is(session, exported):
    about = session.get_modelmeta().custom_metadata_map
    assert {key: about[key] for key in ("model", "licence", "mode", "phi", "steps", "opset")} == {
        "model": "tiny",
        "licence": "none",
        "mode": "restoration",
        "phi": "0.5",
        "steps": "2",
        "opset": "18",
    }
    assert about["face"].startswith("float32 (B, 3, 64, 64)")
    assert about["noise"].startswith("float32 (B, 4, 8, 8)")
    model = onnx.load(io.BytesIO(exported.content))
    onnx.checker.check_model(model)
    assert [(opset.domain, opset.version) for opset in model.opset_import] == [("", 18)]


def test_a_graph_too_far_from_torch_is_refused(monkeypatch, graph):
    monkeypatch.setattr(onnx_export, "TOLERANCE", -1.0)
    with pytest.raises(FlipnetError, match="differs from torch by"):
        export_onnx(graph, smooth_faces(1), model_name="tiny", licence="none", dtype=torch.float32)


def test_what_a_graph_cannot_hold_is_refused():
    with pytest.raises(FlipnetError, match="draws noise"):
        RestorationGraph(pipeline_with_decoder(noise=True))
    pipeline = tiny_pipeline()
    with pytest.raises(FlipnetError, match="at least one step"):
        RestorationGraph(pipeline, steps=0)
    pipeline.scheduler = EulerDiscreteScheduler()
    with pytest.raises(FlipnetError, match="EulerDiscreteScheduler cannot be exported"):
        RestorationGraph(pipeline)
