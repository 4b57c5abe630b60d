"""Restore the faces of a clip, one frame after another, in memory that does not depend on its length."""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import torch

from flipnet.faces.align import align, crop_box, estimate_similarity, for_upscaled, scale_of
from flipnet.faces.paste import add_difference
from flipnet.faces.photo import LUMA, NoFacesError, nearly_gray
from flipnet.faces.tracking import FaceTracker, PlacedFace
from flipnet.images import faces_to_tensor, resize, to_8_bit
from flipnet.types import FaceDetector, FlipnetError, Restorer
from flipnet.video.choosing import FaceChooser
from flipnet.video.planes import Box
from flipnet.video.reading import VideoReader, upright
from flipnet.video.results import TrackResult, VideoOptions, VideoResult
from flipnet.video.steadying import CutFinder, FaceSteadier
from flipnet.video.writing import VideoWriter

if TYPE_CHECKING:
    from av.video.frame import VideoFrame

_LARGER = 1.05  # photo pixels per crop pixel from which a face counts as larger than the model's size


def restore_video(
    source: Path,
    target: Path,
    restorer: Restorer,
    detector: FaceDetector,
    options: VideoOptions | None = None,
    on_frame: Callable[[int, int | None], None] | None = None,
) -> VideoResult:
    """Restore the faces of a clip and write it with its sound; `target` appears complete or not at all.

    Faces are looked for in the frames, followed from frame to frame (`FaceTracker`), restored with one seed per
    face, and blended with their own past (`FaceSteadier`); a cut starts everything anew (`CutFinder`). Frames
    without faces, and all of a frame outside its faces, reach the encoder as they were decoded.

    Args:
        source: the clip.
        target: the file to write; its suffix says which container.
        restorer: maps aligned faces to restored ones.
        detector: finds faces in a frame.
        options: how; None takes the defaults.
        on_frame: called with the number of frames done and how many there will be (None: unknown).

    Raises:
        NoFacesError: no face was found in any frame.
        VideoError: the clip cannot be read, or the result cannot be written.
        FlipnetError: the restorer failed, or no face was restored.
    """
    options = options or VideoOptions()
    started = time.perf_counter()
    with (
        VideoReader(source) as reader,
        VideoWriter(target, reader, quality=options.quality, upscale=options.upscale) as writer,
    ):
        writer.set_metadata(keep=options.keep_metadata, comment=options.comment)
        run = _Run(restorer, options, writer)
        cuts = 0
        for moment in _followed(reader, writer, detector, options):
            cuts += moment.is_cut
            run.take(moment)
            if on_frame is not None:
                on_frame(writer.frame_count, reader.frame_count)
        run.finish()
        run.refuse_nothing_restored()
        writer.commit()
    return VideoResult(
        frames=writer.frame_count,
        frames_with_faces=run.frames_with_faces,
        frames_restored=run.frames_restored,
        tracks=tuple(run.tracks.values()),
        cuts=cuts,
        encoder=writer.encoder,
        sound=writer.sound,
        seconds=time.perf_counter() - started,
        warnings=(*reader.warnings, *writer.warnings, *run.warnings()),
    )


@dataclass
class _Moment:
    """One frame on its way: as decoded, upright pixels, and its faces once they are known."""

    frame: VideoFrame
    pixels: np.ndarray
    is_cut: bool
    faces: list[PlacedFace] = field(default_factory=list)

    @property
    def time_s(self) -> float:
        return self.frame.time


def _followed(
    reader: VideoReader, writer: VideoWriter, detector: FaceDetector, options: VideoOptions
) -> Iterator[_Moment]:
    """Yield the frames with their faces, some frames after they were decoded."""
    tracker, is_cut = FaceTracker(options.smoothing_s), CutFinder()
    waiting: deque[_Moment] = deque()

    def released(placements: Iterable[list[PlacedFace]]) -> Iterator[_Moment]:
        for faces in placements:
            moment = waiting.popleft()
            moment.faces = faces
            yield moment

    since_cut = 0
    for frame in reader.frames(writer.pass_on):
        pixels = upright(frame)
        seen = to_8_bit(pixels)
        moment = _Moment(frame, pixels, is_cut(seen))
        if moment.is_cut:
            yield from released(tracker.end_shot())
            since_cut = 0
        faces = detector(seen) if since_cut % options.detect_every == 0 else None
        since_cut += 1
        waiting.append(moment)
        yield from released(tracker.add(moment.time_s, faces))
    yield from released(tracker.end_shot())


@dataclass
class _Due:
    """One face of one frame that is to be restored."""

    moment: _Moment
    face: PlacedFace
    matrix: np.ndarray
    others: list[np.ndarray]
    crop: np.ndarray


class _Run:
    """Collects faces over frames to fill a batch, restores them, and writes the frames in order."""

    def __init__(self, restorer: Restorer, options: VideoOptions, writer: VideoWriter) -> None:
        self._restorer, self._options, self._writer = restorer, options, writer
        self._choose, self._steady = FaceChooser(options.select), FaceSteadier(options.blending_s)
        self._moments: list[_Moment] = []
        self._due: list[_Due] = []
        self._gray: dict[int, bool] = {}
        self.tracks: dict[int, TrackResult] = {}
        self.frames_with_faces = self.frames_restored = 0

    def take(self, moment: _Moment) -> None:
        size_px = self._restorer.native_size_px
        matrices = [estimate_similarity(placed.face.landmarks_px, size_px) for placed in moment.faces]
        reasons = self._choose(moment.faces, moment.pixels.shape)
        self.frames_with_faces += bool(moment.faces)
        self.frames_restored += None in reasons
        self._moments.append(moment)
        for i, (placed, reason) in enumerate(zip(moment.faces, reasons, strict=True)):
            self._record(moment, placed, reason, 1 / scale_of(matrices[i]))
            if reason is None:
                crop = np.rint(align(moment.pixels, matrices[i], size_px) * 255).astype(np.uint8)
                others = matrices[:i] + matrices[i + 1 :]
                self._due.append(_Due(moment, placed, matrices[i], others, crop))
        # Also where few faces come: frames must not pile up.
        if not self._due or max(len(self._due), len(self._moments)) >= self._options.batch_size:
            self.finish()

    def finish(self) -> None:
        """Restore the faces that are due and write the frames that waited for them."""
        restored = [
            face
            for start in range(0, len(self._due), self._options.batch_size)
            for face in self._restored(self._due[start : start + self._options.batch_size])
        ]
        ready = deque(zip(self._due, restored, strict=True))
        for moment in self._moments:
            changes = []
            while ready and ready[0][0].moment is moment:
                changes.append(ready.popleft())
            self._write(moment, changes)
        self._moments, self._due = [], []

    def refuse_nothing_restored(self) -> None:
        if not self.tracks:
            raise NoFacesError("no face was found in the clip")
        if not self.frames_restored:
            reasons = "; ".join(dict.fromkeys(str(track.reason) for track in self.tracks.values()))
            raise FlipnetError(f"no face was restored: {reasons}")

    def warnings(self) -> list[str]:
        scale = max((track.scale for track in self.tracks.values() if track.restored), default=0.0)
        if scale <= _LARGER:
            return []
        return [
            f"a face is up to {scale:.1f} times larger than the model's {self._restorer.native_size_px} pixels: "
            "the clip's own finer detail is kept as it is, only coarser detail is restored"
        ]

    def _restored(self, batch: Sequence[_Due]) -> list[np.ndarray]:
        """Run the restorer; float32 (S, S, 3) in [0, 1] per face."""
        faces = faces_to_tensor(np.stack([due.crop for due in batch]))
        at = f"at {batch[0].moment.time_s:.2f} s"
        try:
            output = self._restorer(faces, [self._options.seed + due.face.track for due in batch])
        except RuntimeError as error:  # torch's own, out of memory among them
            raise FlipnetError(f"the restorer stopped {at} with {type(error).__name__}: {error}") from error
        if output.shape != faces.shape:
            raise FlipnetError(f"the restorer returned shape {tuple(output.shape)} for {tuple(faces.shape)}")
        if not torch.isfinite(output).all():
            raise FlipnetError(f"the restorer returned values that are not finite {at}")
        scaled = output.detach().float().cpu().clamp(-1, 1).add(1).div(2)
        return list(scaled.permute(0, 2, 3, 1).contiguous().numpy())

    def _write(self, moment: _Moment, changes: Sequence[tuple[_Due, np.ndarray]]) -> None:
        self._steady.forget_all_but({placed.track for placed in moment.faces})
        factor = self._options.upscale
        if not changes and factor == 1:
            self._writer.write(moment.frame)
            return
        height, width = moment.pixels.shape[:2]
        before = resize(moment.pixels, (width * factor, height * factor))
        canvas = before.copy()
        boxes: list[Box] = []
        for due, restored in changes:
            matrix = for_upscaled(due.matrix, factor)
            others = [for_upscaled(other, factor) for other in due.others]
            crop = due.crop.astype(np.float32) / 255
            add_difference(
                canvas,
                self._difference(due, crop, restored),
                matrix,
                others,
                amount=self._options.blend * due.face.strength,
                photo=before,
                crop=crop,
            )
            boxes.append(crop_box(matrix, restored.shape[0], canvas.shape))
        self._writer.write(moment.frame, canvas, boxes)

    def _difference(self, due: _Due, crop: np.ndarray, restored: np.ndarray) -> np.ndarray:
        """What to add to the crop: the steadied face minus the crop."""
        steady = self._steady(due.face.track, due.moment.time_s, crop, restored)
        difference = steady - crop
        # Decided once per track, or a face near the limit would change between gray and tinted.
        if due.face.track not in self._gray:
            self._gray[due.face.track] = nearly_gray(due.crop)
        if self._gray[due.face.track]:
            difference = np.repeat((difference @ LUMA)[..., None], 3, axis=2)
        return difference

    def _record(self, moment: _Moment, placed: PlacedFace, reason: str | None, scale: float) -> None:
        now, seed = moment.time_s, self._options.seed + placed.track
        old = self.tracks.get(placed.track) or TrackResult(placed.track, now, now, 0, 0, seed, None, 0.0)
        self.tracks[placed.track] = replace(
            old,
            last_s=now,
            frames=old.frames + 1,
            restored=old.restored + (reason is None),
            reason=reason or old.reason,
            scale=max(old.scale, scale),
        )
