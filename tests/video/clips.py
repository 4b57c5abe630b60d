"""Tiny clips made on the spot: a face that moves over a background, and a tone."""

from __future__ import annotations

from collections.abc import Sequence
from fractions import Fraction
from pathlib import Path

import av
import numpy as np
import skimage.data
from PIL import Image

RATE = 25
SOUND_RATE = 48000
SIZE_PX = (192, 144)  # width, height
PORTRAIT = np.asarray(Image.fromarray(skimage.data.astronaut()[0:256, 96:352]).resize((128, 128)))
"""NASA's portrait of Eileen Collins; in these 128 pixels her nose lies at about (62, 58)."""


def background(size_px: tuple[int, int] = SIZE_PX) -> np.ndarray:
    """A smooth colourful plain without faces."""
    width, height = size_px
    x, y = np.meshgrid(np.linspace(60, 180, width), np.linspace(180, 60, height))
    return np.stack([x, y, np.full_like(x, 110)], axis=2).astype(np.uint8)


def moving_face(count: int, *, step_px: int = 1, start: tuple[int, int] = (0, 8)) -> list[np.ndarray]:
    """Frames in which the portrait goes to the right by `step_px` a frame."""
    frames = []
    for number in range(count):
        frame = background()
        x, y = start[0] + number * step_px, start[1]
        frame[y : y + 128, x : x + 128] = PORTRAIT
        frames.append(frame)
    return frames


def write_clip(
    path: Path,
    frames: Sequence[np.ndarray],
    *,
    times_ms: Sequence[int] | None = None,
    codec: str = "libx264",
    pixel_format: str = "yuv420p",
    sound: str | None = "aac",
    matrix: int = 5,
    color_range: int = 1,
    rotation: int = 0,
    aspect: Fraction | None = None,
    options: dict[str, str] | None = None,
) -> Path:
    """Encode RGB frames at 25 per second, or at `times_ms`, with a 440 Hz tone of the same length."""
    path.parent.mkdir(parents=True, exist_ok=True)
    times = list(times_ms or (number * 1000 // RATE for number in range(len(frames))))
    with av.open(str(path), "w", options=options or {}) as container:
        container.metadata["title"] = "a moving face"
        stream = container.add_stream(codec, rate=RATE, options={"crf": "12"} if "26" in codec else {})
        stream.height, stream.width = frames[0].shape[:2]
        stream.pix_fmt = pixel_format
        context = stream.codec_context
        context.time_base = Fraction(1, 1000) if codec != "mpeg4" else Fraction(1, RATE)
        context.colorspace, context.color_range = matrix, color_range
        if aspect is not None:
            context.sample_aspect_ratio = aspect
        if rotation:
            stream.set_display_rotation(rotation)
        tone = container.add_stream(sound, rate=SOUND_RATE, layout="mono") if sound else None
        for time_ms, pixels in zip(times, frames, strict=True):
            frame = av.VideoFrame.from_ndarray(np.ascontiguousarray(pixels), "rgb24").reformat(
                format=pixel_format, dst_colorspace=matrix, dst_color_range=color_range
            )
            frame.pts, frame.time_base = time_ms, Fraction(1, 1000)
            container.mux(stream.encode(frame))
        if tone is not None:
            for chunk in _tone((times[-1] + 1000 // RATE) * SOUND_RATE // 1000, sound == "pcm_s16le"):
                container.mux(tone.encode(chunk))
            container.mux(tone.encode(None))
        container.mux(stream.encode(None))
    return path


def _tone(samples: int, whole_numbers: bool):
    wave = 0.3 * np.sin(2 * np.pi * 440 * np.arange(samples) / SOUND_RATE)
    for start in range(0, samples, 1024):
        part = wave[None, start : start + 1024]
        if whole_numbers:
            frame = av.AudioFrame.from_ndarray((part * 32767).astype(np.int16), "s16", "mono")
        else:
            frame = av.AudioFrame.from_ndarray(part.astype(np.float32), "fltp", "mono")
        frame.rate, frame.pts, frame.time_base = SOUND_RATE, start, Fraction(1, SOUND_RATE)
        yield frame


def read_frames(path: Path) -> list[np.ndarray]:
    """All frames as stored, RGB."""
    with av.open(str(path)) as container:
        return [frame.to_ndarray(format="rgb24") for frame in container.decode(video=0)]


def frame_times_ms(path: Path) -> list[int]:
    with av.open(str(path)) as container:
        return [round(frame.time * 1000) for frame in container.decode(video=0)]


def packets(path: Path, kind: str) -> list[tuple[float, bytes]]:
    """(time in seconds, bytes) of every packet of the first "audio" or "video" stream."""
    with av.open(str(path)) as container:
        stream = getattr(container.streams, kind)[0]
        return [
            (float(packet.pts * packet.time_base), bytes(packet))
            for packet in container.demux(stream)
            if packet.pts is not None
        ]
