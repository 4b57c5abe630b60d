"""How much one visitor may ask for."""

from __future__ import annotations

from dataclasses import dataclass

from flipnet.types import FlipnetError

MEGABYTE = 1_000_000


@dataclass(frozen=True)
class Limits:
    """Bounds of the web app; all defaults are our choice, for a laptop and its owner's friends.

    Attributes:
        queue: jobs that may wait while one runs; more are refused.
        upload_mb: size of one uploaded file, in MB (10^6 bytes).
        megapixels: size of one photo, in 10^6 pixels.
        job_seconds: time from a job's start until it is stopped; waiting does not count.
        photos: files of one batch.
        keep_seconds: how long uploads and results stay on disk.
        folder_mb: what uploads and results of all visitors may take together, in MB.

    Raises FlipnetError naming the bound that is not above zero.
    """

    queue: int = 16
    upload_mb: float = 50
    megapixels: float = 60
    job_seconds: float = 600
    photos: int = 50
    keep_seconds: float = 3600
    folder_mb: float = 4000

    def __post_init__(self) -> None:
        for name, value in vars(self).items():
            if not value > 0:
                raise FlipnetError(f"{name.replace('_', ' ')} {value} is not above zero")

    @property
    def upload_bytes(self) -> int:
        """Size of one uploaded file in bytes."""
        return int(self.upload_mb * MEGABYTE)
