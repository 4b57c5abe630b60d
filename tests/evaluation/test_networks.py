"""Metrics by networks that the user brings: architecture, reading of weights, reasons where they are missing."""

import sys

import numpy as np
import onnx
import pytest
import safetensors.torch
import torch
from onnx import TensorProto, helper

from flipnet.evaluation.arcface import ArcFaceEmbedder, ArcFaceNetwork, angle_deg
from flipnet.evaluation.catalogue import choose
from flipnet.evaluation.inception import read_statistics
from flipnet.evaluation.landmarks import FivePoints, landmark_distance, load_landmarks
from flipnet.evaluation.lpips import Lpips, load_lpips, lpips_distance
from flipnet.evaluation.scoring import load_metrics
from flipnet.evaluation.weights import MetricUnavailableError, MetricWeights, read_tensors
from flipnet.types import Face, FlipnetError


def made_weights(network):
    """The same numbers for every run, tensor by tensor in the order of their names."""
    found = {}
    tensors = {n: t for n, t in network.state_dict().items() if not n.startswith("heads")}
    for index, (name, tensor) in enumerate(sorted(tensors.items())):
        if tensor.dtype == torch.float32:
            rng = np.random.default_rng(index)
            if tensor.ndim > 1:
                values = rng.normal(size=tuple(tensor.shape)) * tensor[0].numel() ** -0.5
            else:
                values = rng.uniform(0.5, 1.0, size=tuple(tensor.shape))
            found[name] = torch.from_numpy(values.astype(np.float32))
    return found


@pytest.fixture(scope="module")
def arcface_file(tmp_path_factory):
    path = tmp_path_factory.mktemp("weights") / "resnet18_110.pth"
    # As arcface-pytorch saves it: from DataParallel.
    torch.save({f"module.{name}": t for name, t in made_weights(ArcFaceNetwork()).items()}, path)
    return path


def test_arcface_equals_gfpgans_network(arcface_file):
    network = ArcFaceNetwork().eval()
    network.load_state_dict(read_tensors(arcface_file), strict=False)
    faces = np.random.default_rng(99).uniform(-1, 1, (2, 1, 128, 128)).astype(np.float32)
    embeddings = network(torch.from_numpy(faces))
    # GFPGAN 1.3.8, ResNetArcFace("IRBlock", [2, 2, 2, 2], use_se=False), with the same weights.
    np.testing.assert_allclose(embeddings[0, :4], [1.2246, 0.1274, -0.6252, 4.1348], atol=2e-4)
    np.testing.assert_allclose(embeddings.norm(dim=1), [58.5093, 58.9096], atol=1e-3)


def test_deg_is_measured_with_a_weights_file_and_may_leave_out_equal_pairs(arcface_file):
    weights = MetricWeights({"arcface": arcface_file})
    single, of_sets = choose(["deg", "deg_over_1"])
    loaded = load_metrics(single, of_sets, weights, has_reference=True, has_real=True)
    measures = {metric.name: measure for metric, measure in loaded.single}
    face = np.random.default_rng(0).integers(0, 256, (64, 64, 3), dtype=np.uint8)
    other = np.random.default_rng(1).integers(0, 256, (64, 64, 3), dtype=np.uint8)
    assert measures["deg"](face, face) == pytest.approx(0, abs=1e-3)
    assert np.isnan(measures["deg_over_1"](face, face))
    embed = ArcFaceEmbedder(weights)
    assert measures["deg"](face, other) == pytest.approx(angle_deg(embed(face), embed(other)))


def test_angles():
    assert angle_deg(np.array([1.0, 0]), np.array([0, 3.0])) == pytest.approx(90)
    assert angle_deg(np.array([1.0, 0]), np.array([1.0, 1.0])) == pytest.approx(45)


@pytest.fixture
def lpips_files(tmp_path):
    """Backbones as torchvision names their tensors, with made-up numbers."""
    pytest.importorskip("torchmetrics", reason="torchmetrics (extra 'evaluation') holds LPIPS's heads")

    def made(kind):
        path = tmp_path / f"{kind}.safetensors"
        safetensors.torch.save_file(made_weights(Lpips(kind)), path)
        return MetricWeights({f"lpips-{kind}": path})

    return made


# lpips 0.1.4 on torchvision 0.29.1's networks with the same weights.
@pytest.mark.parametrize(("kind", "expected"), [("alex", 0.00152646), ("vgg", 0.00122677)])
def test_lpips_equals_the_package_lpips(kind, expected, lpips_files):
    network = load_lpips(kind, lpips_files(kind))
    rng = np.random.default_rng(0)
    image = rng.uniform(-1, 1, (1, 3, 64, 64)).astype(np.float32)
    other = (image + rng.normal(0, 0.1, image.shape)).clip(-1, 1).astype(np.float32)
    found = network(torch.from_numpy(image), torch.from_numpy(other))
    assert float(found[0]) == pytest.approx(expected, rel=1e-4)


def test_lpips_is_a_distance(lpips_files):
    network = load_lpips("alex", lpips_files("alex"))
    rng = np.random.default_rng(0)
    image = rng.integers(0, 256, (64, 64, 3), dtype=np.uint8)
    near = (image.astype(int) + rng.integers(-5, 6, image.shape)).clip(0, 255).astype(np.uint8)
    assert lpips_distance(network, image, image) == 0
    assert 0 < lpips_distance(network, image, near) < lpips_distance(network, image, 255 - image)
    assert lpips_distance(network, image, near) == pytest.approx(lpips_distance(network, near, image))


def test_lpips_vgg_taps_the_five_blocks():
    network = Lpips("vgg")
    assert [network.features[i - 1].out_channels for i in network.taps] == [64, 128, 256, 512, 512]
    # torchvision's VGG16: the last convolution is layer 28.
    assert max(int(n.split(".")[1]) for n in network.state_dict() if n.startswith("features")) == 28
    # torchvision's AlexNet: convolutions are layers 0, 3, 6, 8, 10.
    names = [n for n in Lpips("alex").state_dict() if n.startswith("features")]
    assert {name.split(".")[1] for name in names} == {"0", "3", "6", "8", "10"}


class OneFace:
    def __init__(self, points):
        self.points = points

    def __call__(self, pixels):
        assert pixels.shape == (512, 512, 3)
        return [Face((0, 0, 1, 1), points, 1.0) for points in self.points]


def test_the_face_at_the_templates_place_gives_the_five_landmarks():
    far, near = np.zeros((5, 2), np.float32), np.full((5, 2), 280, np.float32)
    find = FivePoints(OneFace([far, near]))
    np.testing.assert_array_equal(find(np.zeros((64, 64, 3), np.uint8)), near)
    assert FivePoints(OneFace([]))(np.zeros((64, 64, 3), np.uint8)) is None


def test_landmark_distance_by_hand():
    assert landmark_distance(np.array([[0, 0], [3, 4]]), np.array([[0, 0], [0, 0]])) == 2.5
    assert np.isnan(landmark_distance(None, np.zeros((5, 2))))


def test_heat_maps_give_landmarks_where_they_peak(tmp_path):
    # A "network" whose maps are the input's red and green channel, a quarter of its size.
    take = helper.make_node("Slice", ["x", "from", "to", "axes", "steps"], ["maps"])
    constants = {"from": [0, 0, 0], "to": [2, 64, 64], "axes": [1, 2, 3], "steps": [1, 4, 4]}
    graph = helper.make_graph(
        [take],
        "maps",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, [1, 3, 64, 64])],
        [helper.make_tensor_value_info("maps", TensorProto.FLOAT, [1, 2, 16, 16])],
        [helper.make_tensor(n, TensorProto.INT64, [3], v) for n, v in constants.items()],
    )
    path = tmp_path / "maps.onnx"
    onnx.save(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=9), path)
    face = np.zeros((64, 64, 3), np.uint8)
    face[8, 40, 0] = face[60, 0, 1] = 255
    points = load_landmarks(MetricWeights({"landmarks": path}))(face)
    # Cells of 32 pixels of the 512-pixel face; (column, row) 10, 2 and 0, 15.
    np.testing.assert_allclose(points, [[10.5 * 32 - 0.5, 2.5 * 32 - 0.5], [15.5, 15.5 * 32 - 0.5]])


def test_saved_fid_statistics_are_read_or_refused(tmp_path):
    np.savez(tmp_path / "good.npz", mu=np.zeros(4), sigma=np.eye(4))
    mean, covariance = read_statistics(tmp_path / "good.npz")
    assert (mean.shape, covariance.shape) == ((4,), (4, 4))
    np.savez(tmp_path / "bad.npz", mu=np.zeros(4), sigma=np.eye(3))
    for name in ("bad.npz", "absent.npz"):
        with pytest.raises(FlipnetError, match=name):
            read_statistics(tmp_path / name)


def test_what_is_missing_is_named_with_its_remedy(monkeypatch, tmp_path):
    monkeypatch.setitem(sys.modules, "dlib", None)
    monkeypatch.setitem(sys.modules, "pyiqa", None)
    monkeypatch.setitem(sys.modules, "torch_fidelity.feature_extractor_inceptionv3", None)
    monkeypatch.setattr(torch.hub, "get_dir", lambda: str(tmp_path))
    names = ["lpips_vgg", "deg", "landmark_px", "identity_distance", "musiq", "fid"]
    given = tmp_path / "inception.pth"
    torch.save({}, given)
    weights = MetricWeights({"inception": given})
    loaded = load_metrics(*choose(names), weights, has_reference=True, has_real=True)
    assert (loaded.single, loaded.of_sets) == ([], [])
    for name, remedy in {
        "lpips_vgg": "--weights lpips-vgg=FILE",
        "deg": "resnet18_110.pth",
        "landmark_px": "--weights landmarks=FILE",
        "identity_distance": r"flipnet[evaluation]",
        "musiq": "Noncommercial",
        "fid": "torch-fidelity",
    }.items():
        assert remedy in loaded.missing[name]


def test_metrics_without_their_reference_say_so():
    loaded = load_metrics(
        *choose(["psnr_db", "niqe", "fid"]), MetricWeights(), has_reference=False, has_real=False
    )
    assert [metric.name for metric, _ in loaded.single] == ["niqe"]
    assert loaded.missing["psnr_db"] == "needs --reference"
    assert loaded.missing["fid"] == "needs --real or --reference"


def test_wrong_weights_are_an_error_that_names_the_file(tmp_path):
    with pytest.raises(FlipnetError, match="names are niqe"):
        MetricWeights({"vgg": tmp_path})
    with pytest.raises(FlipnetError, match="no such file"):
        MetricWeights({"arcface": tmp_path / "absent.pth"})
    damaged = tmp_path / "damaged.pth"
    damaged.write_bytes(b"nothing")
    for name, metric in {"arcface": "deg", "landmarks": "landmark_px"}.items():
        with pytest.raises(FlipnetError, match=r"damaged\.pth"):
            load_metrics(*choose([metric]), MetricWeights({name: damaged}), has_reference=True, has_real=True)
    other = tmp_path / "other.safetensors"
    safetensors.torch.save_file({"conv1.weight": torch.zeros(64, 1, 3, 3)}, other)
    with pytest.raises(FlipnetError, match="does not fit ArcFaceNetwork"):
        ArcFaceEmbedder(MetricWeights({"arcface": other}))


def test_a_pickle_that_would_run_code_is_refused(tmp_path):
    class Harmful:
        def __reduce__(self):
            return (print, ("ran",))

    path = tmp_path / "harmful.pth"
    torch.save({"x": Harmful()}, path)
    with pytest.raises(FlipnetError, match=r"harmful\.pth"):
        read_tensors(path)
    with pytest.raises(FlipnetError, match=r"harmful\.pth"):
        load_metrics(*choose(["fid"]), MetricWeights({"inception": path}), has_reference=True, has_real=True)


def test_missing_weights_are_not_downloaded(tmp_path, monkeypatch):
    monkeypatch.setattr(torch.hub, "get_dir", lambda: str(tmp_path))
    with pytest.raises(MetricUnavailableError, match=r"vgg16-397923af\.pth"):
        MetricWeights().find_backbone("lpips-vgg", "vgg16-397923af.pth")
    (tmp_path / "checkpoints").mkdir()
    (tmp_path / "checkpoints" / "vgg16-397923af.pth").write_bytes(b"")
    assert MetricWeights().find_backbone("lpips-vgg", "vgg16-397923af.pth").parent.name == "checkpoints"
