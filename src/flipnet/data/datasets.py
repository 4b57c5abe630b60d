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
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

import numpy as np
import torch
from PIL import Image
from torch import Tensor
from torch.utils.data import Dataset

from flipnet.data.colour import to_grayscale
from flipnet.data.degradation import DegradationRecipe, degrade, sample_parameters
from flipnet.images import SUPPORTED_SUFFIXES, find_images, read_photo, to_8_bit
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
        with tarfile.open(path, "r:") as shard:
            return [
                ImageEntry(str(Path(member.name).with_suffix("")), path, member.offset_data, member.size)
                for member in shard
                if member.isfile() and Path(member.name).suffix.lower() in SUPPORTED_SUFFIXES
            ]
    except (tarfile.TarError, OSError) as error:
        raise FlipnetError(f"{path}: not a readable image or uncompressed tar shard: {error}.") from error


def read_image(entry: ImageEntry) -> np.ndarray:
    """Decode an entry into uint8 (H, W, 3) RGB; FlipnetError names it when it cannot be read or decoded."""
    if entry.offset is None:
        return to_8_bit(read_photo(entry.path).pixels)
    try:
        with entry.path.open("rb") as file:
            file.seek(entry.offset)
            data = file.read(entry.length)
        with Image.open(io.BytesIO(data)) as image:
            return np.array(image.convert("RGB"))
    except (OSError, SyntaxError, ValueError, Image.DecompressionBombError) as error:
        raise FlipnetError(f"{entry}: cannot be read as an image: {error}.") from error


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

    Items are {"key": str, "hq": uint8 (3, S, S) RGB}. An image of another size raises FlipnetError naming it.

    Args:
        locations: see `index_images`.
        size_px: side S of the square faces.
    """

    def __init__(self, locations: Locations, size_px: int = 512) -> None:
        self.size_px = size_px
        self.entries = index_images(locations)
        self.keys = tuple(entry.key for entry in self.entries)

    def __len__(self) -> int:
        return len(self.entries)

    def read(self, index: int) -> np.ndarray:
        """Decode face `index` into uint8 (S, S, 3) RGB."""
        return _read_square(self.entries[index], self.size_px)

    def __getitem__(self, index: int) -> dict[str, Any]:
        return {"key": self.keys[index], "hq": _to_tensor(self.read(index))}


class FaceSource(Protocol):
    """Faces that can be read one by one: `FaceDataset`, or `cache.DecodedFaces`."""

    keys: tuple[str, ...]

    def __len__(self) -> int: ...

    def read(self, index: int) -> np.ndarray:
        """Return face `index` as uint8 (S, S, 3) RGB."""
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
        hq, lq = (_to_tensor(_read_square(self.pairs[key][role], self.size_px)) for role in ("hq", "lq"))
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


def _read_square(entry: ImageEntry, size_px: int) -> np.ndarray:
    pixels = read_image(entry)
    if pixels.shape[:2] != (size_px, size_px):
        height, width = pixels.shape[:2]
        raise FlipnetError(f"{entry}: is {width}x{height}, but {size_px}x{size_px} is needed.")
    return pixels


def _to_tensor(pixels: np.ndarray) -> Tensor:
    return torch.from_numpy(pixels).permute(2, 0, 1)
