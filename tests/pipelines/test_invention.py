"""Several samples: seeds, spread, which one is taken, and what flip-consistency measures."""

import numpy as np
import pytest
import torch
from torch.nn import functional as F

from flipnet.pipelines.degrade import FaceDegrader
from flipnet.pipelines.invention import (
    FaceSampler,
    coarse_difference,
    flip_consistency,
    nearest_to_mean,
    sample_seeds,
    several,
    spread_of,
)
from flipnet.pipelines.restore import FaceRestorer
from flipnet.types import FlipnetError
from two_modes import two_mode_pipeline

SIDE = 64


def smooth_faces(count, seed=0):
    """Random pictures without fine detail, in [-0.8, 0.8]."""
    coarse = torch.rand((count, 3, 8, 8), generator=torch.Generator().manual_seed(seed)) * 1.6 - 0.8
    return F.interpolate(coarse, size=(SIDE, SIDE), mode="bicubic").clamp(-0.8, 0.8)


class Adding:
    """A restorer that adds seed / 1000 to its faces; remembers how many it got at once."""

    native_size_px = SIDE

    def __init__(self):
        self.batches = []

    def __call__(self, faces, seeds):
        self.batches.append(len(faces))
        return faces + torch.tensor([float(seed % 97) for seed in seeds]).view(-1, 1, 1, 1) / 1000


def test_seeds_do_not_depend_on_how_many_are_drawn_and_neighbours_share_none():
    assert sample_seeds(7, 3) == sample_seeds(7, 8)[:3]
    assert sample_seeds(7, 1) == (7,)
    drawn = [seed for face in range(20) for seed in sample_seeds(face, 16)]
    assert len(set(drawn)) == len(drawn)
    assert all(0 <= seed < 2**32 for seed in drawn)
    # numpy's own documented derivation, so that others can repeat it.
    assert sample_seeds(7, 2)[1] == np.random.SeedSequence((7, 1)).generate_state(1)[0]


def test_spread_is_the_standard_deviation_in_8_bit_levels():
    samples = torch.zeros((3, 3, 4, 4))
    samples[:, :, 1, 2] = torch.tensor([-10.0, 0.0, 10.0]).view(3, 1) / 127.5
    samples[:, 0, 3, 3] = torch.tensor([-6.0, 0.0, 6.0]) / 127.5  # one channel of three
    expected = np.zeros((4, 4))
    expected[1, 2], expected[3, 3] = 10, 2
    np.testing.assert_allclose(spread_of(samples), expected, atol=1e-5)


def test_the_sample_nearest_to_the_mean_is_found():
    samples = torch.tensor([0.0, 1.0, 0.4, 0.1]).view(4, 1, 1, 1).expand(4, 3, 2, 2)
    assert nearest_to_mean(samples) == 2  # the mean is 0.375


def test_coarse_difference_ignores_what_degradation_makes_up():
    face = smooth_faces(1)
    noise = 0.1 * torch.randn(face.shape, generator=torch.Generator().manual_seed(1))
    tinted = face + torch.tensor([0.1, -0.05, 0.0]).view(1, 3, 1, 1)
    assert coarse_difference(face, face).item() == pytest.approx(0, abs=1e-3)
    assert coarse_difference(tinted, face).item() == pytest.approx(0, abs=1e-3)
    other = coarse_difference(smooth_faces(1, seed=9), face).item()
    assert coarse_difference(tinted + noise, face).item() < 0.2 * other


def test_coarse_difference_is_a_root_mean_square_in_levels():
    face = torch.zeros((1, 3, SIDE, SIDE))
    face[..., : SIDE // 2] = 20 / 127.5
    flat = torch.zeros_like(face)
    # What cannot be explained is the step of 20 levels: 10 on either side of its mean.
    assert coarse_difference(flat, face).item() == pytest.approx(10, abs=1e-3)


def test_flip_consistency_finds_the_candidate_that_degrades_to_the_input():
    faces = smooth_faces(4)

    class Darkening:
        native_size_px = SIDE

        def __call__(self, batch, seeds):
            return batch * 0.5 - torch.tensor([seed / 10 for seed in seeds]).view(-1, 1, 1, 1)

    distances = flip_consistency(faces, Darkening()(faces[2:3], [3])[0], Darkening(), [0, 1], batch_size=3)
    assert int(np.argmin(distances)) == 2
    assert distances[2] == pytest.approx(0, abs=1e-3)


def test_the_sampler_takes_the_sample_nearest_to_the_mean_and_says_which():
    faces, restorer = smooth_faces(2), Adding()
    batch = FaceSampler(restorer, 5, batch_size=2)(faces, [4, 9])
    assert restorer.batches == [2, 2, 1] * 2
    for face, restored, findings, seed in zip(faces, batch.faces, batch.findings, (4, 9), strict=True):
        added = np.array([s % 97 for s in sample_seeds(seed, 5)]) / 1000
        assert findings.seeds == sample_seeds(seed, 5)
        assert findings.chosen == np.argmin(np.abs(added - added.mean()))
        torch.testing.assert_close(restored, face + added[findings.chosen])
        np.testing.assert_allclose(findings.spread, added.std(ddof=1) * 127.5, rtol=1e-3)
        assert findings.spread_mean_levels == pytest.approx(findings.spread_p95_levels, rel=1e-3)
        assert findings.consistency is None


def test_a_real_model_samples_and_checks_itself():
    pipeline = two_mode_pipeline()
    restorer = FaceRestorer(pipeline, phi=1.0, steps=2, model_name="tiny")
    faces = smooth_faces(1)
    batch = several(restorer, 3, "faithful")(faces, [11])
    (findings,) = batch.findings
    assert findings.chosen == int(np.argmin(findings.consistency))
    torch.testing.assert_close(
        batch.faces, restorer(faces, [findings.seeds[findings.chosen]]), atol=1e-4, rtol=0
    )
    again = several(restorer, 3, "faithful")(faces, [11])
    assert again.findings[0].consistency == pytest.approx(findings.consistency, abs=1e-3)
    # The restorer still restores after the degradation mode had its turn.
    degrader = FaceDegrader(pipeline, phi=1.0, steps=1, model_name="tiny")
    assert not torch.equal(degrader(faces, [1]), restorer(faces, [1]))


def test_mistakes_are_named():
    with pytest.raises(FlipnetError, match="samples 1: several samples are at least 2"):
        FaceSampler(Adding(), 1)
