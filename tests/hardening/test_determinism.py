"""The shipped weights: the same seed gives the same bits, and company in a batch changes next to nothing."""

from __future__ import annotations

import multiprocessing
import os
from pathlib import Path

import numpy as np
import pytest
import skimage.data
import torch

from flipnet.images import faces_to_tensor, resize
from flipnet.pipelines.restore import FaceRestorer

FORK = multiprocessing.get_context("fork")
SEEDS = (3, 4)


@pytest.fixture(scope="module")
def restorer():
    return FaceRestorer.from_checkpoint("compact", device="cpu")


@pytest.fixture(scope="module")
def faces() -> torch.Tensor:
    """NASA's portrait of Eileen Collins and its mirror image, blurred as by a small camera."""
    portrait = resize(skimage.data.astronaut()[:200, 124:324], (64, 64))
    both = [resize(face, (512, 512)) for face in (portrait, np.ascontiguousarray(portrait[:, ::-1] // 2))]
    return faces_to_tensor(np.stack(both))


@pytest.fixture(scope="module")
def together(restorer, faces) -> torch.Tensor:
    return restorer(faces, SEEDS)


def _restore_and_save(restorer: FaceRestorer, faces: torch.Tensor, file: Path) -> None:
    np.save(file, restorer(faces, SEEDS).numpy())
    os._exit(0)


def test_the_same_seed_gives_the_same_bits_also_in_another_process(tmp_path, restorer, faces, together):
    child = FORK.Process(target=_restore_and_save, args=(restorer, faces, tmp_path / "a.npy"))
    child.start()
    child.join(120)
    assert np.array_equal(np.load(tmp_path / "a.npy"), together.numpy())


def test_a_batch_and_single_faces_differ_by_two_levels_at_most(restorer, faces, together):
    for index, seed in enumerate(SEEDS):
        alone = restorer(faces[index : index + 1], [seed])[0]
        assert (alone - together[index]).abs().max() * 127.5 <= 2


def test_another_seed_gives_another_face_from_two_steps_on(restorer, faces, monkeypatch):
    def other_seed_gives_the_same():
        one, other = (restorer(faces[:1], [seed])[0] for seed in (SEEDS[0], SEEDS[0] + 100))
        return torch.equal(one, other)

    assert other_seed_gives_the_same()
    monkeypatch.setattr(restorer, "steps", 2)
    assert not other_seed_gives_the_same()
