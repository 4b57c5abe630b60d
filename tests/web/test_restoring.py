"""The app's jobs without a page, with the tiny model and the real detector."""

from __future__ import annotations

import json
import threading
import zipfile

import numpy as np
import pytest

from flipnet.commands.report import PhotoStatus
from flipnet.images import read_photo
from flipnet.types import FlipnetError
from flipnet.web.jobs import JobStoppedError
from flipnet.web.limits import Limits
from flipnet.web.options import RestoreOptions
from flipnet.web.restoring import find_faces, restore, restore_batch, sample
from web.serving import LEFT, RIGHT, save, tiny_engine

OPTIONS = RestoreOptions(blend=1.0)


@pytest.fixture
def upload_to():
    """Make an engine with limits of its own and an upload in it."""
    engines = []

    def make(limits, pixels):
        engine = tiny_engine(limits)
        engines.append(engine)
        return engine, save(pixels, engine.workspace.root / "sha" / "photo.png")

    yield make
    for engine in engines:
        engine.workspace.close()


def passes(engine) -> list[int]:
    """A list that grows by one with every forward pass of the denoiser."""
    count: list[int] = []
    engine.pipeline.unet.register_forward_hook(lambda *_: count.append(1))
    return count


def test_faces_are_found_and_numbered(engine, upload, pair):
    found = find_faces(engine, upload(pair))
    assert found.reasons == (None, None)
    assert [read_photo(path).pixels.shape for path in found.thumbnails] == [(160, 160, 3)] * 2
    assert read_photo(found.picture).pixels.shape == pair.shape


def test_a_photo_without_faces_is_said_so_and_leaves_no_files(engine, upload):
    empty = upload(np.full((64, 64, 3), 99, np.uint8))
    with pytest.raises(FlipnetError, match="no face was found"):
        find_faces(engine, empty)
    with pytest.raises(FlipnetError, match="no face was found"):
        restore(engine, "me", empty, OPTIONS)
    assert list((engine.workspace.root / "jobs").iterdir()) == []


@pytest.mark.parametrize(("faces", "changed", "same"), [("0", RIGHT, LEFT), ("1", LEFT, RIGHT)])
def test_only_the_chosen_face_changes(engine, upload, pair, faces, changed, same):
    done = restore(engine, "me", upload(pair, "Oma.png"), RestoreOptions(faces=faces))
    result = read_photo(done.photo).pixels
    assert done.photo.name == "Oma_restored.png"
    np.testing.assert_array_equal(result[same], pair[same])
    assert (result[changed] != pair[changed]).any()
    np.testing.assert_array_equal(read_photo(done.before).pixels, pair)
    np.testing.assert_array_equal(read_photo(done.after).pixels, result)
    assert done.uncertainty is None
    with zipfile.ZipFile(done.faces) as archive:
        names = [f"Oma_restored_face{faces}_{what}.png" for what in ("before", "restored")]
        assert sorted(archive.namelist()) == names


def test_the_report_names_files_and_no_folders_of_the_server(engine, upload, pair):
    done = restore(engine, "me", upload(pair), RestoreOptions(faces="1", phi=0.5, seed=7))
    text = done.report.read_text()
    report = json.loads(text)
    assert str(engine.workspace.root) not in text
    assert report["settings"]["phi"] == 0.5
    (photo,) = report["photos"]
    assert (photo["input"], photo["output"], photo["status"]) == (
        "photo.png",
        "photo_restored.png",
        "restored",
    )
    assert [(face["status"], face["seed"]) for face in photo["faces"]] == [("skipped", None), ("restored", 8)]


def test_the_same_seed_gives_the_same_photo_and_another_seed_another(engine, upload, pair):
    results = [
        read_photo(restore(engine, "me", upload(pair), RestoreOptions(seed=seed)).photo).pixels
        for seed in (1, 1, 2)
    ]
    np.testing.assert_array_equal(results[0], results[1])
    assert (results[0] != results[2]).any()


def test_several_samples_come_with_a_picture_of_where_they_differ(engine, upload, pair):
    done = restore(engine, "me", upload(pair), RestoreOptions(faces="0", samples=2))
    assert read_photo(done.uncertainty).pixels.shape == pair.shape
    (face, _) = json.loads(done.report.read_text())["photos"][0]["faces"]
    assert face["samples"]["count"] == 2


def test_progress_counts_the_faces(engine, upload, pair):
    seen = []
    restore(engine, "me", upload(pair), OPTIONS, lambda *step: seen.append(step))
    assert seen == [(0, 2, "faces"), (1, 2, "faces"), (2, 2, "faces")]


def test_after_cancelling_no_further_face_is_computed(engine, upload, pair):
    photo = upload(pair)
    forward = passes(engine)
    restore(engine, "me", photo, RestoreOptions(faces="0"))
    of_one_face = len(forward)
    forward.clear()

    def cancel_after_one(done: int, total: int, what: str) -> None:
        if done == 1:
            assert engine.jobs.cancel("me") == 1

    with pytest.raises(JobStoppedError, match="cancelled"):
        restore(engine, "me", photo, OPTIONS, cancel_after_one)
    assert len(forward) == of_one_face
    assert restore(engine, "me", photo, OPTIONS).record.status is PhotoStatus.RESTORED


def test_after_cancelling_no_further_step_is_computed(engine, upload, pair):
    forward = passes(engine)

    def cancel_at_the_third(*_: object) -> None:
        if len(forward) == 3:
            engine.jobs.cancel("me")

    engine.pipeline.unet.register_forward_hook(cancel_at_the_third)
    with pytest.raises(JobStoppedError):
        restore(engine, "me", upload(pair), RestoreOptions(steps=50))
    assert len(forward) == 3


def test_a_job_ends_when_its_time_is_up(upload_to, pair):
    engine, photo = upload_to(Limits(job_seconds=0.5), pair)
    with pytest.raises(JobStoppedError, match=r"after 0\.5 seconds"):
        restore(engine, "me", photo, RestoreOptions(steps=100, samples=8))


def test_a_batch_goes_on_past_failures_and_hides_none(engine, upload, pair):
    broken = upload(pair, "broken.png")
    broken.write_bytes(b"not a picture")
    empty = upload(np.full((64, 64, 3), 99, np.uint8), "empty.png")
    uploads = [broken, upload(pair, "a.png"), empty, engine.workspace.root / "gone.png"]
    done = restore_batch(engine, "me", uploads, OPTIONS)
    outcomes = [(str(record.source), record.status.value) for record in done.records]
    assert outcomes == [
        ("broken.png", "failed"),
        ("a.png", "restored"),
        ("empty.png", "failed"),
        ("gone.png", "failed"),
    ]
    assert [record.cause is None for record in done.records] == [False, True, False, False]
    with zipfile.ZipFile(done.archive) as archive:
        assert archive.namelist() == ["a_restored.png", "report.json"]
        report = json.loads(archive.read("report.json"))
    assert report["totals"] == {"restored": 1, "partial": 0, "failed": 3, "skipped": 0}
    assert str(engine.workspace.root) not in json.dumps(report)


def test_a_batch_out_of_time_returns_what_was_done(upload_to, pair):
    engine, photo = upload_to(Limits(job_seconds=30), pair)

    def dawdle(done: int, total: int, what: str) -> None:
        if what.startswith("faces, photo 2"):
            (job,) = engine.jobs._of_session["me"]
            job._deadline = 0

    done = restore_batch(engine, "me", [photo] * 3, OPTIONS, dawdle)
    assert [record.status.value for record in done.records] == ["restored", "failed", "failed"]
    assert all("time limit" in record.cause for record in done.records[1:])


@pytest.mark.parametrize("number", [0, 51])
def test_a_batch_is_bounded(engine, upload, pair, number):
    with pytest.raises(FlipnetError, match=f"choose 1 to 50 photos, not {number}"):
        restore_batch(engine, "me", [upload(pair)] * number, OPTIONS)


def test_jobs_of_two_visitors_do_not_mix(engine, upload, pair):
    photo, together = upload(pair), {}
    alone = {
        seed: read_photo(restore(engine, "me", photo, RestoreOptions(seed=seed)).photo).pixels
        for seed in (1, 2)
    }

    def visit(seed: int) -> None:
        for _ in range(2):
            done = restore(engine, f"visitor {seed}", photo, RestoreOptions(seed=seed))
            together.setdefault(seed, []).append(read_photo(done.photo).pixels)

    threads = [threading.Thread(target=visit, args=(seed,)) for seed in (1, 2)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    for seed in (1, 2):
        assert len(together[seed]) == 2
        assert all(np.array_equal(result, alone[seed]) for result in together[seed])


@pytest.mark.parametrize(
    ("values", "named"),
    [
        ({"phi": 2.1}, "phi"),
        ({"phi": float("nan")}, "phi"),
        ({"blend": -0.1}, "blend"),
        ({"steps": 101}, "steps"),
        ({"steps": "many"}, "steps"),
        ({"seed": -1}, "seed"),
        ({"samples": 9}, "samples"),
        ({"faces": ["0"]}, "faces"),
        ({"faces": ""}, "faces"),
        ({"path": "/etc"}, "path"),
    ],
)
def test_options_out_of_range_are_refused_by_name(values, named):
    with pytest.raises(FlipnetError, match=f"^{named}: "):
        RestoreOptions.checked(**values)


def test_the_sample_photo_has_a_face(engine):
    assert len(find_faces(engine, sample(engine)).thumbnails) == 1
