"""Where the pictures of public clean/degraded pair sets lie: one function per layout, listing keys and files.

The layouts are those of the releases: Dense-Haze (Ancuti et al. 2019), LOL (Wei et al. 2018), SIDD-Medium sRGB
(Abdelhamed et al. 2018), RealBlur-J (Rim et al. 2020), City100 (Chen et al. 2019), and our own tar shards.
A layout is never guessed. HQ is the clean picture, LQ the degraded one.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from types import MappingProxyType

from flipnet.data.datasets import ImageEntry, PairDataset
from flipnet.images import SUPPORTED_SUFFIXES
from flipnet.types import FlipnetError


@dataclass(frozen=True)
class Pair:
    """One clean picture and its degraded twin.

    Attributes:
        key: "<source>-<group>-<index>" in the folder layouts, the packed name in shards.
        hq, lq: where the clean and the degraded picture lie.
    """

    key: str
    hq: ImageEntry
    lq: ImageEntry


def index_pairs(layout: str, path: str | Path) -> list[Pair]:
    """List the pairs at `path`, laid out as `layout` names (see `LAYOUTS`), sorted by key, shards as packed.

    Raises FlipnetError for an unknown layout, a missing path, a picture without partner, and a path that holds
    no pairs of that layout; the message names the path and what was expected there.
    """
    if layout not in LAYOUTS:
        raise FlipnetError(f"Unknown pair layout '{layout}'; known are {', '.join(LAYOUTS)}.")
    if layout != "shards" and not Path(path).exists():
        raise FlipnetError(f"{path}: no such file or folder (pair layout '{layout}').")
    return LAYOUTS[layout](Path(path))


def _shards(path: Path) -> list[Pair]:
    """<key>.hq.<ext> and <key>.lq.<ext> in a tar, a glob of tars, a folder of tars or a folder of pictures."""
    tars = sorted(path.glob("*.tar")) if path.is_dir() else []
    pairs = PairDataset(tars or path).pairs
    return [Pair(key, pair["hq"], pair["lq"]) for key, pair in pairs.items()]


def _dense_haze(path: Path) -> list[Pair]:
    """GT/NN_GT.png beside hazy/NN_hazy.png."""
    expected = "'GT/NN_GT.png' and 'hazy/NN_hazy.png'"
    hq = _numbered(_pictures(path / "GT", expected), r"(.+)_GT")
    lq = _numbered(_pictures(path / "hazy", expected), r"(.+)_hazy")
    return _matched("densehaze", path, expected, hq, lq)


def _lol(path: Path) -> list[Pair]:
    """One split of LOL: high/NAME.png beside low/NAME.png."""
    expected = "a split's folder with 'high/NAME.png' and 'low/NAME.png'"
    for split in ("our485", "eval15"):
        if (path / split).is_dir():
            raise FlipnetError(f"{path}: name the split to read: {path / split}, for instance.")
    hq = _numbered(_pictures(path / "high", expected), "(.+)")
    lq = _numbered(_pictures(path / "low", expected), "(.+)")
    return _matched(f"lol-{path.resolve().name}", path, expected, hq, lq)


def _sidd(path: Path) -> list[Pair]:
    """Data/<scene instance>/NNNN_GT_SRGB_MMM.PNG beside NNNN_NOISY_SRGB_MMM.PNG."""
    expected = "'Data/SCENE/NNNN_GT_SRGB_MMM.PNG' and 'Data/SCENE/NNNN_NOISY_SRGB_MMM.PNG'"
    pairs = []
    for scene in _folders(path / "Data", expected):
        pictures = _pictures(scene, expected)
        hq = _numbered((p for p in pictures if "NOISY" not in p.name), r"(?:\d+_)?GT_SRGB_(\d+)")
        lq = _numbered((p for p in pictures if "NOISY" in p.name), r"(?:\d+_)?NOISY_SRGB_(\d+)")
        pairs += _matched(f"sidd-{scene.name}", scene, expected, hq, lq)
    return _not_empty(pairs, path, expected)


def _realblur(path: Path) -> list[Pair]:
    """A list file with 'GT-PATH BLUR-PATH' per line, or a folder of sceneNNN/gt/gt_N.png, blur/blur_N.png."""
    if path.is_file():
        return _realblur_list(path)
    expected = (
        "'sceneNNN/gt/gt_N.png' and 'sceneNNN/blur/blur_N.png', or a list such as RealBlur_J_train_list.txt"
    )
    pairs = []
    for scene in _folders(path, expected):
        hq = _numbered(_pictures(scene / "gt", expected), r"gt_(.+)")
        lq = _numbered(_pictures(scene / "blur", expected), r"blur_(.+)")
        pairs += _matched(f"realblur-{scene.name}", scene, expected, hq, lq)
    return _not_empty(pairs, path, expected)


def _realblur_list(path: Path) -> list[Pair]:
    expected = "lines 'GT-PATH BLUR-PATH', relative to the list's folder"
    pairs: dict[str, Pair] = {}
    try:
        lines = path.read_text(encoding="utf-8").splitlines()
    except (OSError, UnicodeDecodeError) as error:
        raise FlipnetError(f"{path}: cannot be read as a text file with {expected}.") from error
    for number, line in enumerate(lines, 1):
        words = line.split()
        if not words:
            continue
        if len(words) < 2:
            raise FlipnetError(f"{path}, line {number}: expected {expected}.")
        hq, lq = (path.parent / word for word in words[:2])
        for file in (hq, lq):
            if not file.is_file():
                raise FlipnetError(f"{path}, line {number}: {file} does not exist; expected {expected}.")
        key = f"realblur-{hq.parent.parent.name}-{hq.stem.removeprefix('gt_')}"
        if key in pairs:
            raise FlipnetError(f"{path}, line {number}: the pair '{key}' is listed twice.")
        pairs[key] = Pair(key, ImageEntry(key, hq), ImageEntry(key, lq))
    return _not_empty([pairs[key] for key in sorted(pairs)], path, expected)


def _city100(path: Path) -> list[Pair]:
    """NNNH.PNG beside NNNL.PNG in City100_iPhoneX and City100_NikonD5500, or in one of them."""
    expected = "'City100_iPhoneX' or 'City100_NikonD5500' with 'NNNH.PNG' and 'NNNL.PNG'"
    cameras = [f for f in (path / "City100_iPhoneX", path / "City100_NikonD5500") if f.is_dir()] or [path]
    pairs = []
    for camera in cameras:
        pictures = _pictures(camera, expected)
        hq = _numbered((p for p in pictures if not p.stem.endswith("L")), r"(\d+)H")
        lq = _numbered((p for p in pictures if p.stem.endswith("L")), r"(\d+)L")
        name = camera.resolve().name.lower().removeprefix("city100_")
        pairs += _matched(f"city100-{name}", camera, expected, hq, lq)
    return pairs


LAYOUTS: Mapping[str, Callable[[Path], list[Pair]]] = MappingProxyType(
    {
        "shards": _shards,
        "dense-haze": _dense_haze,
        "lol": _lol,
        "sidd": _sidd,
        "realblur-j": _realblur,
        "city100": _city100,
    }
)
"""Layouts by name: shards, dense-haze, lol, sidd, realblur-j, city100; docs/data.md shows their trees."""


def _folders(path: Path, expected: str) -> list[Path]:
    if not path.is_dir():
        raise FlipnetError(f"{path}: no such folder; expected {expected}.")
    return sorted(p for p in path.iterdir() if p.is_dir() and not p.name.startswith("."))


def _pictures(folder: Path, expected: str) -> list[Path]:
    if not folder.is_dir():
        raise FlipnetError(f"{folder}: no such folder; expected {expected}.")
    files = (p for p in folder.iterdir() if p.suffix.lower() in SUPPORTED_SUFFIXES)
    return sorted(p for p in files if p.is_file() and not p.name.startswith("."))


def _numbered(pictures: Iterable[Path], pattern: str) -> dict[str, Path]:
    """Map what the pattern's group finds in each name (without suffix) to the picture."""
    found: dict[str, Path] = {}
    for picture in pictures:
        match = re.fullmatch(pattern, picture.stem)
        if match is None:
            raise FlipnetError(f"{picture}: is not named as the layout has it, like '{_readable(pattern)}'.")
        if match[1] in found:
            raise FlipnetError(f"{picture}: the same name occurs twice, beside {found[match[1]].name}.")
        found[match[1]] = picture
    return found


def _readable(pattern: str) -> str:
    return pattern.replace(r"(?:\d+_)?", "NNNN_").replace("(.+)", "N").replace(r"(\d+)", "N")


def _matched(
    prefix: str, folder: Path, expected: str, hq: Mapping[str, Path], lq: Mapping[str, Path]
) -> list[Pair]:
    for name in sorted(hq.keys() ^ lq.keys()):
        file, missing = (hq[name], "degraded") if name in hq else (lq[name], "clean")
        raise FlipnetError(f"{file}: has no {missing} partner; expected {expected}.")
    keys = [(f"{prefix}-{name}", name) for name in sorted(hq)]
    pairs = [Pair(key, ImageEntry(key, hq[name]), ImageEntry(key, lq[name])) for key, name in keys]
    return _not_empty(pairs, folder, expected)


def _not_empty(pairs: list[Pair], path: Path, expected: str) -> list[Pair]:
    if not pairs:
        raise FlipnetError(f"{path}: no pairs found; expected {expected}.")
    return pairs
