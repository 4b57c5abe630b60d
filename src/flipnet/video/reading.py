"""Decode a clip frame by frame; the sound and whatever else is in the file passes by undecoded."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from fractions import Fraction
from pathlib import Path
from types import TracebackType
from typing import TYPE_CHECKING, Self, cast

import numpy as np

from flipnet.types import FlipnetError

try:
    import av
    from av.video.reformatter import Interpolation
except ImportError as error:
    raise FlipnetError('video needs PyAV, install it with: pip install "flipnet[video]"') from error

if TYPE_CHECKING:
    from av.packet import Packet
    from av.video.frame import VideoFrame
    from av.video.stream import VideoStream

_MISSING_END_S = 0.5
INTERPOLATION = int(
    Interpolation.BICUBIC
    | Interpolation.FULL_CHR_H_INT
    | Interpolation.FULL_CHR_H_INP
    | Interpolation.ACCURATE_RND
)
"""How libswscale goes between YUV and RGB: with all chroma there is, and rounded to nearest."""


class VideoError(FlipnetError):
    """A clip cannot be read or written; the message names the file and the cause."""


class VideoReader:
    """An open clip.

    Frames come in the order they are shown and as they are stored: turning them upright is `upright`'s job.
    Each has a time stamp later than the one before; one that lacks it gets it from the frame rate.

    Attributes:
        path: the file.
        stream: its picture; the first stream that is no cover art.
        frame_count: number of frames the file claims, or an estimate; None if it says nothing.
        sounds: its audio streams.
        rotation: degrees, counter-clockwise, by which the frames are to be turned for showing.
        warnings: sentences on what the file holds that will not come out as it is.

    Raises:
        VideoError: missing, empty, damaged, or without a picture.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self.warnings: list[str] = []
        if not path.is_file():
            raise VideoError(f"{path}: no such file")
        try:
            self.container = av.open(str(path))
        except (av.error.FFmpegError, OSError) as error:
            raise VideoError(f"{path}: not a clip, damaged, or cut short ({cause_of(error)})") from error
        pictures = [s for s in self.container.streams.video if not s.disposition & s.disposition.attached_pic]
        if not pictures:
            self.container.close()
            raise VideoError(f"{path}: there is no picture in this file")
        self.stream: VideoStream = pictures[0]
        self.stream.thread_type = "AUTO"
        self.rotation = self._first_frame().rotation
        self.sounds = list(self.container.streams.audio)
        rest = [s for s in self.container.streams if s not in (self.stream, *self.sounds)]
        if rest:
            kinds = ", ".join(sorted({s.type for s in rest}))
            self.warnings.append(f"only the first picture and the sound are kept, left out: {kinds}")
        self._ends_s = 0.0

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.container.close()

    @property
    def rate(self) -> Fraction:
        """Frames per second, on average; 25 if the file does not say."""
        return self.stream.average_rate or self.stream.guessed_rate or Fraction(25)

    @property
    def frame_count(self) -> int | None:
        """Frames in the file as its header says, else duration times rate; None if neither is known."""
        if self.container.duration is None:
            return self.stream.frames or None
        estimate = round(self.container.duration / av.time_base * self.rate)
        # AVI counts ticks where its rate is not constant.
        return self.stream.frames if 0 < self.stream.frames <= 2 * estimate else estimate

    def frames(self, pass_on: Callable[[Packet], None]) -> Iterator[VideoFrame]:
        """Decode the frames; every packet of sound met on the way is given to `pass_on`.

        Raises:
            VideoError: the file is damaged, or ends before its time.
        """
        interlaced = False
        try:
            for packet in self.container.demux([self.stream, *self.sounds]):
                self._note_end(packet)
                if packet.stream is not self.stream:
                    pass_on(packet)
                    continue
                for frame in self._stamped(cast("list[VideoFrame]", packet.decode())):
                    interlaced |= frame.interlaced_frame
                    yield frame
        except av.error.FFmpegError as error:
            raise VideoError(f"{self.path}: the clip is damaged or cut short ({cause_of(error)})") from error
        if interlaced:
            self.warnings.append(
                "the clip is interlaced and was treated as whole frames: deinterlace it first"
            )
        self._refuse_early_end()

    def _first_frame(self) -> VideoFrame:
        """Decode one frame, on the side: the new file's header is written before the first comes by."""
        try:
            with av.open(str(self.path)) as container:
                for frame in container.decode(container.streams[self.stream.index]):
                    return cast("VideoFrame", frame)
                cause = "the file ends before it"
        except (av.error.FFmpegError, OSError) as error:
            cause = cause_of(error)
        self.container.close()
        raise VideoError(f"{self.path}: not even the first frame can be decoded ({cause})")

    def _stamped(self, frames: Sequence[VideoFrame]) -> Iterator[VideoFrame]:
        base = self.stream.time_base or Fraction(1, 90000)
        step = max(1, round(1 / (self.rate * base)))
        for frame in frames:
            if frame.is_corrupt:
                raise VideoError(
                    f"{self.path}: a frame is damaged after {float(self._last_pts * base):.2f} s"
                )
            pts = frame.pts if frame.pts is not None else self._last_pts + step
            if self._seen_any and pts <= self._last_pts:
                pts = self._last_pts + 1
            frame.pts, self._last_pts, self._seen_any = pts, pts, True
            yield frame

    _last_pts, _seen_any = 0, False

    def _note_end(self, packet: Packet) -> None:
        if packet.pts is not None and packet.time_base is not None:
            end = float((packet.pts + (packet.duration or 0)) * packet.time_base)
            self._ends_s = max(self._ends_s, end)

    def _refuse_early_end(self) -> None:
        # Matroska says how long it is, and its reader takes a missing end for a good one.
        if self.container.duration is None:
            return
        start = (self.container.start_time or 0) / av.time_base
        promised = self.container.duration / av.time_base
        if promised - (self._ends_s - start) > _MISSING_END_S:
            raise VideoError(
                f"{self.path}: the clip is cut short, it ends after {self._ends_s - start:.1f} of {promised:.1f} s"
            )


def quarter_turns(frame: VideoFrame) -> int:
    """How often a stored frame is turned by 90 degrees, counter-clockwise, to stand upright."""
    return round(frame.rotation / 90) % 4


def upright(frame: VideoFrame) -> np.ndarray:
    """The frame as it is shown: RGB (H, W, 3), uint8, or uint16 where it has more than 8 bits.

    YUV without a colour space is taken as BT.709 from 720 lines on, as BT.601 below. Source: common practice of
    players.
    """
    deep = max(component.bits for component in frame.format.components) > 8
    pixels = frame.to_ndarray(
        format="rgb48le" if deep else "rgb24",
        src_colorspace=colour_matrix(frame.colorspace, frame.height),
        interpolation=INTERPOLATION,
    )
    return np.ascontiguousarray(np.rot90(pixels, quarter_turns(frame)))


def colour_matrix(colorspace: int, height: int) -> int:
    """The YUV matrix by its ITU-T H.273 number, as libswscale knows it: 1, 4, 5, 7 or 9."""
    if colorspace in (1, 4, 5, 7, 9):
        return colorspace
    if colorspace == 6:  # SMPTE 170M has the matrix of BT.601
        return 5
    return 1 if height >= 720 else 5


def cause_of(error: Exception) -> str:
    """FFmpeg's own words for an error."""
    return str(getattr(error, "strerror", None) or error)
