"""Encode restored frames, with everything else of the clip as it was: times, colours, rotation, sound."""

from __future__ import annotations

import os
import re
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from fractions import Fraction
from pathlib import Path
from types import TracebackType
from typing import TYPE_CHECKING, Any, Self, cast

import av
import numpy as np

from flipnet.video import WRITABLE_SUFFIXES
from flipnet.video.planes import Box, keep_outside, reformat, turned
from flipnet.video.reading import (
    VideoError,
    VideoReader,
    cause_of,
    colour_matrix,
    quarter_turns,
)

if TYPE_CHECKING:
    from av.packet import Packet
    from av.video.frame import VideoFrame

_ENCODERS = {".webm": ("libvpx-vp9",)}
_DEFAULT_ENCODERS = ("libx264", "mpeg4")
_SOUND_ENCODERS = {".webm": "libopus"}
_DEFAULT_SOUND_ENCODER = "aac"
_MPEG4_TICK = Fraction(1, 60000)  # its clock counts to 65535 a second
_LAYOUTS = {1: "mono", 2: "stereo", 3: "2.1", 4: "quad", 5: "5.0", 6: "5.1", 7: "6.1", 8: "7.1"}
# Planar YUV of 8 to 12 bits: what can be taken apart into planes of samples.
_PLANAR = re.compile(r"yuvj?4[0-4][0-4]p(1[02]le)?")


def quality_factor(quality: int) -> int:
    """Map quality 1..100 to the encoder's constant rate factor (0 best, 51 worst). Our choice: 95 gives 16."""
    return min(51, 14 + (100 - quality) // 2)


class VideoWriter:
    """Writes a clip like the one it is made from, under a temporary name until `commit`.

    The picture becomes H.264 (VP9 in WebM) with the source's own pixel format wherever the encoder has it, else
    the nearest; where PyAV came without an H.264 encoder, MPEG-4 part 2, and a warning says so. Frames keep their
    time stamps; size, aspect ratio, rotation, colour tags and the file's own tags are passed on. Sound is copied
    packet by packet where the new container can hold it, else encoded anew (AAC; Opus in WebM).

    Attributes:
        encoder: the picture's encoder, as FFmpeg calls it.
        sound: "none", "copied", or "encoded as aac" / "encoded as libopus".
        warnings: sentences on what changes.

    Args:
        path: the file to write; its suffix says which container.
        reader: the clip it is made from.
        quality: 1 to 100, see `quality_factor`.
        upscale: how much larger the frames will be.

    Raises:
        VideoError: the container is not one of `flipnet.video.WRITABLE_SUFFIXES`, or cannot be written.
    """

    def __init__(self, path: Path, reader: VideoReader, *, quality: int = 95, upscale: int = 1) -> None:
        suffix = path.suffix.lower()
        if suffix not in WRITABLE_SUFFIXES:
            raise VideoError(f"{path}: clips are written as {', '.join(s[1:] for s in WRITABLE_SUFFIXES)}")
        self.path, self._reader, self._upscale, self.warnings = path, reader, upscale, list[str]()
        self._temporary = path.with_name(f".flipnet-{os.getpid()}-{path.name}"[-250:])
        self.frame_count = 0
        # A player on the net can start before it has the whole file.
        options = {} if suffix in (".mkv", ".webm") else {"movflags": "+faststart"}
        with self._naming_errors():
            self._container = av.open(str(self._temporary), "w", options=options)
        try:
            with self._naming_errors():
                self._add_picture(suffix, quality)
                self._sounds = {sound.index: self._add_sound(sound, suffix) for sound in reader.sounds}
        except BaseException:
            self._discard()
            raise

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._discard()

    @property
    def sound(self) -> str:
        """What became of the sound."""
        anew = [sound.encoder for sound in self._sounds.values() if sound.encoder is not None]
        return f"encoded as {anew[0]}" if anew else "copied" if self._sounds else "none"

    def set_metadata(self, *, keep: bool, comment: str) -> None:
        """Pass the source file's tags on or not, and add a comment; before the first frame."""
        self._container.metadata.update(_metadata(self._reader.container.metadata if keep else {}, comment))

    def write(self, frame: VideoFrame, pixels: np.ndarray | None = None, boxes: Sequence[Box] = ()) -> None:
        """Encode the next frame.

        Args:
            frame: the decoded frame.
            pixels: the frame's new upright RGB pixels, (H, W, 3), times `upscale`; None = as it was.
            boxes: (x0, y0, x1, y1) where `pixels` differ, ends exclusive. All samples outside go to the encoder as
                they came from the decoder, untouched by the way through RGB.
        """
        stored = (frame.width * self._upscale, frame.height * self._upscale)
        if stored != (self._picture.width, self._picture.height):
            raise VideoError(f"{self._reader.path}: the picture changes its size within the clip")
        out = self._converted(frame, pixels, boxes)
        out.pts, out.time_base, out.pict_type = frame.pts, self._reader.stream.time_base, 0
        out.duration = frame.duration
        with self._naming_errors():
            self._container.mux(self._picture.encode(out))
        self.frame_count += 1

    def pass_on(self, packet: Packet) -> None:
        """Write a packet of sound from the reader's file."""
        with self._naming_errors():
            for ready in self._sounds[packet.stream.index].packets(packet):
                self._container.mux(ready)

    def commit(self) -> None:
        """Finish the file and give it its name."""
        with self._naming_errors():
            self._container.mux(self._picture.encode(None))
            for sound in self._sounds.values():
                for ready in sound.finish():
                    self._container.mux(ready)
            self._container.close()
            self._temporary.replace(self.path)

    def _add_picture(self, suffix: str, quality: int) -> None:
        source = self._reader.stream
        wanted = _ENCODERS.get(suffix, _DEFAULT_ENCODERS)
        available = [name for name in wanted if name in av.codecs_available]
        if not available:
            raise VideoError(f"{self.path}: this PyAV has no encoder for {suffix[1:]} ({', '.join(wanted)})")
        self.encoder = available[0]
        if self.encoder != wanted[0]:
            self.warnings.append(f"encoded as {self.encoder}: this PyAV came without {wanted[0]}")
        self._picture: Any = self._container.add_stream(
            self.encoder, rate=self._reader.rate, options=_encoder_options(self.encoder, quality)
        )
        context: Any = self._picture.codec_context
        context.width, context.height = source.width * self._upscale, source.height * self._upscale
        context.pix_fmt = self._pixel_format(context.width % 2 or context.height % 2)
        context.time_base = source.time_base
        if self.encoder == "mpeg4" and source.time_base is not None:
            context.time_base = max(source.time_base, _MPEG4_TICK)
        if self._reader.rotation:
            cast(Any, self._picture).set_display_rotation(self._reader.rotation)
        if source.codec_context.sample_aspect_ratio:
            context.sample_aspect_ratio = source.codec_context.sample_aspect_ratio
        for tag in ("color_range", "color_primaries", "color_trc", "colorspace"):
            setattr(context, tag, getattr(source.codec_context, tag))

    def _pixel_format(self, odd: int) -> str:
        source = self._reader.stream.format
        choices = [choice.name for choice in av.Codec(self.encoder, "w").video_formats or ()]
        choices = [name for name in choices if _PLANAR.fullmatch(name)]
        if odd and "yuv444p" in choices:  # halved chroma needs even sides
            return "yuv444p"
        if source.name in choices:
            return source.name
        if any(component.is_alpha for component in source.components):
            self.warnings.append("its transparency is left out")
        best, _ = av.codec.codec.find_best_pix_fmt_of_list(choices, source)
        return best.name if best is not None and "444" not in best.name else "yuv420p"

    def _add_sound(self, source: Any, suffix: str) -> _Sound:
        if source.codec_context.name in self._container.supported_codecs:
            return _Sound(self._container.add_stream_from_template(source), None)
        name = _SOUND_ENCODERS.get(suffix, _DEFAULT_SOUND_ENCODER)
        rate = 48000 if name == "libopus" else source.codec_context.sample_rate
        stream: Any = self._container.add_stream(name, rate=rate)
        # By number of channels: some containers do not say which is where.
        channels = source.codec_context.layout.nb_channels
        stream.layout = _LAYOUTS.get(channels, source.codec_context.layout.name)
        return _Sound(stream, name)

    def _converted(self, frame: VideoFrame, pixels: np.ndarray | None, boxes: Sequence[Box]) -> VideoFrame:
        target: str = self._picture.pix_fmt
        matrix = colour_matrix(frame.colorspace, frame.height)
        if pixels is None:
            kept = (
                frame if frame.format.name == target else reformat(frame, target, matrix, frame.color_range)
            )
            return kept
        turns = quarter_turns(frame)
        stored = np.ascontiguousarray(np.rot90(pixels, -turns))
        made = av.VideoFrame.from_ndarray(stored, "rgb48le" if stored.dtype == np.uint16 else "rgb24")
        made = reformat(made, target, matrix, frame.color_range)
        if self._upscale == 1 and frame.format.name == target and _PLANAR.fullmatch(target):
            keep_outside(made, frame, [turned(box, -turns, pixels.shape) for box in boxes])
        made.colorspace, made.color_range = frame.colorspace, frame.color_range
        return made

    def _discard(self) -> None:
        try:
            self._container.close()
        except (av.error.FFmpegError, OSError, ValueError):  # it is thrown away: a trailer is of no use
            pass
        finally:
            self._temporary.unlink(missing_ok=True)

    @contextmanager
    def _naming_errors(self) -> Iterator[None]:
        try:
            yield
        except (av.error.FFmpegError, OSError, ValueError) as error:
            raise VideoError(f"{self.path}: cannot be written ({cause_of(error)})") from error


class _Sound:
    """One audio stream of the output, fed with the source's packets."""

    def __init__(self, stream: Any, encoder: str | None) -> None:
        self._stream, self.encoder = stream, encoder
        if encoder is not None:
            context = stream.codec_context
            self._fit = av.AudioResampler(context.format, context.layout, context.sample_rate)

    def packets(self, packet: Packet) -> Iterator[Any]:
        if self.encoder is not None:
            for frame in packet.decode():
                yield from self._encoded(frame)
        elif packet.dts is not None:  # None marks the end
            packet.stream = self._stream
            yield packet

    def finish(self) -> Iterator[Any]:
        if self.encoder is not None:
            yield from self._encoded(None)
            yield from self._stream.encode(None)

    def _encoded(self, frame: Any) -> Iterator[Any]:
        for fitting in self._fit.resample(frame):
            yield from self._stream.encode(fitting)


def _encoder_options(encoder: str, quality: int) -> dict[str, str]:
    factor = quality_factor(quality)
    if encoder == "libx264":
        # Macroblock trees made runs differ here with the same input; the same seed is to give the same file.
        return {"crf": str(factor), "preset": "medium", "mbtree": "0"}
    if encoder == "libvpx-vp9":
        return {"crf": str(factor + 8), "b": "0", "row-mt": "1", "cpu-used": "4", "deadline": "good"}
    return {"qscale": str(max(1, (factor - 10) // 2)), "flags": "+qscale"}


def _metadata(source: dict[str, str], comment: str) -> dict[str, str]:
    # What FFmpeg reports about the container itself is untrue of the new one.
    own = {"major_brand", "minor_version", "compatible_brands", "encoder", "duration", "comment"}
    kept = {key: value for key, value in source.items() if key.lower() not in own}
    comments = [value for key, value in source.items() if key.lower() == "comment"] + [comment]
    return {**kept, "comment": "; ".join(filter(None, comments))} if any(comments) else kept
