"""Follow faces through a clip: which detection is whose, and where each face really is.

A frame is placed some frames after it came in. What lies ahead says whether a face the detector lost comes back,
whether one it found was a flash in the pan, and where a landmark that jitters belongs, without the lag that a
filter of past frames alone has.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field

import numpy as np
from scipy.optimize import linear_sum_assignment

from flipnet.types import Face, FlipnetError

MAX_GAP_FRAMES = 8
"""Frames in a row without a detection after which a face is taken to be gone. Our choice: a third of a second."""

FADE_FRAMES = 4
"""Frames over which a face that appears or leaves within a shot fades in or out. Our choice."""

LOOK_AHEAD_FRAMES = MAX_GAP_FRAMES + FADE_FRAMES
"""Frames by which a placement lags behind the newest frame: enough to see past the longest gap."""

MIN_DETECTIONS = 3
"""Detections from which a face counts, fewer only in a shot of fewer looks. Our choice: false faces flash up."""

SMOOTHING_S = 0.06
"""Standard deviation of the landmark filter, in seconds. Our choice: 1.5 frames at 25 per second."""

_MAX_STEP = 0.6  # mean landmark distance, in box sides, that a face can move between two looks


@dataclass(frozen=True)
class PlacedFace:
    """A followed face in one frame.

    Attributes:
        track: number of the face, from 0 in order of appearance; another number after a cut or a long gap.
        face: box and landmarks as smoothed; the score of the last detection.
        strength: in (0, 1], how far it has faded in; 1 away from the ends of its track.
    """

    track: int
    face: Face
    strength: float


@dataclass
class _Look:
    """One frame of the current shot; `looked` = the detector was asked."""

    number: int
    time_s: float
    looked: bool


@dataclass
class _Track:
    index: int
    frames: list[int] = field(default_factory=list)
    times_s: list[float] = field(default_factory=list)
    points: list[np.ndarray] = field(default_factory=list)  # five landmarks and two corners of the box
    score: float = 0.0
    first: int = 0
    detections: int = 0

    def add(self, look: _Look, face: Face) -> None:
        if not self.frames:
            self.first = look.number
        self.frames.append(look.number)
        self.times_s.append(look.time_s)
        self.points.append(_points(face))
        self.score = face.score
        self.detections += 1


class FaceTracker:
    """Turns the detections of single frames into followed faces with steady landmarks.

    Detections are given to the tracks so that their landmarks move least in all (linear assignment; Kuhn 1955,
    as SORT and its successors do); a track without detection for more than `MAX_GAP_FRAMES` ends. Within a
    track, landmarks are interpolated over time and then fitted at each frame by a straight line through the
    frames around it, weighted by a Gaussian of `smoothing_s`. Our choice: a line neither lags behind a face
    that moves evenly nor holds it back at the ends of its track, as a mean would.

    Args:
        smoothing_s: standard deviation of the Gaussian, in seconds; 0 only interpolates.

    Raises:
        FlipnetError: a negative `smoothing_s`.
    """

    def __init__(self, smoothing_s: float = SMOOTHING_S) -> None:
        if smoothing_s < 0:
            raise FlipnetError(f"smoothing {smoothing_s} seconds is below 0")
        self.smoothing_s = smoothing_s
        self._next_index = self._newest = 0
        self._start_shot(0)

    def add(self, time_s: float, faces: Sequence[Face] | None) -> list[list[PlacedFace]]:
        """Take in the next frame of the shot.

        Args:
            time_s: when the frame is shown; later than the one before.
            faces: its detections; None where the detector was not asked.

        Returns:
            The faces of each frame that has become certain, oldest first, one list per frame.
        """
        look = _Look(self._newest + 1, time_s, faces is not None)
        self._newest = look.number
        self._looks.append(look)
        if faces is not None:
            self._assign(look, faces)
        return list(self._place_up_to(look.number - LOOK_AHEAD_FRAMES, ended=False))

    def end_shot(self) -> list[list[PlacedFace]]:
        """Place the frames still open, and forget all faces: after a cut nobody is where they were."""
        placed = list(self._place_up_to(self._newest, ended=True))
        self._start_shot(self._newest + 1)
        return placed

    def _start_shot(self, first: int) -> None:
        self._shot_first, self._next_out = first, first
        self._newest = first - 1
        self._looks: deque[_Look] = deque()
        self._tracks: list[_Track] = []

    def _assign(self, look: _Look, faces: Sequence[Face]) -> None:
        alive = [track for track in self._tracks if look.number - track.frames[-1] <= MAX_GAP_FRAMES + 1]
        steps = _steps(alive, faces)
        taken = set()
        # What is out of reach costs the same at any distance, so that it does not sway the others.
        for row, column in zip(*linear_sum_assignment(steps.clip(max=2 * _MAX_STEP)), strict=True):
            if steps[row, column] <= _MAX_STEP:
                alive[row].add(look, faces[column])
                taken.add(column)
        for column, face in enumerate(faces):
            if column not in taken:
                track = _Track(self._next_index)
                self._next_index += 1
                track.add(look, face)
                self._tracks.append(track)

    def _place_up_to(self, last: int, *, ended: bool) -> Iterator[list[PlacedFace]]:
        while self._next_out <= last:
            number = self._next_out
            self._next_out += 1
            yield [placed for track in self._tracks if (placed := self._place(track, number, ended))]
            self._forget_before(number + 1 - LOOK_AHEAD_FRAMES)

    def _place(self, track: _Track, number: int, ended: bool) -> PlacedFace | None:
        last = self._last_frame(track)
        if not track.first <= number <= last:
            return None
        looks = sum(look.looked for look in self._looks) if ended else MIN_DETECTIONS
        if track.detections < min(MIN_DETECTIONS, looks):
            return None
        faded_in = FADE_FRAMES if track.first == self._shot_first else number - track.first + 1
        faded_out = FADE_FRAMES if ended and last == self._newest else last - number + 1
        strength = min(faded_in, faded_out, FADE_FRAMES) / FADE_FRAMES
        points = self._smoothed(track, number, last)
        x0, y0, x1, y1 = (float(value) for value in points[5:].ravel())
        face = Face((x0, y0, x1, y1), points[:5].astype(np.float32), track.score)
        return PlacedFace(track.index, face, strength)

    def _last_frame(self, track: _Track) -> int:
        """The track's last detection, and the frames right after it that nobody looked at."""
        last = track.frames[-1]
        for look in self._looks:
            if look.number > last:
                if look.looked:
                    break
                last = look.number
        return last

    def _smoothed(self, track: _Track, number: int, last: int) -> np.ndarray:
        near = [look for look in self._looks if max(track.first, number - LOOK_AHEAD_FRAMES) <= look.number]
        near = [look for look in near if look.number <= min(last, number + LOOK_AHEAD_FRAMES)]
        times = np.array([look.time_s for look in near])
        now = next(look.time_s for look in near if look.number == number)
        known = np.stack(track.points).reshape(len(track.points), -1)
        points = np.stack([np.interp(times, track.times_s, column) for column in known.T], axis=1)
        return _line_at(now, times, points, self.smoothing_s).reshape(7, 2)

    def _forget_before(self, number: int) -> None:
        while self._looks and self._looks[0].number < number:
            self._looks.popleft()
        self._tracks = [track for track in self._tracks if self._last_frame(track) >= self._next_out]
        for track in self._tracks:
            # One detection before the window stays, to interpolate from.
            while len(track.frames) > 1 and track.frames[1] < number:
                for values in (track.frames, track.times_s, track.points):
                    del values[0]


def _points(face: Face) -> np.ndarray:
    return np.concatenate([face.landmarks_px, np.reshape(face.box_px, (2, 2))]).astype(np.float64)


def _steps(tracks: Sequence[_Track], faces: Sequence[Face]) -> np.ndarray:
    """How far each track (rows) would move to each face: mean landmark distance in sides of the larger box."""
    if not tracks or not faces:
        return np.zeros((len(tracks), len(faces)))
    old, new = np.stack([track.points[-1] for track in tracks]), np.stack([_points(face) for face in faces])
    distance = np.linalg.norm(old[:, None, :5] - new[None, :, :5], axis=-1).mean(-1)
    sides = [np.sqrt((points[:, 6] - points[:, 5]).clip(1e-3).prod(1)) for points in (old, new)]
    return distance / np.maximum(sides[0][:, None], sides[1][None])


def _line_at(now: float, times: np.ndarray, points: np.ndarray, sigma: float) -> np.ndarray:
    """Value at `now` of the straight line fitted to (N,) times and (N, D) points, Gaussian weights."""
    x = times - now
    if sigma == 0:
        return points[np.argmin(np.abs(x))]
    weights = np.exp(-0.5 * (x / sigma) ** 2)
    total, first, second = weights.sum(), (weights * x).sum(), (weights * x * x).sum()
    spread = total * second - first**2
    if spread <= 1e-12 * total * total * sigma**2:  # one frame, or all others too far away to count
        return weights @ points / total
    return (weights * (second - first * x)) @ points / spread
