"""Pictures packed in one file, tar shards and parquet tables: their names, and the bytes of each."""

from __future__ import annotations

import tempfile
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from functools import lru_cache
from pathlib import Path, PurePosixPath
from typing import Any, Protocol

from flipnet.commands.outputs import Job
from flipnet.types import FlipnetError

PARQUET_COLUMNS = ("name", "bytes")
"""Columns of a table of pictures: text with "/" between folders, and the encoded picture file."""


class PackedImage(Protocol):
    """One picture inside a file; picklable."""

    def read(self) -> bytes:
        """Return the encoded picture; FlipnetError names what cannot be read."""
        ...


PackedImages = Mapping[Path, Mapping[str, PackedImage]]
"""For each input that holds pictures, these by name."""


@dataclass(frozen=True)
class ParquetImage:
    """One row of a table of pictures; see `PARQUET_COLUMNS`."""

    path: Path
    row_group: int
    row: int

    def read(self) -> bytes:
        """See `PackedImage`."""
        data = _row_group(self.path, self.row_group)[self.row].as_py()
        if not isinstance(data, bytes):
            raise FlipnetError(f"{self.path}: row {self.row} of row group {self.row_group} holds no bytes.")
        return data


def packed_images(inputs: Sequence[Path]) -> PackedImages:
    """List the pictures of those inputs that are tar shards or parquet files.

    Raises FlipnetError naming an input that cannot be read or lacks the columns, a name that occurs twice, and
    one that leads out of the output folder.
    """
    listed: dict[Path, Mapping[str, PackedImage]] = {}
    for path in inputs:
        if path.suffix == ".tar" and path.is_file():
            listed[path] = _by_name(path, _tar_images(path))
        elif path.suffix == ".parquet" and path.is_file():
            listed[path] = _by_name(path, _parquet_images(path))
    return listed


def _by_name(path: Path, images: Sequence[tuple[str, PackedImage]]) -> Mapping[str, PackedImage]:
    named: dict[str, PackedImage] = {}
    for name, image in images:
        pure = PurePosixPath(name)
        if not pure.name or pure.is_absolute() or ".." in pure.parts:
            raise FlipnetError(f"{path}: the name '{name}' leads out of the output folder.")
        if name in named:
            raise FlipnetError(f"{path}: the name '{name}' occurs twice.")
        named[name] = image
    return named


def _tar_images(path: Path) -> list[tuple[str, PackedImage]]:
    # Stores behind URLs bring their clients, too much to import for a photo that is a file of its own.
    from flipnet.data.remote import index_remote_images

    return [(image.key + image.suffix, image) for image in index_remote_images(str(path))]


def _parquet_images(path: Path) -> list[tuple[str, PackedImage]]:
    try:
        import pyarrow.parquet as pq
        from pyarrow import ArrowException
    except ImportError as error:
        raise FlipnetError(
            f'{path}: reading parquet needs pyarrow; install it with pip install "flipnet[ray]"'
        ) from error

    try:
        table = pq.ParquetFile(path)
        missing = [name for name in PARQUET_COLUMNS if name not in table.schema_arrow.names]
        if missing:
            raise FlipnetError(f"{path}: has no column '{missing[0]}'; pictures are in 'name' and 'bytes'.")
        return [
            (str(name), ParquetImage(path, group, row))
            for group in range(table.num_row_groups)
            for row, name in enumerate(table.read_row_group(group, ["name"])["name"].to_pylist())
        ]
    except (ArrowException, OSError) as error:
        raise FlipnetError(f"{path}: cannot be read as a parquet file: {error}.") from error


@lru_cache(maxsize=1)
def _row_group(path: Path, number: int) -> Any:
    # Rows are asked for one after another, and a column chunk can only be decoded whole.
    import pyarrow.parquet as pq
    from pyarrow import ArrowException

    try:
        return pq.ParquetFile(path).read_row_group(number, ["bytes"])["bytes"]
    except (ArrowException, OSError) as error:
        raise FlipnetError(f"{path}: row group {number} cannot be read: {error}.") from error


def image_of(job: Job, packed: PackedImages) -> PackedImage | None:
    """Return the picture behind a job's source, None where that is a file of its own."""
    for path, images in packed.items():
        if job.source.is_relative_to(path):
            return images[job.source.relative_to(path).as_posix()]
    return None


@contextmanager
def unpacked(job: Job, image: PackedImage | None) -> Iterator[Job]:
    """Give the job with a source that is a file, of the same name, while the block runs."""
    if image is None:
        yield job
        return
    with tempfile.TemporaryDirectory(prefix="flipnet-") as folder:
        path = Path(folder) / job.source.name
        try:
            path.write_bytes(image.read())
        except OSError as error:
            raise FlipnetError(
                f"{job.source}: cannot be unpacked into {folder}: {error.strerror}."
            ) from error
        yield replace(job, source=path)
