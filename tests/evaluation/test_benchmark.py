import numpy as np
import pytest
import torch
from PIL import Image

from flipnet.data.datasets import FaceDataset, index_images
from flipnet.evaluation.benchmark import (
    SEVERITIES,
    benchmark_input,
    degraded_cases,
    listed_cases,
    run_part,
    spread_evenly,
)
from flipnet.evaluation.catalogue import choose
from flipnet.evaluation.image_sets import INPUT, REFERENCE, bring_together
from flipnet.evaluation.scoring import load_metrics
from flipnet.evaluation.weights import MetricWeights
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
def loaded():
    names = ["psnr_db", "ssim", "gradient_energy_ratio"]
    return load_metrics(*choose(names), MetricWeights(), has_reference=True, has_real=True)


def run(folder, restorers, loaded, severity="medium", limit=None, seed=0, **options):
    faces = FaceDataset(folder, SIZE)
    cases = degraded_cases(faces, spread_evenly(faces, limit), severity, seed)
    return run_part(severity, cases, restorers, loaded, seed=seed, **options)


def test_a_restorer_that_changes_nothing_scores_like_the_input(folder, loaded):
    psnr = []
    for severity in SEVERITIES:
        part = run(folder, {"same": Passthrough()}, loaded, severity, batch_size=2)
        assert len(part.keys) == 5
        assert list(part.scores) == [INPUT, "same"]
        for name, values in part.scores["same"].items():
            np.testing.assert_array_equal(values, part.scores[INPUT][name])
        assert list(part.seconds) == ["same"]
        assert part.seconds["same"] > 0
        psnr.append(part.scores[INPUT]["psnr_db"].mean())
    assert psnr == sorted(psnr, reverse=True)


def test_every_method_sees_the_same_input_and_harm_is_seen(folder, loaded):
    first, second = Passthrough(), Passthrough()
    part = run(folder, {"a": first, "bright": Brightener(), "b": second}, loaded, "mild")
    for (faces, seeds), (same_faces, same_seeds) in zip(first.calls, second.calls, strict=True):
        assert torch.equal(faces, same_faces)
        assert seeds == same_seeds
    assert part.scores["bright"]["psnr_db"].mean() < part.scores["a"]["psnr_db"].mean() - 3


def test_inputs_and_seeds_do_not_depend_on_batch_size_or_limit(folder, loaded):
    def asked(**options):
        restorer = Passthrough()
        run(folder, {"same": restorer}, loaded, **options)
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


def test_other_methods_outputs_are_columns_or_named_as_missing(folder, loaded):
    faces = FaceDataset(folder, SIZE)
    outputs = {"perfect": {entry.key: entry for entry in index_images(folder)}}
    cases = list(degraded_cases(faces, [0, 1], "severe", 0, outputs))
    part = run_part("severe", cases, {}, loaded)
    assert (part.scores["perfect"]["psnr_db"] == np.inf).all()
    del outputs["perfect"]["made-any-1"]
    with pytest.raises(FlipnetError, match="perfect: has no output named 'made-any-1'"):
        list(degraded_cases(faces, [0, 1], "severe", 0, outputs))


def test_a_test_set_on_disk_is_read_with_its_faults(folder, loaded, tmp_path):
    (tmp_path / "lq").mkdir()
    for path in sorted(folder.iterdir())[:3]:
        with Image.open(path) as image:
            image.resize((16, 16)).save(tmp_path / "lq" / path.name)
    (tmp_path / "lq" / "made-any-1.png").write_bytes(b"broken")
    sets = bring_together({REFERENCE: folder, INPUT: tmp_path / "lq"})
    part = run_part("set", listed_cases(sets), {"same": Passthrough()}, loaded)
    assert part.keys == ("made-any-0", "made-any-2")
    assert sum(problem.left_out for problem in sets.problems) == 3
    assert sum("Lanczos" in problem.cause for problem in sets.problems) == 2


def test_cases_are_reported_with_their_numbers(folder, loaded):
    seen = []
    run(folder, {"same": Passthrough()}, loaded, "mild", batch_size=3, on_case=seen.append)
    assert [measured.case.key for measured in seen] == [f"made-any-{index}" for index in range(5)]
    last = seen[-1]
    np.testing.assert_array_equal(last.images["same"], last.case.degraded)
    np.testing.assert_array_equal(last.case.truth, np.asarray(Image.open(folder / "made-any-4.png")))
    assert last.scores["same"] == last.scores[INPUT]


def test_a_metric_that_refuses_a_picture_is_remarked_on(folder):
    loaded = load_metrics(*choose(["ms_ssim"]), MetricWeights(), has_reference=True, has_real=True)
    remarks = []
    part = run(folder, {}, loaded, limit=1, remarks=remarks)
    assert np.isnan(part.scores[INPUT]["ms_ssim"]).all()
    assert remarks == ["ms_ssim: MS-SSIM needs sides of at least 176 px, got 64x64."]


@pytest.mark.parametrize(
    ("options", "named"),
    [({"limit": 0}, "limit"), ({"batch_size": 0}, "batch size"), ({"severity": "x"}, "'x'")],
)
def test_bad_options_are_named(folder, loaded, options, named):
    with pytest.raises(FlipnetError, match=named):
        run(folder, {"same": Passthrough()}, loaded, **options)


def test_faces_must_have_the_restorers_size(folder, loaded):
    with pytest.raises(FlipnetError, match=r"made-any-0\.png.*64x64.*512x512"):
        list(degraded_cases(FaceDataset(folder), [0], "mild", 0))
    larger = Passthrough()
    larger.native_size_px = 128
    with pytest.raises(FlipnetError, match=r"made-any-0: is 64x64, but large restores faces of 128x128"):
        run(folder, {"large": larger}, loaded)
    with pytest.raises(FlipnetError, match="no picture to measure"):
        run_part("empty", [], {}, loaded)
