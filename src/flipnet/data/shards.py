"""Offline pairs on disk: tar shards of HQ, LQ and how the LQ was made, written once and read for training.

A folder holds `pairs-000000.tar`, `pairs-000001.tar`, ...; a shard holds, one after another per pair,
`<key>.hq.webp` (lossless), `<key>.lq.png` and `<key>.json`. Both pictures are lossless, so that a stored pair
trains like one made on the fly; a lossless 512 px face takes 0.2 MB as WebP (our choice, measured: q95 saves
0.15 MB and costs 0.6 levels per sample). The same pairs give the same bytes.
"""

from __future__ import annotations

import contextlib
import io
import json
import os
import re
import tarfile
from collections.abc import Mapping
from dataclasses import asdict, dataclass, fields
from pathlib import Path, PurePosixPath
from types import TracebackType
from typing import Any

import numpy as np
import torch
from PIL import Image
from torch import Tensor
from torch.utils.data import Dataset

from flipnet.data.datasets import check_archive_end, decode_image
from flipnet.data.remote import LISTING_ERRORS, RemoteFile, list_folder, open_shard
from flipnet.types import FlipnetError

_ROLES = (".hq.webp", ".lq.png", ".json")
_SHARD_NAME = re.compile(r"pairs-(\d{6})\.tar")


@dataclass(frozen=True)
class PairRecord:
    """How one LQ picture was made; what `<key>.json` holds.

    Attributes:
        method: "flipnet" for the degradation mode, else the name of a preset of `data.degradation`.
        seed: the seed that makes it again.
        phi: boosting weight of the degradation mode, None for presets.
        model: name or path of the checkpoint, None for presets.
        steps: denoising steps, None for presets.
        parameters: what a preset drew (`dataclasses.asdict` of it), None for the degradation mode.
    """

    method: str
    seed: int
    phi: float | None = None
    model: str | None = None
    steps: int | None = None
    parameters: Mapping[str, Any] | None = None


EncodedPair = tuple[bytes, bytes, bytes]
"""The three members of a pair: HQ, LQ, record."""


def encode_pair(key: str, hq: np.ndarray, lq: np.ndarray, record: PairRecord) -> EncodedPair:
    """Encode the members of one pair of uint8 (H, W, 3) RGB pictures of the same size.

    Raises FlipnetError, naming the key, for other pictures and for a record that JSON cannot hold.
    """
    if hq.dtype != np.uint8 or hq.shape[2:] != (3,) or (lq.dtype, lq.shape) != (hq.dtype, hq.shape):
        raise FlipnetError(
            f"'{key}': a pair needs two uint8 (H, W, 3) pictures of one size, "
            f"got {hq.dtype} {hq.shape} and {lq.dtype} {lq.shape}."
        )
    try:
        text = json.dumps(asdict(record), indent=1, sort_keys=True).encode()
    except (TypeError, ValueError) as error:
        raise FlipnetError(f"'{key}': its record cannot be written as JSON: {error}.") from error
    return _encode(hq, "WEBP", lossless=True, method=0), _encode(lq, "PNG", compress_level=1), text


class ShardWriter:
    """Write pairs into shards of `per_shard` pairs; use it as a context manager.

    A shard is written under a temporary name and renamed when it is complete, so a file named `pairs-*.tar` is
    always whole. Opening a folder that already holds shards goes on after them: `done` has their keys, and new
    shards take the next numbers. Leaving the context completes the last, shorter shard, also after an error
    elsewhere; a process that is killed loses the pairs of its unfinished shard, and nothing else.
    One writer per folder at a time.

    Args:
        folder: created where missing.
        per_shard: pairs per shard.

    Raises:
        FlipnetError: an existing shard is damaged (named), the folder cannot be made, `per_shard` < 1.
    """

    def __init__(self, folder: str | Path, per_shard: int = 1000) -> None:
        if per_shard < 1:
            raise FlipnetError(f"A shard must hold at least one pair, got {per_shard}.")
        self.folder, self.per_shard = Path(folder), per_shard
        try:
            self.folder.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise FlipnetError(f"{folder}: cannot make the folder: {error.strerror}.") from error
        existing = _shards_of(self.folder)
        self.done: set[str] = {key for shard in existing for key in _index_shard(shard)}
        self._number = 1 + max((int(Path(path).stem.removeprefix("pairs-")) for path in existing), default=-1)
        self._shard: tarfile.TarFile | None = None
        self._keys: list[str] = []

    def __enter__(self) -> ShardWriter:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def write(self, key: str, hq: np.ndarray, lq: np.ndarray, record: PairRecord) -> None:
        """Add one pair, uint8 (H, W, 3) RGB each, of the same size.

        Raises FlipnetError for what `append` and `encode_pair` refuse.
        """
        self.append(key, encode_pair(key, hq, lq, record))

    def append(self, key: str, pair: EncodedPair) -> None:
        """Add one pair that is encoded already, elsewhere perhaps.

        The key may hold "/" between folders; a dot is allowed but confuses readers that cut names at the first.
        Raises FlipnetError for a key that is empty, absolute, or written before, and when the disk refuses; the
        unfinished shard is then given up.
        """
        self._check(key)
        self._append(key, pair)
        self.done.add(key)
        self._keys.append(key)
        if len(self._keys) >= self.per_shard:
            self.close()

    def _check(self, key: str) -> None:
        if not key or key.startswith("/") or ".." in key.split("/"):
            raise FlipnetError(f"'{key}' cannot be the key of a pair.")
        if key in self.done:
            raise FlipnetError(f"{self.folder}: the pair '{key}' was written before.")

    def _append(self, key: str, members: EncodedPair) -> None:
        whole = False
        try:
            if self._shard is None:
                self._shard = tarfile.open(self._partial, "w", format=tarfile.PAX_FORMAT)  # noqa: SIM115
            for role, data in zip(_ROLES, members, strict=True):
                member = tarfile.TarInfo(key + role)
                member.size = len(data)
                self._shard.addfile(member, io.BytesIO(data))
            whole = True
        except OSError as error:
            raise FlipnetError(f"{self._partial}: cannot be written: {error.strerror}.") from error
        finally:
            # Also after Ctrl-C: a shard with half a pair must not be completed.
            if not whole:
                self._give_up()

    def close(self) -> None:
        """Complete the current shard, if there is one; `write` then starts the next."""
        if self._shard is None:
            return
        final = self.folder / f"pairs-{self._number:06d}.tar"
        try:
            self._shard.close()
            os.replace(self._partial, final)
        except OSError as error:
            self._give_up()
            raise FlipnetError(f"{final}: cannot be written: {error.strerror}.") from error
        self._shard, self._keys = None, []
        self._number += 1

    @property
    def _partial(self) -> Path:
        return self.folder / f".pairs-{self._number:06d}.tar.partial"

    def _give_up(self) -> None:
        # Closing writes the end of the archive, which the disk may refuse as well.
        if self._shard is not None:
            with contextlib.suppress(OSError):
                self._shard.close()
        self._partial.unlink(missing_ok=True)
        self.done.difference_update(self._keys)
        self._shard, self._keys = None, []


class OfflinePairs(Dataset[dict[str, Tensor]]):
    """The pairs of shard folders; items are {"hq", "lq"}, uint8 (3, H, W) RGB.

    `keys` are in the order of the shards; `record(index)` tells how an LQ picture was made.
    Shards are indexed once, by header; every access opens the file anew, so workers share no file position.

    Args:
        location: a folder that `ShardWriter` wrote, also behind an fsspec URL, or several.

    Raises:
        FlipnetError: no shards there, a truncated or damaged shard, an incomplete pair, a key that occurs twice.
    """

    def __init__(self, *location: str | Path) -> None:
        self._members: dict[str, dict[str, RemoteFile]] = {}
        for folder in location:
            shards = _shards_of(folder)
            if not shards:
                raise FlipnetError(
                    f"{folder}: holds no shards of pairs; expected pairs-000000.tar and so on."
                )
            for shard in shards:
                for key, members in _index_shard(shard).items():
                    if key in self._members:
                        other = self._members[key][".json"].url
                        raise FlipnetError(f"{shard}: the pair '{key}' is in {other} as well.")
                    self._members[key] = members
        self.keys = tuple(self._members)

    def __len__(self) -> int:
        return len(self.keys)

    def __getitem__(self, index: int) -> dict[str, Tensor]:
        members = self._members[self.keys[index]]
        files = {"hq": members[".hq.webp"], "lq": members[".lq.png"]}
        pictures = {role: decode_image(file.read(), str(file)) for role, file in files.items()}
        return {
            role: torch.from_numpy(np.ascontiguousarray(pixels.transpose(2, 0, 1)))
            for role, pixels in pictures.items()
        }

    def record(self, index: int) -> PairRecord:
        """How the LQ picture of pair `index` was made; FlipnetError names a record that cannot be read."""
        entry = self._members[self.keys[index]][".json"]
        try:
            content = json.loads(entry.read())
            return PairRecord(**{field.name: content[field.name] for field in fields(PairRecord)})
        except (ValueError, KeyError, TypeError) as error:
            raise FlipnetError(f"{entry}.json: not a record of a pair: {error}.") from error


def _shards_of(folder: str | Path) -> list[str]:
    try:
        # Local ones keep their path, as it was given, for messages.
        inside = (
            list_folder(str(folder)) if "://" in str(folder) else sorted(map(str, Path(folder).iterdir()))
        )
    except LISTING_ERRORS as error:
        raise FlipnetError(f"{folder}: no such folder of pair shards.") from error
    return [path for path in inside if _SHARD_NAME.fullmatch(PurePosixPath(path).name)]


def _index_shard(path: str) -> dict[str, dict[str, RemoteFile]]:
    """Map each key of a shard to its three members by role."""
    found: dict[str, dict[str, RemoteFile]] = {}
    try:
        with open_shard(path) as file:
            check_archive_end(file)
            with tarfile.open(fileobj=file, mode="r:") as shard:
                members = shard.getmembers()
    except LISTING_ERRORS as error:
        raise FlipnetError(
            f"{path}: the shard is damaged or truncated ({error}); delete it to make it again."
        ) from error
    for member in members:
        role = next((role for role in _ROLES if member.name.endswith(role)), None)
        if role is None:
            raise FlipnetError(f"{path}: '{member.name}' is no part of a pair; expected {', '.join(_ROLES)}.")
        key = member.name.removesuffix(role)
        found.setdefault(key, {})[role] = RemoteFile(key, path, member.offset_data, member.size)
    for key, roles in found.items():
        missing = [role for role in _ROLES if role not in roles]
        if missing:
            raise FlipnetError(
                f"{path}: the pair '{key}' has no {missing[0]}; delete the shard to make it again."
            )
    return found


def _encode(pixels: np.ndarray, image_format: str, **options: Any) -> bytes:
    with io.BytesIO() as buffer:
        Image.fromarray(pixels).save(buffer, image_format, **options)
        return buffer.getvalue()
