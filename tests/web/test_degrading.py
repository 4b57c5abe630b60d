"""The degradation tab's job, with the tiny model and the real detector."""

from __future__ import annotations

import json
import zipfile

import numpy as np
import pytest

from flipnet.commands.degrade import result_seed
from flipnet.images import faces_to_tensor, read_photo, tensor_to_uint8
from flipnet.pipelines.degrade import FaceDegrader
from flipnet.types import FlipnetError
from flipnet.web.degrading import degrade
from flipnet.web.jobs import JobStoppedError
from flipnet.web.options import DegradeOptions


def test_variants_differ_and_the_zip_holds_all(engine, upload, pair):
    done = degrade(engine, "me", upload(pair, "Oma.png"), DegradeOptions(variants=3))
    pictures = [read_photo(path).pixels for path in done.variants]
    assert [picture.shape for picture in pictures] == [(64, 64, 3)] * 3
    assert (pictures[0] != pictures[1]).any()
    with zipfile.ZipFile(done.archive) as archive:
        names = ["Oma_clean.png", "Oma_00.png", "Oma_01.png", "Oma_02.png", "report.json"]
        assert archive.namelist() == names
        report = archive.read("report.json").decode()
    assert json.loads(report)["totals"] == {"written": 3, "failed": 0, "skipped": 0}
    assert str(engine.workspace.root) not in report


def test_results_are_those_of_the_command_for_the_same_file_and_seed(engine, upload):
    face = np.random.default_rng(0).integers(0, 256, (64, 64, 3)).astype(np.uint8)
    options = DegradeOptions(variants=1, find_face=False, seed=5)
    done = degrade(engine, "me", upload(face, "a.png"), options)
    degrader = FaceDegrader(engine.pipeline, phi=1.0, steps=None, model_name="tiny")
    expected = tensor_to_uint8(degrader(faces_to_tensor(face), [result_seed(5, "a_00")]))[0]
    np.testing.assert_array_equal(read_photo(done.variants[0]).pixels, expected)
    np.testing.assert_array_equal(read_photo(done.face).pixels, face)


def test_a_picture_without_a_face_needs_to_be_called_aligned(engine, upload):
    gray = np.full((80, 80, 3), 99, np.uint8)
    with pytest.raises(FlipnetError, match="no face was found"):
        degrade(engine, "me", upload(gray), DegradeOptions())
    done = degrade(engine, "me", upload(gray), DegradeOptions(variants=1, find_face=False))
    assert "80x80 pixels resized to 64x64" in done.records[0].warnings[0]


def test_cancelling_stops_between_variants(engine, upload, pair):
    seen = []

    def cancel_after_two(done: int, total: int, what: str) -> None:
        seen.append((done, total, what))
        if done == 2:
            engine.jobs.cancel("me")

    with pytest.raises(JobStoppedError):
        degrade(engine, "me", upload(pair), DegradeOptions(variants=4), cancel_after_two)
    assert seen == [(0, 4, "variants"), (1, 4, "variants"), (2, 4, "variants")]
    assert list((engine.workspace.root / "jobs").iterdir()) == []
