import json
import sys

import numpy as np
import pytest
import torch
from PIL import Image

from flipnet.evaluation.benchmark import benchmark_input, run_benchmark
from flipnet.types import FlipnetError

SIZE = 64


class Passthrough:
    """A restorer that returns what it gets, and keeps what it was asked."""

    native_size_px = SIZE

    def __init__(self):
        self.calls = []

    def __call__(self, faces, seeds):
        assert faces.dtype == torch.float32
        assert -1 <= faces.min() < faces.max() <= 1
        self.calls.append((faces.clone(), list(seeds)))
        return faces


class Brightener(Passthrough):
    def __call__(self, faces, seeds):
        return faces + 0.5


@pytest.fixture
def folder(tmp_path):
    folder = tmp_path / "faces"
    folder.mkdir()
    y, x = np.mgrid[:SIZE, :SIZE]
    for index in range(5):
        waves = [128 + 100 * np.sin((x + 2 * y) / (3 + index) + channel) for channel in range(3)]
        Image.fromarray(np.stack(waves, axis=2).astype(np.uint8)).save(folder / f"made-any-{index}.png")
    return folder


@pytest.fixture
def no_dlib(monkeypatch):
    monkeypatch.setitem(sys.modules, "dlib", None)


@pytest.mark.usefixtures("no_dlib")
def test_a_restorer_that_changes_nothing_scores_like_the_input(folder):
    result = run_benchmark(Passthrough(), folder, batch_size=2)
    assert [s.severity for s in result.severities] == ["mild", "medium", "severe"]
    for severity in result.severities:
        assert severity.faces == 5
        assert severity.restored == severity.degraded
        assert severity.seconds_per_face > 0
    psnr = [s.degraded.psnr_db for s in result.severities]
    assert psnr == sorted(psnr, reverse=True)


@pytest.mark.usefixtures("no_dlib")
def test_a_restorer_that_does_harm_is_seen(folder):
    (mild,) = run_benchmark(Brightener(), folder, severities=["mild"]).severities
    assert mild.restored.psnr_db < mild.degraded.psnr_db - 3


@pytest.mark.usefixtures("no_dlib")
def test_inputs_and_seeds_do_not_depend_on_batch_size_or_limit(folder):
    def asked(**options):
        restorer = Passthrough()
        run_benchmark(restorer, folder, severities=["medium"], **options)
        faces = torch.cat([faces for faces, _ in restorer.calls])
        return faces, [seed for _, seeds in restorer.calls for seed in seeds]

    faces, seeds = asked(batch_size=1)
    again, same_seeds = asked(batch_size=4)
    assert torch.equal(faces, again)
    assert seeds == same_seeds
    assert len(set(seeds)) == 5
    fewer, fewer_seeds = asked(limit=2)
    assert fewer_seeds == [seeds[0], seeds[2]]
    assert torch.equal(fewer, faces[[0, 2]])
    assert not torch.equal(faces, asked(seed=1)[0])


def test_benchmark_input_depends_on_key_severity_and_seed():
    hq = np.random.default_rng(0).integers(0, 256, (SIZE, SIZE, 3), dtype=np.uint8)
    first = benchmark_input(hq, "a", "mild")
    np.testing.assert_array_equal(first, benchmark_input(hq, "a", "mild", seed=0))
    for other in (("b", "mild", 0), ("a", "severe", 0), ("a", "mild", 1)):
        assert not np.array_equal(first, benchmark_input(hq, *other))


@pytest.mark.usefixtures("no_dlib")
def test_without_dlib_the_distance_is_missing_and_the_reason_given(folder):
    result = run_benchmark(None, folder_of_512(folder), severities=["severe"], limit=1)
    content = json.loads(result.to_json())
    assert "flipnet[evaluation]" in content["identity_missing"]
    (severe,) = content["severities"]
    assert severe["degraded"]["identity_distance"] is None
    assert severe["restored"] is None
    assert severe["seconds_per_face"] is None
    assert severe["degraded"]["psnr_db"] == result.severities[0].degraded.psnr_db


def test_with_dlib_the_distance_is_there(folder):
    pytest.importorskip("dlib", reason="dlib (extra 'evaluation') is not installed")
    result = run_benchmark(Passthrough(), folder, severities=["mild", "severe"], limit=2)
    assert result.identity_missing is None
    for severity in result.severities:
        assert severity.restored.identity_distance == severity.degraded.identity_distance > 0


@pytest.mark.usefixtures("no_dlib")
def test_batches_are_reported(folder):
    seen = []
    run_benchmark(Passthrough(), folder, severities=["mild"], batch_size=3, on_batch=seen.append)
    assert [batch.keys for batch in seen] == [
        ("made-any-0", "made-any-1", "made-any-2"),
        ("made-any-3", "made-any-4"),
    ]
    np.testing.assert_array_equal(seen[1].restored, seen[1].degraded)
    truth = np.asarray(Image.open(folder / "made-any-4.png"))
    np.testing.assert_array_equal(seen[1].truth[1], truth)


@pytest.mark.parametrize(
    ("options", "named"),
    [({"limit": 0}, "limit"), ({"batch_size": 0}, "batch size"), ({"severities": ["x"]}, "'x'")],
)
def test_bad_options_are_named(folder, options, named):
    with pytest.raises(FlipnetError, match=named):
        run_benchmark(Passthrough(), folder, **options)


def test_faces_must_have_the_restorers_size(folder):
    with pytest.raises(FlipnetError, match=r"made-any-0\.png.*64x64.*512x512"):
        run_benchmark(None, folder)


def folder_of_512(folder):
    large = folder.with_name("large")
    large.mkdir()
    with Image.open(folder / "made-any-0.png") as image:
        image.resize((512, 512)).save(large / "made-any-0.png")
    return large
