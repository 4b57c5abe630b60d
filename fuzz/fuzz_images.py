"""Random bytes as a picture file: a photo or an `ImageError`, nothing else. See README.md."""

from __future__ import annotations

import sys
import tempfile
import warnings
from pathlib import Path

import atheris

with atheris.instrument_imports(include=["flipnet", "PIL", "tifffile"]):
    from flipnet.images import ImageError, read_photo, write_photo

from flipnet.images import reading

# Large pictures are no finding, but slow.
reading.MAX_PIXELS = 1 << 20
FOLDER = Path(tempfile.mkdtemp(prefix="flipnet-fuzz-"))


def one_input(data: bytes) -> None:
    """Read the bytes as a picture, and write again what could be read."""
    path = FOLDER / "photo"
    path.write_bytes(data)
    try:
        photo = read_photo(path)
        write_photo(FOLDER / "again.png", photo)
    except ImageError as error:
        if "\n" in str(error):
            raise SystemError("a message of several lines") from error
    except MemoryError:
        pass


if __name__ == "__main__":
    warnings.simplefilter("ignore")
    atheris.Setup(sys.argv, one_input)
    atheris.Fuzz()
