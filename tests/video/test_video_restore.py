"""Whole clips through `restore_video`: real files, the real detector, a restorer whose answer is known."""

from __future__ import annotations

import tracemalloc
from pathlib import Path

import numpy as np
import pytest

pytest.importorskip("av", reason="video needs PyAV (extra: video)")

from clips import PORTRAIT, background, frame_times_ms, moving_face, packets, read_frames, write_clip

from flipnet.faces.align import TEMPLATE_512
from flipnet.faces.detect import CenterFaceDetector
from flipnet.faces.photo import NoFacesError
from flipnet.faces.selection import FaceSelection
from flipnet.types import Face, FlipnetError
from flipnet.video.reading import VideoError
from flipnet.video.restore import restore_video
from flipnet.video.results import VideoOptions

NOSE = np.s_[60:70, 56:68]  # of PORTRAIT, eight rows down in `moving_face`


class Brighten:
    """Adds 10 % of the value range and remembers the seeds and sizes of its batches."""

    native_size_px = 64

    def __init__(self) -> None:
        self.seeds: list[list[int]] = []

    def __call__(self, faces, seeds):
        self.seeds.append(list(seeds))
        return (faces + 0.2).clamp(-1, 1)


class Broken(Brighten):
    def __call__(self, faces, seeds):
        return faces * float("nan")


class OneFace:
    """A detector for pictures that need none: always the same face."""

    def __call__(self, pixels):
        landmarks = (TEMPLATE_512 * 0.25 + 20).astype(np.float32)
        return [Face((40.0, 40.0, 120.0, 120.0), landmarks, 1.0)]


@pytest.fixture(scope="module")
def detector():
    return CenterFaceDetector(working_size_px=192, fine_size_px=0)


def names_in(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir())


def brightening(before: list[np.ndarray], after: list[np.ndarray], number: int) -> float:
    """Median change at the nose of `moving_face`'s frame of that number, in 8-bit levels."""
    rows, columns = NOSE
    place = np.s_[rows.start + 8 : rows.stop + 8, columns.start + number : columns.stop + number]
    return float(np.median(after[number][place].astype(int) - before[number][place]))


def test_a_moving_face_is_restored_in_every_frame_and_the_rest_stays(tmp_path, detector):
    clip = write_clip(tmp_path / "Fête 日本.mp4", moving_face(20))
    result = restore_video(clip, tmp_path / "out.mp4", Brighten(), detector)
    before, after = read_frames(clip), read_frames(tmp_path / "out.mp4")
    assert (result.frames, result.frames_with_faces, result.frames_restored) == (20, 20, 20)
    assert len(before) == len(after) == 20
    for number in range(20):
        assert brightening(before, after, number) == pytest.approx(25.5, abs=2.5)  # 10 % of 255
        far = np.s_[:, 165:]
        assert np.abs(after[number][far].astype(int) - before[number][far]).mean() < 1
    assert names_in(tmp_path) == ["Fête 日本.mp4", "out.mp4"]


def test_sound_is_copied_packet_by_packet_at_its_times(tmp_path, detector):
    clip = write_clip(tmp_path / "a.mp4", moving_face(8))
    result = restore_video(clip, tmp_path / "b.mp4", Brighten(), detector)
    assert result.sound == "copied"
    assert packets(clip, "audio") == packets(tmp_path / "b.mp4", "audio")
    assert frame_times_ms(clip) == frame_times_ms(tmp_path / "b.mp4")


def test_one_face_is_one_track_with_one_seed_whatever_the_batch(tmp_path, detector):
    clip = write_clip(tmp_path / "a.mp4", moving_face(10))
    for batch_size, sizes in ((1, [1] * 10), (4, [4, 4, 2])):
        restorer = Brighten()
        options = VideoOptions(seed=7, batch_size=batch_size)
        result = restore_video(clip, tmp_path / f"{batch_size}.mp4", restorer, detector, options)
        (track,) = result.tracks
        assert (track.track, track.seed, track.frames, track.restored) == (0, 7, 10, 10)
        assert (track.first_s, track.last_s) == (0, pytest.approx(0.36))
        assert [len(seeds) for seeds in restorer.seeds] == sizes
        assert {seed for seeds in restorer.seeds for seed in seeds} == {7}
    one, four = read_frames(tmp_path / "1.mp4"), read_frames(tmp_path / "4.mp4")
    assert all(np.array_equal(a, b) for a, b in zip(one, four, strict=True))


def test_a_cut_starts_a_new_face(tmp_path, detector):
    dark = [frame // 3 for frame in moving_face(10, start=(40, 8))]
    clip = write_clip(tmp_path / "a.mp4", moving_face(10) + dark)
    result = restore_video(clip, tmp_path / "b.mp4", Brighten(), detector)
    assert result.cuts == 1
    assert [(t.track, t.frames, t.seed) for t in result.tracks] == [(0, 10, 0), (1, 10, 1)]


def test_frames_without_faces_pass_and_are_counted(tmp_path, detector):
    empty = [background()] * 10
    clip = write_clip(tmp_path / "a.mp4", empty + moving_face(10) + empty)
    result = restore_video(clip, tmp_path / "b.mp4", Brighten(), detector)
    assert result.frames == 30
    assert (result.frames_with_faces, result.frames_restored) == (10, 10)
    before, after = read_frames(clip), read_frames(tmp_path / "b.mp4")
    assert np.abs(after[3].astype(int) - before[3]).mean() < 1
    assert np.abs(after[15].astype(int) - before[15]).mean() > 2


def test_a_clip_without_faces_is_an_error_and_leaves_nothing(tmp_path, detector):
    clip = write_clip(tmp_path / "a.mp4", [background()] * 6)
    with pytest.raises(NoFacesError, match="no face was found in the clip"):
        restore_video(clip, tmp_path / "b.mp4", Brighten(), detector)
    assert names_in(tmp_path) == ["a.mp4"]


def test_a_clip_whose_faces_are_all_left_alone_is_an_error(tmp_path, detector):
    clip = write_clip(tmp_path / "a.mp4", moving_face(6))
    options = VideoOptions(select=FaceSelection(min_size_px=500))
    with pytest.raises(FlipnetError, match=r"no face was restored: .*500"):
        restore_video(clip, tmp_path / "b.mp4", Brighten(), detector, options)
    assert names_in(tmp_path) == ["a.mp4"]


def test_a_restorer_that_fails_leaves_nothing(tmp_path, detector):
    clip = write_clip(tmp_path / "a.mp4", moving_face(6))
    (tmp_path / "b.mp4").write_text("what was there before")
    with pytest.raises(FlipnetError, match=r"not finite at 0\.00 s"):
        restore_video(clip, tmp_path / "b.mp4", Broken(), detector)
    assert names_in(tmp_path) == ["a.mp4", "b.mp4"]
    assert (tmp_path / "b.mp4").read_text() == "what was there before"


def test_blend_nought_leaves_the_face_as_it_was(tmp_path, detector):
    clip = write_clip(tmp_path / "a.mp4", moving_face(6))
    restore_video(clip, tmp_path / "b.mp4", Brighten(), detector, VideoOptions(blend=0))
    assert brightening(read_frames(clip), read_frames(tmp_path / "b.mp4"), 3) == pytest.approx(0, abs=1)


def test_a_black_and_white_clip_gets_no_colour(tmp_path, detector):
    class Redden(Brighten):
        def __call__(self, faces, seeds):
            faces = faces.clone()
            faces[:, 0] += 0.4
            return faces.clamp(-1, 1)

    gray = [np.repeat(frame.mean(2, keepdims=True), 3, 2).astype(np.uint8) for frame in moving_face(6)]
    clip = write_clip(tmp_path / "a.mp4", gray)
    restore_video(clip, tmp_path / "b.mp4", Redden(), detector)
    after = read_frames(tmp_path / "b.mp4")[3].astype(int)
    assert np.ptp(after, axis=2).max() <= 6
    assert brightening(read_frames(clip), [*read_frames(tmp_path / "b.mp4")], 3) > 8  # 0.299 of 20 %


def test_frames_can_be_enlarged(tmp_path, detector):
    clip = write_clip(tmp_path / "a.mp4", moving_face(4))
    restore_video(clip, tmp_path / "b.mp4", Brighten(), detector, VideoOptions(upscale=2))
    before, after = read_frames(clip)[2], read_frames(tmp_path / "b.mp4")[2]
    assert after.shape == (288, 384, 3)
    rise = np.median(after[140:150, 118:130].astype(int)) - np.median(before[70:75, 59:65].astype(int))
    assert rise == pytest.approx(25.5, abs=4)


def test_progress_counts_up_to_the_number_of_frames(tmp_path, detector):
    clip = write_clip(tmp_path / "a.mp4", moving_face(16))
    seen: list[tuple[int, int | None]] = []
    restore_video(clip, tmp_path / "b.mp4", Brighten(), detector, on_frame=lambda *call: seen.append(call))
    assert [done for done, _ in seen] == sorted(done for done, _ in seen)
    assert {total for _, total in seen} == {16}


def test_memory_does_not_grow_with_the_length(tmp_path):
    # A frame takes 0.12 MB as RGB; 30 more of them, were they kept, 3.5 MB beside some 4.
    frame = background((240, 160))
    frame[20:148, 20:148] = PORTRAIT
    peaks = []
    for count in (20, 50):
        clip = write_clip(tmp_path / f"{count}.mp4", [frame] * count, sound=None)
        tracemalloc.start()
        restore_video(clip, tmp_path / f"{count}_out.mp4", Brighten(), OneFace())
        peaks.append(tracemalloc.get_traced_memory()[1])
        tracemalloc.stop()
    assert peaks[1] < peaks[0] * 1.1


@pytest.mark.parametrize(
    ("name", "value"), [("blend", 1.5), ("upscale", 0), ("detect_every", 5), ("quality", 0)]
)
def test_options_out_of_range_are_refused(name, value):
    with pytest.raises(FlipnetError, match=name):
        VideoOptions(**{name: value})


def test_missing_file_and_unknown_container_are_named(tmp_path, detector):
    with pytest.raises(VideoError, match=r"gone\.mp4: no such file"):
        restore_video(tmp_path / "gone.mp4", tmp_path / "b.mp4", Brighten(), detector)
    clip = write_clip(tmp_path / "a.mp4", moving_face(2))
    with pytest.raises(VideoError, match="clips are written as mp4"):
        restore_video(clip, tmp_path / "b.avi", Brighten(), detector)
