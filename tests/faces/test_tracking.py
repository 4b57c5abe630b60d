"""Following faces: made-up detections along known paths, so that the answer is known."""

from __future__ import annotations

import numpy as np
import pytest

from flipnet.faces.align import TEMPLATE_512
from flipnet.faces.tracking import LOOK_AHEAD_FRAMES, MAX_GAP_FRAMES, FaceTracker, PlacedFace
from flipnet.types import Face, FlipnetError

FRAME_S = 1 / 25


def face_at(x: float, y: float = 100.0, side: float = 60.0) -> Face:
    """A face whose five landmarks lie around (x, y), inside a square box."""
    landmarks = (TEMPLATE_512 - TEMPLATE_512.mean(0)) * side / 256 + (x, y)
    half = side / 2
    return Face((x - half, y - half, x + half, y + half), landmarks.astype(np.float32), 0.9)


def follow(detections: list[list[Face] | None], tracker: FaceTracker | None = None) -> list[list[PlacedFace]]:
    tracker = tracker or FaceTracker()
    placed = []
    for number, faces in enumerate(detections):
        placed += tracker.add(number * FRAME_S, faces)
    return placed + tracker.end_shot()


def centre(placed: PlacedFace) -> np.ndarray:
    return placed.face.landmarks_px.mean(0)


def test_every_frame_is_placed_once_in_order():
    placed = follow([[face_at(10.0 + 3 * i)] for i in range(40)])
    assert [len(faces) for faces in placed] == [1] * 40
    assert {faces[0].track for faces in placed} == {0}
    np.testing.assert_allclose([centre(faces[0])[0] for faces in placed], 10 + 3 * np.arange(40), atol=1e-3)


def test_a_face_that_moves_evenly_is_not_held_back_anywhere():
    placed = follow([[face_at(5.0 * i, 200 - 2.0 * i)] for i in range(25)])
    for number, (face,) in enumerate(placed):
        np.testing.assert_allclose(centre(face), (5 * number, 200 - 2 * number), atol=1e-3)
        x0, y0, x1, y1 = face.face.box_px
        assert ((x0 + x1) / 2, (y0 + y1) / 2) == pytest.approx((5 * number, 200 - 2 * number), abs=1e-3)


def test_jitter_goes_down_by_what_the_filter_promises():
    rng = np.random.default_rng(0)
    jitter = rng.normal(0, 2, 400)
    placed = follow([[face_at(100 + value)] for value in jitter])
    left = np.std([centre(faces[0])[0] - 100 for faces in placed])
    # A Gaussian of 1.5 frames leaves 1 / sqrt(2 sqrt(pi) 1.5) of white noise.
    assert left / jitter.std() == pytest.approx(0.434, rel=0.1)
    raw = follow([[face_at(100 + value)] for value in jitter], FaceTracker(smoothing_s=0))
    assert np.std([centre(faces[0])[0] for faces in raw]) == pytest.approx(jitter.std(), rel=1e-3)


def test_two_faces_that_pass_each_other_keep_their_numbers():
    placed = follow(
        [[face_at(20.0 + 4 * i, 80), face_at(220.0 - 4 * i, 130)][:: (-1) ** i] for i in range(50)]
    )
    for number, faces in enumerate(placed):
        where = {face.track: centre(face) for face in faces}
        rising, falling = sorted(where, key=lambda track: where[track][1])
        assert where[rising][0] == pytest.approx(20 + 4 * number, abs=0.5)
        assert where[falling][0] == pytest.approx(220 - 4 * number, abs=0.5)
        assert {rising, falling} == {0, 1}
    assert len({tuple(sorted((f.track, round(float(centre(f)[1]))) for f in faces)) for faces in placed}) == 1


def test_a_gap_is_bridged_along_the_way():
    seen = [[face_at(50 + 2.0 * i)] if not 20 <= i < 20 + MAX_GAP_FRAMES else [] for i in range(50)]
    placed = follow(seen)
    assert [faces[0].track for faces in placed] == [0] * 50
    np.testing.assert_allclose([centre(f[0])[0] for f in placed], 50 + 2 * np.arange(50), atol=1e-3)
    assert {faces[0].strength for faces in placed} == {1.0}


def test_a_longer_gap_ends_the_track():
    gap = MAX_GAP_FRAMES + 1
    seen = [[face_at(50.0)] if not 20 <= i < 20 + gap else [] for i in range(60)]
    placed = follow(seen)
    assert [[face.track for face in faces] for faces in placed] == [[0]] * 20 + [[]] * gap + [[1]] * (
        40 - gap
    )
    strengths = [faces[0].strength for faces in placed if faces]
    assert strengths[14:24] == [1.0, 1.0, 1.0, 0.75, 0.5, 0.25, 0.25, 0.5, 0.75, 1.0]
    assert strengths[0] == strengths[-1] == 1.0  # there at the shot's ends: nothing to fade


def test_a_false_face_that_flashes_up_is_no_face():
    placed = follow(
        [[face_at(50.0), face_at(200.0)] if i in (15, 16) else [face_at(50.0)] for i in range(40)]
    )
    assert [len(faces) for faces in placed] == [1] * 40


def test_a_shot_of_one_frame_has_faces_all_the_same():
    assert [len(faces) for faces in follow([[face_at(50.0)]])] == [1]


@pytest.mark.parametrize("every", [2, 3, 4])
def test_frames_nobody_looked_at_are_filled_in(every):
    seen = [[face_at(30 + 3.0 * i)] if i % every == 0 else None for i in range(32)]
    placed = follow(seen)
    assert [len(faces) for faces in placed] == [1] * 32
    # After the last look the face is held where it was.
    last = 31 // every * every
    got = [centre(faces[0])[0] for faces in placed]
    np.testing.assert_allclose(got[: last - 6], 30 + 3 * np.arange(last - 6), atol=1e-3)


def test_nothing_is_carried_over_a_cut():
    tracker = FaceTracker()
    first = [frame for i in range(10) for frame in tracker.add(i * FRAME_S, [face_at(100.0)])]
    first += tracker.end_shot()
    second = [frame for i in range(10, 20) for frame in tracker.add(i * FRAME_S, [face_at(104.0)])]
    second += tracker.end_shot()
    assert [[face.track for face in faces] for faces in first + second] == [[0]] * 10 + [[1]] * 10
    assert centre(second[0][0])[0] == pytest.approx(104, abs=1e-3)


def test_frames_wait_no_longer_than_the_look_ahead():
    tracker = FaceTracker()
    waiting = 0
    for number in range(200):
        waiting += 1 - len(tracker.add(number * FRAME_S, [face_at(100.0)]))
        assert waiting <= LOOK_AHEAD_FRAMES
        assert sum(len(track.frames) for track in tracker._tracks) <= 2 * LOOK_AHEAD_FRAMES + 3


def test_uneven_frame_times_are_taken_as_they_are():
    tracker = FaceTracker()
    times = np.cumsum([0.02, 0.08] * 20)
    placed = [frame for time_s in times for frame in tracker.add(time_s, [face_at(100 + 50 * time_s)])]
    placed += tracker.end_shot()
    np.testing.assert_allclose([centre(f[0])[0] for f in placed], 100 + 50 * times, atol=1e-3)


def test_negative_smoothing_is_refused():
    with pytest.raises(FlipnetError, match="below 0"):
        FaceTracker(smoothing_s=-1)
