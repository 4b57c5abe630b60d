"""HQ faces and (HQ, LQ) pairs from image folders and tar shards, decoded on access.

A shard is an uncompressed tar of encoded images. An image's key is its name without the extension, usually
`<source>-<group>-<index>`; pairs are two images `<key>.hq.<ext>` and `<key>.lq.<ext>`.
Shards are indexed once, by header; every access opens the file anew, so workers share no file position.
"""

from __future__ import annotations

import glob
import io
import tarfile
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from copy import copy
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import IO, Any, Protocol

import numpy as np
import torch
from PIL import Image, ImageOps
from torch import Tensor
from torch.utils.data import Dataset

from flipnet.data.colour import to_grayscale
from flipnet.data.degradation import DegradationRecipe, degrade, sample_parameters
from flipnet.images import SUPPORTED_SUFFIXES, find_images, read_photo, resize, to_8_bit
from flipnet.types import FlipnetError

Locations = str | Path | Sequence[str | Path]
"""One or several image files, image folders, tar shards, or glob patterns of these."""


@dataclass(frozen=True)
class ImageEntry:
    """Where one encoded image lies.

    Attributes:
        key: name without folder of the location and without extension, "/" between folders.
        path: the image file, or the shard that holds it.
        offset: first byte inside the shard, None for a file of its own.
        length: number of bytes inside the shard.
    """

    key: str
    path: Path
    offset: int | None = None
    length: int = -1

    def __str__(self) -> str:
        return str(self.path) if self.offset is None else f"{self.path}: {self.key}"


def index_images(locations: Locations) -> list[ImageEntry]:
    """List the images at the locations in the order given, sorted inside folders and globs, shards as packed.

    Folders are searched recursively. Raises FlipnetError naming the location that does not exist, the shard
    that cannot be read, or all locations when they hold no image.
    """
    given = [locations] if isinstance(locations, str | Path) else list(locations)
    entries = [entry for location in given for path in _expand(location) for entry in _index_path(path)]
    if not entries:
        raise FlipnetError(
            f"No images found in {', '.join(str(location) for location in given) or 'an empty list'}."
        )
    return entries


def _expand(location: str | Path) -> list[Path]:
    if Path(location).exists():
        return [Path(location)]
    matches = sorted(glob.glob(str(location), recursive=True))
    if not matches:
        raise FlipnetError(f"{location}: no such file or folder.")
    return [Path(match) for match in matches]


def _index_path(path: Path) -> list[ImageEntry]:
    if path.is_dir():
        return [ImageEntry(p.relative_to(path).with_suffix("").as_posix(), p) for p in find_images(path)]
    if path.suffix.lower() in SUPPORTED_SUFFIXES:
        return [ImageEntry(path.stem, path)]
    try:
        with path.open("rb") as file:
            return [
                ImageEntry(key_of(member.name), path, member.offset_data, member.size)
                for member in packed_images(file)
            ]
    except (tarfile.TarError, OSError) as error:
        raise FlipnetError(f"{path}: not a readable image or uncompressed tar shard: {error}.") from error


def packed_images(shard: IO[bytes]) -> list[tarfile.TarInfo]:
    """List the images packed in an uncompressed tar, by header, in the order in which they are packed.

    Raises tarfile.TarError for anything else, cut-off tars too, and OSError when the file cannot be read.
    """
    check_archive_end(shard)
    with tarfile.open(fileobj=shard, mode="r:") as members:
        return [member for member in members if member.isfile() and is_image(member.name)]


def check_archive_end(shard: IO[bytes]) -> None:
    """Raise tarfile.ReadError for a tar that is cut off, then go back to its start.

    tarfile takes a file that is cut between two members for a whole one; a whole one ends in two blocks of zeros.
    """
    size = shard.seek(0, io.SEEK_END)
    shard.seek(max(0, size - 1024))
    if size < 1024 or any(shard.read()):
        raise tarfile.ReadError("the end of the archive is missing")
    shard.seek(0)


def is_image(name: str) -> bool:
    """Whether a file or member counts as an image: by its suffix, and not when it starts with a dot."""
    path = PurePosixPath(name)
    return path.suffix.lower() in SUPPORTED_SUFFIXES and not path.name.startswith(".")


def key_of(name: str) -> str:
    """Return the key of a file or member, its relative name without the extension."""
    return str(PurePosixPath(name).with_suffix(""))


def read_image(entry: ImageEntry) -> np.ndarray:
    """Decode an entry into uint8 (H, W, 3) RGB; FlipnetError names it when it cannot be read or decoded."""
    if entry.offset is None:
        return to_8_bit(read_photo(entry.path).pixels)
    try:
        with entry.path.open("rb") as file:
            file.seek(entry.offset)
            data = file.read(entry.length)
    except OSError as error:
        raise FlipnetError(f"{entry}: cannot be read as an image: {error}.") from error
    return decode_image(data, str(entry))


def decode_image(data: bytes, name: str) -> np.ndarray:
    """Decode the bytes of an image file into upright uint8 (H, W, 3) RGB; FlipnetError names it by `name`."""
    try:
        with Image.open(io.BytesIO(data)) as image:
            if image.mode in ("I", "F") or image.mode.startswith("I;16"):
                raise FlipnetError(
                    f"{name}: has more than 8 bits, which are read from files of their own only."
                )
            return np.array(ImageOps.exif_transpose(image).convert("RGB"))
    except (OSError, SyntaxError, ValueError, Image.DecompressionBombError) as error:
        raise FlipnetError(f"{name}: cannot be read as an image: {error}.") from error


def source_of(key: str) -> str:
    """Return the source in `<source>-<group>-<index>`; "" for a key with fewer than three parts."""
    parts = key.split("-")
    return parts[0] if len(parts) >= 3 else ""


def group_of(key: str) -> str:
    """Return the group in `<source>-<group>-<index>`, which may itself hold "-"; "" when there is none."""
    return "-".join(key.split("-")[1:-1])


def balanced_weights(
    keys: Sequence[str], source_weights: Mapping[str, float] | None = None, group_power: float = 0.0
) -> np.ndarray:
    """Sampling weights per key, float64 (N,), sum 1, for drawing with replacement.

    A source with n keys is drawn in proportion to n times its factor in `source_weights` (1 where absent).
    Inside a source, a key of a group with m keys weighs m^-group_power: at 0 groups keep their share, at 1
    every group is drawn equally often. Raises FlipnetError for a source that no key has and for a weight or
    power out of range. Source: our choice, for face sets in which some groups are far larger than others.
    """
    factors = dict(source_weights or {})
    sources = np.array([source_of(key) for key in keys])
    unknown = sorted(set(factors) - set(sources))
    if unknown:
        raise FlipnetError(
            f"Source '{unknown[0]}' has a weight but no image; sources are {sorted(set(sources))}."
        )
    if not 0 <= group_power <= 1 or any(factor < 0 for factor in factors.values()):
        raise FlipnetError("group_power must be in 0..1 and source weights must not be negative.")
    sizes = Counter((source_of(key), group_of(key)) for key in keys)
    weights = np.array([float(sizes[source_of(key), group_of(key)]) ** -group_power for key in keys])
    for source in set(sources.tolist()):
        members = sources == source
        weights[members] *= factors.get(source, 1.0) * members.sum() / weights[members].sum()
    if not weights.sum() > 0:
        raise FlipnetError("All sampling weights are zero.")
    return weights / weights.sum()


class FaceDataset(Dataset[dict[str, Any]]):
    """HQ faces of one size.

    Items are {"key": str, "hq": uint8 (3, S, S) RGB}. Larger squares are scaled down; see `fit_square` for what
    raises FlipnetError naming the image.

    Args:
        locations: see `index_images`.
        size_px: side S of the square faces.
        crop: cut the central square out of images that are not square.
    """

    def __init__(self, locations: Locations, size_px: int = 512, *, crop: bool = False) -> None:
        self.size_px, self.crop = size_px, crop
        self.entries = index_images(locations)
        self.keys = tuple(entry.key for entry in self.entries)

    def __len__(self) -> int:
        return len(self.entries)

    def read(self, index: int) -> np.ndarray:
        """Decode face `index` into uint8 (S, S, 3) RGB."""
        entry = self.entries[index]
        return fit_square(read_image(entry), self.size_px, str(entry), crop=self.crop)

    def subset(self, indices: Sequence[int]) -> FaceDataset:
        """Return some of the faces, read from the same places."""
        chosen = copy(self)
        chosen.entries = [self.entries[index] for index in indices]
        chosen.keys = tuple(entry.key for entry in chosen.entries)
        return chosen

    def __getitem__(self, index: int) -> dict[str, Any]:
        return {"key": self.keys[index], "hq": _to_tensor(self.read(index))}


def fit_square(pixels: np.ndarray, size_px: int, name: str, *, crop: bool = False) -> np.ndarray:
    """Bring uint8 (H, W, 3) to (S, S, 3), S = size_px: aligned faces of any data set, as they come.

    Larger squares are scaled down (Lanczos), so FFHQ's and CelebA-HQ's 1024 px serve every recipe. `crop` first
    cuts the central square out of images that are not square (FFHQ in the wild, CelebA's 178x218). Raises
    FlipnetError, naming the image by `name`, for an image that is not square without `crop`, and for one smaller
    than S (our choice: an enlarged image is no clean face).
    """
    height, width = pixels.shape[:2]
    side = min(height, width)
    if height != width and not crop:
        raise FlipnetError(
            f"{name}: is {width}x{height}, but square faces are needed; align it, or set data.crop_to_square."
        )
    if side < size_px:
        raise FlipnetError(f"{name}: is {width}x{height}, but at least {size_px}x{size_px} is needed.")
    top, left = (height - side) // 2, (width - side) // 2
    return resize(pixels[top : top + side, left : left + side], (size_px, size_px))


class FaceSource(Protocol):
    """Faces that can be read one by one: `FaceDataset`, `cache.DecodedFaces`, or `stream.StreamedFaces`."""

    keys: tuple[str, ...]

    def __len__(self) -> int: ...

    def read(self, index: int) -> np.ndarray:
        """Return face `index` as uint8 (S, S, 3) RGB."""
        ...

    def subset(self, indices: Sequence[int]) -> FaceSource:
        """Return some of the faces."""
        ...


class DegradedFaceDataset(Dataset[dict[str, Any]]):
    """HQ faces with an LQ made on access.

    Indexed by (face index, item seed), see `sampling.SeededBatches`; every random choice (recipe, flip,
    degradation) comes from that seed. Items are {"key", "hq", "lq"}, images uint8 (3, S, S) RGB. Where the
    recipe turned the LQ gray the HQ is gray too, as in the recipes that do so.

    Args:
        faces: the HQ faces.
        recipes: one is drawn per item, all equally likely.
        flip: mirror half of the items left to right, as all public recipes do.
    """

    def __init__(self, faces: FaceSource, recipes: Sequence[DegradationRecipe], *, flip: bool = True) -> None:
        if not recipes:
            raise FlipnetError("At least one degradation recipe is needed.")
        self.faces, self.recipes, self.flip = faces, tuple(recipes), flip

    def __len__(self) -> int:
        return len(self.faces)

    def __getitem__(self, item: tuple[int, int]) -> dict[str, Any]:
        index, seed = item
        rng = np.random.default_rng(seed)
        recipe = self.recipes[int(rng.integers(len(self.recipes)))]
        flipped = rng.random() < 0.5 and self.flip
        parameters = sample_parameters(recipe, rng)
        hq = self.faces.read(index)
        hq = np.ascontiguousarray(hq[:, ::-1]) if flipped else hq
        lq = degrade(hq, parameters)
        hq = to_grayscale(hq) if parameters.grayscale else hq
        return {"key": self.faces.keys[index], "hq": _to_tensor(hq), "lq": _to_tensor(lq)}


class PairDataset(Dataset[dict[str, Any]]):
    """Real (HQ, LQ) pairs `<key>.hq.<ext>` and `<key>.lq.<ext>` of one size.

    Items are {"key", "hq", "lq"}, images uint8 (3, S, S) RGB. Raises FlipnetError naming a key without
    partner or an image of another size.

    Args:
        locations: see `index_images`.
        size_px: side S of the square images.
    """

    def __init__(self, locations: Locations, size_px: int = 384) -> None:
        self.size_px = size_px
        self.pairs = _match_pairs(index_images(locations))
        self.keys = tuple(self.pairs)

    def __len__(self) -> int:
        return len(self.keys)

    def __getitem__(self, index: int) -> dict[str, Any]:
        key = self.keys[index]
        hq, lq = (_to_tensor(_read_exact(self.pairs[key][role], self.size_px)) for role in ("hq", "lq"))
        return {"key": key, "hq": hq, "lq": lq}


def _match_pairs(entries: Iterable[ImageEntry]) -> dict[str, dict[str, ImageEntry]]:
    pairs: dict[str, dict[str, ImageEntry]] = {}
    for entry in entries:
        key, _, role = entry.key.rpartition(".")
        if role not in ("hq", "lq"):
            raise FlipnetError(f"{entry}: pairs are named <key>.hq.<ext> and <key>.lq.<ext>.")
        if role in pairs.setdefault(key, {}):
            raise FlipnetError(f"{entry}: the same name occurs twice.")
        pairs[key][role] = entry
    for key, pair in pairs.items():
        if len(pair) < 2:
            missing = "lq" if "hq" in pair else "hq"
            raise FlipnetError(f"{next(iter(pair.values()))}: the pair '{key}' has no {missing} image.")
    return pairs


def _read_exact(entry: ImageEntry, size_px: int) -> np.ndarray:
    # A pair's two pictures must match to the pixel, so nothing is scaled.
    pixels = read_image(entry)
    if pixels.shape[:2] != (size_px, size_px):
        height, width = pixels.shape[:2]
        raise FlipnetError(f"{entry}: is {width}x{height}, but {size_px}x{size_px} is needed.")
    return pixels


def _to_tensor(pixels: np.ndarray) -> Tensor:
    return torch.from_numpy(pixels).permute(2, 0, 1)
