"""One photo through `restore_job`: real files, the real detector, a restorer whose answer is known."""

from pathlib import Path

import numpy as np
import pytest
import skimage.data
from PIL import Image

from flipnet.commands.outputs import Job, OutputNaming
from flipnet.commands.report import PhotoStatus, run_as_json
from flipnet.commands.restore import RestoreSettings, restore_job
from flipnet.faces.detect import CenterFaceDetector
from flipnet.images import read_photo
from flipnet.pipelines.likeness import LikenessCheck
from flipnet.types import Findings, RestoredBatch
from tiny import tiny_pipeline


class Brighten:
    """Adds 10 % of the value range; faces whose seeds are in `broken` come back not finite."""

    native_size_px = 64

    def __init__(self, broken: tuple[int, ...] = ()) -> None:
        self.broken = broken

    def __call__(self, faces, seeds):
        restored = (faces + 0.2).clamp(-1, 1)
        for index, seed in enumerate(seeds):
            if seed in self.broken:
                restored[index] = float("nan")
        return restored


@pytest.fixture(scope="module")
def detector():
    return CenterFaceDetector()


@pytest.fixture(scope="module")
def portrait():
    """The upper part of NASA's portrait of Eileen Collins: one face around (220, 110)."""
    return skimage.data.astronaut()[:256, 96:352]


def job_for(folder: Path, pixels: np.ndarray, name: str = "a.png") -> Job:
    folder.mkdir(parents=True, exist_ok=True)
    Image.fromarray(pixels).save(folder / name)
    return Job(folder / name, folder / "out" / name)


def settings_for(job: Job, **changes: object) -> RestoreSettings:
    return RestoreSettings(OutputNaming(job.target.parent), **changes)


def names_in(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir())


def test_photo_is_written_with_its_companions(tmp_path, detector, portrait):
    job = job_for(tmp_path / "Großmutter 日本", portrait)
    settings = settings_for(job, save_faces=True, compare=True, seed=7)
    record = restore_job(job, settings, Brighten(), detector)
    assert (record.status, record.cause, record.output) == (PhotoStatus.RESTORED, None, job.target)
    names = ["a.png", "a_compare.png", "a_face0_before.png", "a_face0_restored.png"]
    assert names_in(job.target.parent) == names
    restored, before = read_photo(job.target).pixels.astype(int), portrait.astype(int)
    np.testing.assert_array_equal(restored[-20:], before[-20:])
    # 10 % of 255 in the middle of the face, where nothing is near white
    assert abs(np.median((restored - before)[100:120, 115:135]) - 25.5) <= 1
    saved = [read_photo(job.face_path(0, what)).pixels.astype(int) for what in ("before", "restored")]
    assert saved[0].shape == (64, 64, 3)
    assert abs(np.median(saved[1] - saved[0]) - 25.5) <= 1


def test_report_describes_the_face(tmp_path, detector, portrait):
    job = job_for(tmp_path, portrait)
    face = restore_job(job, settings_for(job, seed=7), Brighten(), detector).as_json(phi=1.3)["faces"][0]
    x0, y0, x1, y1 = face["box_px"]
    assert x0 < 124 < x1  # the nose of the portrait, read off the picture
    assert y0 < 120 < y1
    assert np.array(face["landmarks_px"]).shape == (5, 2)
    assert face["score"] > 0.8
    assert (face["status"], face["seed"], face["phi"], face["reason"]) == ("restored", 7, 1.3, None)
    assert face["seconds"] >= 0


def test_a_face_that_failed_is_never_passed_off_as_restored(tmp_path, detector, portrait):
    job = job_for(tmp_path, np.concatenate([portrait, portrait], axis=1))
    record = restore_job(job, settings_for(job, save_faces=True), Brighten(broken=(1,)), detector)
    assert record.status is PhotoStatus.PARTIAL
    assert record.is_failure
    assert record.cause.startswith("face 1 of 2 could not be restored, left as in the input: ")
    assert sorted(face.status for face in record.faces) == ["failed", "restored"]
    left, right = np.split(
        np.abs(read_photo(job.target).pixels.astype(int) - np.tile(portrait, (1, 2, 1))), 2, 1
    )
    assert sorted([left.max() > 0, right.max() > 0]) == [False, True]
    assert len([name for name in names_in(job.target.parent) if "_face" in name]) == 2


@pytest.mark.parametrize("detected", [True, False])
def test_nothing_is_written_without_a_restored_face(tmp_path, detector, portrait, detected):
    pixels = portrait if detected else np.full((64, 64, 3), 99, np.uint8)
    job = job_for(tmp_path, pixels)
    record = restore_job(job, settings_for(job, compare=True), Brighten(broken=(0,)), detector)
    assert record.status is PhotoStatus.FAILED
    assert record.output is None
    assert record.cause == (
        "no face was restored: the restorer returned values that are not finite"
        if detected
        else "no face was found in the photo"
    )
    assert names_in(tmp_path) == ["a.png"]


def test_truncated_file_is_the_photos_own_failure(tmp_path, detector, portrait):
    job = job_for(tmp_path, portrait)
    job.source.write_bytes(job.source.read_bytes()[:2000])
    record = restore_job(job, settings_for(job), Brighten(), detector)
    assert record.status is PhotoStatus.FAILED
    assert "truncated" in record.cause
    assert str(job.source) not in record.cause
    assert not job.target.parent.exists()


def test_result_that_cannot_be_written_leaves_no_companions(tmp_path, detector, portrait):
    alpha = np.full((*portrait.shape[:2], 1), 128, np.uint8)
    job = job_for(tmp_path, np.concatenate([portrait, alpha], axis=2))
    job = Job(job.source, job.target.with_suffix(".jpg"))
    record = restore_job(job, settings_for(job, compare=True, save_faces=True), Brighten(), detector)
    assert record.status is PhotoStatus.FAILED
    assert "transparency" in record.cause
    assert names_in(job.target.parent) == []


def test_aligned_crop_of_another_size_is_resized_with_a_warning(tmp_path, portrait):
    job = job_for(tmp_path, portrait[:200, :128])
    record = restore_job(job, settings_for(job, aligned=True), Brighten(), None)
    assert record.status is PhotoStatus.RESTORED
    assert "128x200 pixels resized to 64x64" in record.faces[0].warnings[0]
    assert read_photo(job.target).pixels.shape == (64, 64, 3)


class TwoSamples:
    """Gives every face two samples' findings; the restoration is 10 % brighter."""

    native_size_px = 64

    def __call__(self, faces, seeds):
        spread = np.full((64, 64), 6, np.float32)
        findings = tuple(Findings((seed, seed + 9), 1, spread, 6.0, 6.0, (2.0, 1.0)) for seed in seeds)
        return RestoredBatch((faces + 0.2).clamp(-1, 1), findings)


def test_samples_come_out_as_numbers_and_as_a_picture(tmp_path, detector, portrait):
    job = job_for(tmp_path, portrait)
    settings = settings_for(job, samples=2, uncertainty=True, seed=5)
    record = restore_job(job, settings, TwoSamples(), detector)
    assert names_in(job.target.parent) == ["a.png", "a_uncertainty.png"]
    assert read_photo(job.uncertainty_path).pixels.shape == portrait.shape
    assert record.as_json(1.0)["faces"][0]["samples"] == {
        "count": 2,
        "seeds": [5, 14],
        "chosen": 1,
        "spread_mean_levels": 6.0,
        "spread_p95_levels": 6.0,
        "flip_consistency_levels": [2.0, 1.0],
    }


@pytest.mark.parametrize("strip", [False, True])
def test_results_say_that_they_are_ai_restored_unless_told_not_to(tmp_path, detector, portrait, strip):
    job = job_for(tmp_path, portrait)
    settings = settings_for(job, save_faces=True, compare=True, strip_metadata=strip, model="/home/me/tiny")
    restore_job(job, settings, Brighten(), detector)
    for name in ("a.png", "a_compare.png", "a_face0_restored.png"):
        photo = read_photo(job.target.with_name(name))
        assert (photo.xmp is None) == strip
        assert (photo.exif is None) == strip
        if not strip:
            assert "model tiny;" in dict(photo.text)["Disclaimer"]
            assert b"/home/me" not in (job.target.with_name(name)).read_bytes()
    assert read_photo(job.face_path(0, "before")).xmp is None


def test_likeness_is_reported_and_a_low_one_warned_about(tmp_path, detector, portrait):
    class Stranger:
        native_size_px = 64

        def __call__(self, faces, seeds):
            return faces.flip(2)

    check = LikenessCheck(tiny_pipeline().face_encoder)
    job = job_for(tmp_path, portrait)
    same = restore_job(job, settings_for(job), Brighten(), detector, likeness=check).as_json(1.0)["faces"][0]
    other = restore_job(job, settings_for(job), Stranger(), detector, likeness=check).as_json(1.0)["faces"][0]
    assert same["likeness"]["similarity"] > other["likeness"]["similarity"]
    assert other["likeness"]["method"] == check.method
    for face in (same, other):
        assert face["likeness"]["low"] == any("same person" in warning for warning in face["warnings"])


def test_the_report_says_what_a_restored_face_is():
    assert "not evidence" in run_as_json({"phi": 1.0}, [])["note"]
