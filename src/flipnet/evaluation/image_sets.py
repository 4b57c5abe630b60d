"""Folders and shards of pictures brought together by name, read so that one bad file stops nothing."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np

from flipnet.data.datasets import ImageEntry, Locations, index_images, read_image
from flipnet.images import read_photo, resize, to_8_bit
from flipnet.types import FlipnetError

REFERENCE, INPUT, RESTORED = "reference", "input", "restored"
"""Names of the columns that are not another method's."""


@dataclass(frozen=True)
class Problem:
    """Something about one image that the user must know.

    Attributes:
        image: the file, shard entry, or key.
        cause: what is the matter, a clause.
        left_out: the image was not measured; else it was, and this is a remark.
    """

    image: str
    cause: str
    left_out: bool


@dataclass
class ImageSets:
    """Several columns of the same pictures.

    Attributes:
        entries: the columns' images by key; every column but the reference and the input is a method's.
        keys: keys measured; those of pictures that turn out unusable are taken off.
        problems: what was found so far; reading adds to it.
        size_px: every image is resized to this side first (Lanczos), None for none.
    """

    entries: dict[str, dict[str, ImageEntry]]
    keys: list[str]
    problems: list[Problem] = field(default_factory=list)
    size_px: int | None = None

    def read(self, key: str) -> dict[str, np.ndarray] | None:
        """Read one picture of every column, uint8 (H, W, 3) RGB.

        None where one cannot be used; that becomes a problem, and its key is taken off. Unlike sizes leave the
        picture out, but an input of another size is brought to the others' by Lanczos, which is what an
        upscaler starts from. Gray beside colour and opaque alpha are measured as they are.
        """
        images: dict[str, np.ndarray] = {}
        for column, entries in self.entries.items():
            pixels = self._read_one(entries[key])
            if pixels is None:
                break
            images[column] = pixels
        if len(images) < len(self.entries) or not self._are_of_one_size(key, images):
            self.keys.remove(key)
            return None
        return images

    def list_hash(self, column: str) -> str:
        """SHA-256 of a column's sorted keys and of the bytes of its images, whatever their folder is called."""
        digest = hashlib.sha256()
        for key, entry in sorted(self.entries[column].items()):
            digest.update(f"{key}\0{_bytes_hash(entry)}\n".encode("utf-8", "backslashreplace"))
        return digest.hexdigest()

    def _read_one(self, entry: ImageEntry) -> np.ndarray | None:
        try:
            pixels, is_transparent = _decode(entry)
        except FlipnetError as error:
            self.problems.append(Problem(str(entry), str(error).removeprefix(f"{entry}: "), True))
            return None
        if is_transparent:
            self.problems.append(
                Problem(str(entry), "is partly transparent, its colours are undefined", True)
            )
            return None
        return pixels if self.size_px is None else resize(pixels, (self.size_px, self.size_px))

    def _are_of_one_size(self, key: str, images: dict[str, np.ndarray]) -> bool:
        methods = [name for name in self.entries if name not in (REFERENCE, INPUT)]
        main = methods[0] if methods else INPUT
        expected = images.get(REFERENCE, images[main]).shape[1::-1]
        for column, pixels in images.items():
            size = pixels.shape[1::-1]
            entry = str(self.entries[column][key])
            if size != expected and column != INPUT:
                cause = f"is {size[0]}x{size[1]}, but {expected[0]}x{expected[1]} is expected"
                self.problems.append(Problem(entry, cause, True))
                return False
            if size != expected:
                images[column] = resize(pixels, expected)
                note = f"{size[0]}x{size[1]} resized to {expected[0]}x{expected[1]} (Lanczos)"
                self.problems.append(Problem(entry, note, False))
        if REFERENCE in images and _is_gray(images[main]) and not _is_gray(images[REFERENCE]):
            entry = str(self.entries[main][key])
            self.problems.append(Problem(entry, "is gray, its reference is not", False))
        return True


def bring_together(
    locations: Mapping[str, Locations], *, limit: int | None = None, size_px: int | None = None
) -> ImageSets:
    """List the pictures of all columns and keep the keys that every column has.

    Args:
        locations: where each column's pictures lie; `REFERENCE` and `INPUT` have the roles their names say, all
            others are methods. Keys are those of `data.datasets.index_images`.
        limit: keep that many pictures, evenly spread.
        size_px: see `ImageSets`.

    A key that some column lacks is left out with a `Problem` that names it. Raises FlipnetError when a location
    cannot be listed, or no key is in every column.
    """
    problems: list[Problem] = []
    entries = {name: _by_key(index_images(location), problems) for name, location in locations.items()}
    keys = _common_keys(entries, problems)
    count = len(keys) if limit is None else min(limit, len(keys))
    kept = [keys[index * len(keys) // count] for index in range(count)]
    chosen = {name: {key: found[key] for key in kept} for name, found in entries.items()}
    return ImageSets(chosen, kept, problems, size_px)


def _by_key(entries: Sequence[ImageEntry], problems: list[Problem]) -> dict[str, ImageEntry]:
    found: dict[str, ImageEntry] = {}
    for entry in entries:
        if entry.key in found:
            problems.append(Problem(str(entry), f"has the same name as {found[entry.key]}", True))
        else:
            found[entry.key] = entry
    return found


def _common_keys(entries: Mapping[str, Mapping[str, ImageEntry]], problems: list[Problem]) -> list[str]:
    every = dict.fromkeys(key for found in entries.values() for key in found)
    keys = [key for key in every if all(key in found for found in entries.values())]
    if not keys:
        examples = ", ".join(f"'{next(iter(found))}' ({name})" for name, found in entries.items())
        raise FlipnetError(f"no name is in every folder; found for instance {examples}")
    for key in every:
        missing = [name for name, found in entries.items() if key not in found]
        if missing:
            owner = next(str(found[key]) for found in entries.values() if key in found)
            problems.append(Problem(owner, f"has no picture of that name in {' and '.join(missing)}", True))
    return keys


def _decode(entry: ImageEntry) -> tuple[np.ndarray, bool]:
    """Return uint8 (H, W, 3) RGB, and whether any pixel is transparent."""
    if entry.offset is not None:
        return read_image(entry), False
    photo = read_photo(Path(entry.path))
    alpha = photo.alpha
    return to_8_bit(photo.pixels), alpha is not None and bool(alpha.min() < np.iinfo(alpha.dtype).max)


def _bytes_hash(entry: ImageEntry) -> str:
    try:
        with entry.path.open("rb") as file:
            file.seek(entry.offset or 0)
            return hashlib.sha256(file.read(entry.length)).hexdigest()
    except OSError:
        return "unreadable"


def _is_gray(pixels: np.ndarray) -> bool:
    return bool((pixels == pixels[..., :1]).all())
