"""What goes wrong with picture files, and how it is told."""

from __future__ import annotations

import struct
import zlib

import imagecodecs
import tifffile

from flipnet.types import FlipnetError

CODEC_ERRORS: tuple[type[Exception], ...] = (
    *(OSError, SyntaxError, ValueError, TypeError, EOFError, LookupError, ArithmeticError, AttributeError),
    *(RuntimeError, struct.error, zlib.error),
    *(tifffile.TiffFileError, imagecodecs.PngError, imagecodecs.LzwError),
    *(imagecodecs.DeflateError, imagecodecs.ZlibError),
)
"""What decoders raise over damaged files, as fuzzing shows, and encoders; want of memory is not among it."""


class ImageError(FlipnetError):
    """A picture file cannot be read or written; the message names the file and the cause."""


def one_line(error: Exception) -> str:
    """Return an error's message without line breaks, or its kind if it has none."""
    return " ".join(str(error).split()) or type(error).__name__
