"""Clips in and out: what is kept, what a damaged file says, and that nothing half-written stays."""

from __future__ import annotations

from fractions import Fraction
from pathlib import Path

import numpy as np
import pytest

av = pytest.importorskip("av", reason="video needs PyAV (extra: video)")

from clips import RATE, frame_times_ms, moving_face, packets, read_frames, write_clip  # noqa: E402

from flipnet.video.planes import keep_outside, turned  # noqa: E402
from flipnet.video.reading import VideoError, VideoReader, upright  # noqa: E402
from flipnet.video.writing import VideoWriter  # noqa: E402


def copy_clip(source: Path, target: Path, *, paint: bool = False) -> VideoWriter:
    """Every frame through reader and writer; with `paint` a white square at (80..110, 40..70), upright."""
    with VideoReader(source) as reader, VideoWriter(target, reader) as writer:
        writer.set_metadata(keep=True, comment="copied")
        for frame in reader.frames(writer.pass_on):
            if paint:
                pixels = upright(frame)
                pixels[40:70, 80:110] = np.iinfo(pixels.dtype).max
                writer.write(frame, pixels, [(80, 40, 110, 70)])
            else:
                writer.write(frame)
        writer.commit()
    return writer


def facts(path: Path) -> dict[str, object]:
    with av.open(str(path)) as container:
        stream = container.streams.video[0]
        frame = next(container.decode(stream))
        context = stream.codec_context
        return {
            "size": (frame.width, frame.height),
            "format": frame.format.name,
            "rotation": frame.rotation,
            "matrix": context.colorspace,
            "range": context.color_range,
            "aspect": context.sample_aspect_ratio,
        }


@pytest.mark.parametrize(
    ("source", "target", "settings"),
    [
        ("a.mp4", "b.mp4", {"matrix": 1}),
        ("a.mp4", "b.mp4", {"pixel_format": "yuvj420p", "color_range": 2}),
        ("a.mp4", "b.mp4", {"pixel_format": "yuv420p10le", "matrix": 1}),
        ("a.mov", "b.mov", {"pixel_format": "yuv422p"}),
        ("a.mkv", "b.mkv", {"pixel_format": "yuv444p"}),
        ("a.mp4", "b.mp4", {"aspect": Fraction(16, 15)}),
        ("a.mov", "b.mkv", {"codec": "prores_ks", "pixel_format": "yuv422p10le", "sound": "pcm_s16le"}),
        ("a.webm", "b.webm", {"codec": "libvpx-vp9", "sound": "libopus"}),
        ("a.ts", "b.mp4", {}),
    ],
)
def test_size_colours_and_times_are_kept(tmp_path, source, target, settings):
    clip = write_clip(tmp_path / source, moving_face(8), **settings)
    writer = copy_clip(clip, tmp_path / target)
    assert facts(tmp_path / target) == facts(clip)
    assert writer.sound == "copied"
    times = frame_times_ms(clip)
    assert [time - times[0] for time in times] == [
        time - frame_times_ms(tmp_path / target)[0] for time in frame_times_ms(tmp_path / target)
    ]
    for before, after in zip(read_frames(clip), read_frames(tmp_path / target), strict=True):
        assert np.abs(before.astype(int) - after).mean() < 2


@pytest.mark.parametrize(("rotation", "stored"), [(90, -1), (180, 2), (-90, 1)])
def test_a_clip_filmed_on_its_side_is_seen_upright_and_stays_on_its_side(tmp_path, rotation, stored):
    frames = moving_face(4)
    clip = write_clip(tmp_path / "a.mp4", [np.rot90(frame, stored) for frame in frames], rotation=rotation)
    with VideoReader(clip) as reader:
        seen = [upright(frame) for frame in reader.frames(lambda packet: None)]
    for frame, pixels in zip(frames, seen, strict=True):
        assert np.abs(frame.astype(int) - pixels).mean() < 4
    copy_clip(clip, tmp_path / "b.mp4", paint=True)
    assert facts(tmp_path / "b.mp4") == facts(clip)
    painted = np.rot90(read_frames(tmp_path / "b.mp4")[2], -stored)
    assert painted[43:67, 83:107].min() > 240


def test_uneven_frame_times_are_kept(tmp_path):
    times = [0, 40, 100, 120, 300, 340, 400, 440, 600, 640, 650, 700]
    clip = write_clip(tmp_path / "a.mp4", moving_face(12), times_ms=times)
    assert frame_times_ms(clip) == times
    for name in ("b.mp4", "b.webm"):
        copy_clip(clip, tmp_path / name)
        assert frame_times_ms(tmp_path / name) == times
    # Matroska allows no time before 0, where AAC starts: everything moves by one of its packets.
    copy_clip(clip, tmp_path / "b.mkv")
    moved = frame_times_ms(tmp_path / "b.mkv")
    assert [time - moved[0] for time in moved] == times
    gap = packets(tmp_path / "b.mkv", "video")[0][0] - packets(tmp_path / "b.mkv", "audio")[0][0]
    assert gap == pytest.approx(packets(clip, "video")[0][0] - packets(clip, "audio")[0][0], abs=2e-3)


def test_sound_the_container_cannot_hold_is_encoded_anew_at_full_length(tmp_path):
    clip = write_clip(tmp_path / "a.mkv", moving_face(RATE), sound="pcm_s16le")
    writer = copy_clip(clip, tmp_path / "b.m4v")
    assert writer.sound == "encoded as aac"
    with av.open(str(tmp_path / "b.m4v")) as container:
        (sound,) = container.streams.audio
        wave = np.concatenate([frame.to_ndarray()[0] for frame in container.decode(sound)])
    assert len(wave) / 48000 == pytest.approx(1, abs=0.05)
    spectrum = np.abs(np.fft.rfft(wave[4800:43200]))
    assert np.argmax(spectrum) * 48000 / 38400 == pytest.approx(440, abs=2)


def test_without_an_h264_encoder_the_other_one_is_used_and_named(tmp_path, monkeypatch):
    monkeypatch.setattr("flipnet.video.writing._DEFAULT_ENCODERS", ("an-encoder-nobody-has", "mpeg4"))
    clip = write_clip(tmp_path / "a.ts", moving_face(6))  # its clock of 1/90000 s is too fine for MPEG-4
    writer = copy_clip(clip, tmp_path / "b.mp4")
    assert writer.warnings == ["encoded as mpeg4: this PyAV came without an-encoder-nobody-has"]
    assert frame_times_ms(tmp_path / "b.mp4") == frame_times_ms(clip)


def test_odd_sizes_keep_their_last_row(tmp_path):
    clip = write_clip(tmp_path / "a.mkv", [f[:143, :191] for f in moving_face(3)], pixel_format="yuv444p")
    copy_clip(clip, tmp_path / "b.mp4", paint=True)
    assert facts(tmp_path / "b.mp4")["size"] == (191, 143)


def test_title_is_kept_and_the_comment_added(tmp_path):
    copy_clip(write_clip(tmp_path / "a.mp4", moving_face(2)), tmp_path / "b.mp4")
    with av.open(str(tmp_path / "b.mp4")) as container:
        assert container.metadata["title"] == "a moving face"
        assert container.metadata["comment"] == "copied"


@pytest.mark.parametrize("pixel_format", ["yuv420p", "yuv422p", "yuv444p", "yuv420p10le"])
def test_samples_outside_the_boxes_are_the_decoders_own_to_the_bit(pixel_format):
    rng = np.random.default_rng(0)
    noise = [av.VideoFrame.from_ndarray(rng.integers(0, 256, (48, 64, 3), np.uint8), "rgb24") for _ in "ab"]
    old, new = (frame.reformat(format=pixel_format) for frame in noise)
    changed = [np.frombuffer(plane, np.uint8).copy() for plane in new.planes]
    keep_outside(new, old, [(9, 7, 20, 16), (40, 30, 64, 48)])
    for index, plane in enumerate(new.planes):
        result, before = np.frombuffer(plane, np.uint8), np.frombuffer(old.planes[index], np.uint8)
        assert ((result == before) | (result == changed[index])).all()
        assert 0.03 < (result != before).mean() < 0.3
    luma = [np.frombuffer(f.planes[0], "u1" if "10" not in pixel_format else "<u2") for f in (new, old)]
    differs = luma[0].reshape(48, -1)[:, :64] != luma[1].reshape(48, -1)[:, :64]
    inside = np.zeros((48, 64), bool)
    inside[7:16, 9:20] = inside[30:48, 40:64] = True
    assert not differs[~inside].any()
    assert differs[inside].mean() > 0.9


@pytest.mark.parametrize("turns", [-1, 0, 1, 2, 3])
def test_boxes_turn_with_their_frames(turns):
    picture = np.zeros((20, 30), int)
    picture[3:8, 11:25] = 1
    x0, y0, x1, y1 = turned((11, 3, 25, 8), turns, picture.shape)
    upright_again = np.rot90(picture, turns)
    assert upright_again[y0:y1, x0:x1].all()
    assert upright_again.sum() == (y1 - y0) * (x1 - x0)


@pytest.mark.parametrize(
    ("name", "settings", "share"),
    [
        ("a.mp4", {}, 0.5),
        ("a.mp4", {"options": {"movflags": "faststart"}}, 0.6),
        ("a.mkv", {}, 0.5),
        ("a.webm", {"codec": "libvpx-vp9", "sound": "libopus"}, 0.5),
        ("a.mkv", {}, 0.01),
    ],
)
def test_a_clip_cut_short_is_an_error_that_leaves_nothing(tmp_path, name, settings, share):
    clip = write_clip(tmp_path / name, moving_face(2 * RATE), **settings)
    whole = clip.read_bytes()
    clip.write_bytes(whole[: int(share * len(whole))])
    with pytest.raises(VideoError, match=name) as refused:
        copy_clip(clip, tmp_path / "b.mp4")
    assert "\n" not in str(refused.value)
    assert [path.name for path in tmp_path.iterdir()] == [name]


@pytest.mark.parametrize("content", [b"", b"no clip at all" * 100])
def test_what_is_no_clip_is_named(tmp_path, content):
    (tmp_path / "a.mp4").write_bytes(content)
    with pytest.raises(VideoError, match=r"a\.mp4: not a clip"):
        VideoReader(tmp_path / "a.mp4")


def test_a_file_of_sound_alone_is_refused(tmp_path):
    with av.open(str(tmp_path / "a.mp4"), "w") as container:
        stream = container.add_stream("aac", rate=48000, layout="mono")
        frame = av.AudioFrame.from_ndarray(np.zeros((1, 1024), np.float32), "fltp", "mono")
        frame.rate = 48000
        container.mux(stream.encode(frame))
        container.mux(stream.encode(None))
    with pytest.raises(VideoError, match="no picture"):
        VideoReader(tmp_path / "a.mp4")


def test_a_folder_that_cannot_be_written_is_named(tmp_path):
    clip = write_clip(tmp_path / "a.mp4", moving_face(2))
    with pytest.raises(VideoError, match=r"gone/b\.mp4: cannot be written"):
        copy_clip(clip, tmp_path / "gone" / "b.mp4")
