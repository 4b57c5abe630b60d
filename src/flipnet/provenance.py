"""What a result says about itself: which software and model made it, when, and that its faces are AI-restored.

Pure functions over a photo's metadata; `flipnet.images` reads and writes them. What the original said is kept.
A position (GPS) is never added: it is there if the original had it.
"""

from __future__ import annotations

import os
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import PurePath

from PIL import ExifTags, Image

from flipnet import __version__
from flipnet.images import Photo, xmp
from flipnet.types import FlipnetError

NOT_EVIDENCE = (
    "A restored face is a plausible reconstruction, not evidence: detail the photo had lost was made up, "
    "so do not use it to identify anyone."
)
"""The sentence for reports, summaries and apps."""

SOFTWARE = f"flipnet {__version__}"

_SOURCE_TYPES = "http://cv.iptc.org/newscodes/digitalsourcetype/"
PARTLY_AI = f"{_SOURCE_TYPES}compositeWithTrainedAlgorithmicMedia"
"""IPTC NewsCodes, digital source type: "composite including elements made by generative AI"."""
WHOLLY_AI = f"{_SOURCE_TYPES}trainedAlgorithmicMedia"


def statement(model: str) -> str:
    """Return the sentence that goes into a result's metadata.

    `model` is the model's name, hub id or folder; of a path only the last part is told, as the rest is nobody's
    business.
    """
    done = f"AI-restored: faces reconstructed by {SOFTWARE}, model {PurePath(model).name}"
    return f"{done}; a plausible reconstruction, not evidence"


def mark_as_restored(photo: Photo, *, model: str, when: datetime | None = None) -> Photo:
    """Return the photo with metadata that say its faces were restored, by what, and when.

    Exif: Software, DateTime, and ImageDescription if there was none. XMP: digital source type, modification
    and metadata date, a history entry; creator tool and description if there were none. Text (for PNG):
    Software and Disclaimer. All else stays. A picture that said it is wholly AI-made goes on saying so.

    Args:
        photo: the result.
        model: the model's name, see `statement`.
        when: time of the restoration, with its zone; None is now, or the environment's SOURCE_DATE_EPOCH, so
            that the same seed can give the same file to the byte.

    Raises:
        FlipnetError: SOURCE_DATE_EPOCH is no number of seconds.

    Source: Exif 2.32; ISO 16684 (XMP); IPTC Photo Metadata Standard 2023.1, "Digital Source Type"; PNG 1.2;
    reproducible-builds.org, SOURCE_DATE_EPOCH.
    """
    when = (when or _now()).astimezone()
    said = statement(model)
    stamp = when.isoformat(timespec="seconds")
    source_type = "Iptc4xmpExt:DigitalSourceType"
    before = None if photo.xmp is None else xmp.value_of(photo.xmp, source_type)
    packet = xmp.extend(
        photo.xmp,
        edit=xmp.Edit(stamp, SOFTWARE, said),
        replaced={
            source_type: WHOLLY_AI if before == WHOLLY_AI else PARTLY_AI,
            "xmp:ModifyDate": stamp,
            "xmp:MetadataDate": stamp,
        },
        defaults={"xmp:CreatorTool": SOFTWARE, "dc:description": said},
    )
    text = {**dict(photo.text), "Software": SOFTWARE, "Disclaimer": said}
    return replace(photo, exif=_exif(photo.exif, when, said), xmp=packet, text=tuple(text.items()))


def without_metadata(photo: Photo) -> Photo:
    """Return the photo without Exif, XMP, text and resolution; its ICC profile, which is colour, stays."""
    return replace(photo, exif=None, xmp=None, text=(), dpi=None)


def _now() -> datetime:
    epoch = os.environ.get("SOURCE_DATE_EPOCH")
    if epoch is None:
        return datetime.now(UTC)
    try:
        return datetime.fromtimestamp(int(epoch), UTC)
    except (ValueError, OverflowError, OSError) as error:
        raise FlipnetError(f"SOURCE_DATE_EPOCH {epoch!r} is no number of seconds since 1970") from error


def _exif(before: bytes | None, when: datetime, said: str) -> bytes:
    exif = Image.Exif()
    if before is not None:
        exif.load(before)
    exif[ExifTags.Base.Software] = SOFTWARE
    exif[ExifTags.Base.DateTime] = when.strftime("%Y:%m:%d %H:%M:%S")
    if not exif.get(ExifTags.Base.ImageDescription):
        exif[ExifTags.Base.ImageDescription] = said
    return exif.tobytes()
