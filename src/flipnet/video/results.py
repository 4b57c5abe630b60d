"""How a clip is to be restored, and what became of it."""

from __future__ import annotations

from dataclasses import dataclass, field

from flipnet.faces.selection import FaceSelection
from flipnet.faces.tracking import MAX_GAP_FRAMES, SMOOTHING_S
from flipnet.types import FlipnetError
from flipnet.video.choosing import FaceChooser
from flipnet.video.steadying import BLENDING_S


@dataclass(frozen=True)
class TrackResult:
    """One face followed through a shot.

    Attributes:
        track: its number, from 0 in order of appearance; a face that is lost or cut away gets a new one.
        first_s, last_s: when it is seen first and last, in seconds of the clip's own clock.
        frames: frames it is in.
        restored: frames it was restored in.
        seed: the seed that all of them were restored with.
        reason: why it was left as it was where it was; None if it never was.
        scale: largest number of frame pixels per crop pixel; above 1 the face exceeds the model's native size.
    """

    track: int
    first_s: float
    last_s: float
    frames: int
    restored: int
    seed: int
    reason: str | None
    scale: float


@dataclass(frozen=True)
class VideoResult:
    """What happened to a clip.

    Attributes:
        frames: frames written.
        frames_with_faces: frames a face was found or followed in.
        frames_restored: frames that at least one face was restored in.
        tracks: the faces, in order of appearance.
        cuts: shot changes found.
        encoder: the picture's encoder, as FFmpeg calls it.
        sound: "none", "copied", or "encoded as ...".
        seconds: wall-clock time.
        warnings: sentences for the user.
    """

    frames: int
    frames_with_faces: int
    frames_restored: int
    tracks: tuple[TrackResult, ...]
    cuts: int
    encoder: str
    sound: str
    seconds: float
    warnings: tuple[str, ...]


@dataclass(frozen=True)
class VideoOptions:
    """How a clip is restored.

    Attributes:
        select: all faces, the largest, or the one nearest to the picture's centre, and from which size and score.
        blend: how much of the change is applied, in [0, 1].
        upscale: whole-number enlargement; the background by Lanczos.
        batch_size: faces per call of the restorer, of one frame or several.
        seed: face (track) number i gets seed + i in all its frames.
        quality: 1 to 100, see `flipnet.video.writing.quality_factor`.
        detect_every: look for faces in every n-th frame, 1 to 4; between them they are interpolated.
        smoothing_s: see `flipnet.faces.tracking.FaceTracker`.
        blending_s: see `flipnet.video.steadying.FaceSteadier`.
        keep_metadata: pass the file's tags on (title, date, place, ...).
        comment: added to the file's comment.

    Raises:
        FlipnetError: a value out of range.
    """

    select: FaceSelection = field(default_factory=FaceSelection)
    blend: float = 1.0
    upscale: int = 1
    batch_size: int = 4
    seed: int = 0
    quality: int = 95
    detect_every: int = 1
    smoothing_s: float = SMOOTHING_S
    blending_s: float = BLENDING_S
    keep_metadata: bool = True
    comment: str = ""

    def __post_init__(self) -> None:
        limits = {"blend": (0, 1), "upscale": (1, 8), "batch_size": (1, 1024), "quality": (1, 100),
                  "detect_every": (1, MAX_GAP_FRAMES // 2)}  # fmt: skip
        for name, (low, high) in limits.items():
            if not low <= getattr(self, name) <= high:
                raise FlipnetError(f"{name} {getattr(self, name)} is outside {low} to {high}")
        FaceChooser(self.select)  # refuses what means nothing in a clip
