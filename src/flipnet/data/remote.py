"""Images in folders and tar shards behind any fsspec URL: listing them once, and reading one at a time.

A location is what fsspec understands (`s3://`, `gs://`, `https://`, `memory://`, a plain path), a glob of
these, or WebDataset's notation for numbered shards, `https://host/train-{00000..00069}.tar`. What ends in
".tar" is a shard, what has an image's suffix is an image, everything else a folder. Credentials and endpoints
are fsspec's own configuration. A shard is listed by its headers and read by byte range, so the store must serve
ranges, and nothing but the image that is needed travels.
"""

from __future__ import annotations

import json
import os
import re
import tarfile
import time
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict, dataclass
from pathlib import Path, PurePosixPath
from typing import Any

from fsspec.core import url_to_fs

from flipnet.data.cache import fingerprint
from flipnet.data.datasets import Locations, is_image, key_of, packed_images
from flipnet.types import FlipnetError

try:
    # Installed with fsspec's "http" extra; its errors on bad statuses are no OSErrors.
    from aiohttp import ClientError as _HttpError
except ImportError:
    _HttpError = OSError  # type: ignore[misc, assignment]

NETWORK_ERRORS: tuple[type[Exception], ...] = (OSError, _HttpError)
"""What reading from a store raises."""

LISTING_ERRORS: tuple[type[Exception], ...] = (*NETWORK_ERRORS, tarfile.TarError)
"""What listing a folder or a shard raises."""

_NUMBERS = re.compile(r"\{(\d+)\.\.(\d+)\}")
_HEADER_BLOCK = 4096
"""Bytes fetched per tar header, in place of fsspec's megabytes; most of a shard is never read for its list."""
_ATTEMPTS = 4


@dataclass(frozen=True)
class RemoteFile:
    """Where one file lies, an encoded image mostly.

    Attributes:
        key: name without folder of the location and without extension, "/" between folders.
        url: of the file, or of the shard that holds it.
        offset, length: the bytes inside the shard, None for a file of its own.
        suffix: the extension that `key` is without, with its dot.
    """

    key: str
    url: str
    offset: int | None = None
    length: int | None = None
    suffix: str = ""

    def __str__(self) -> str:
        return self.url if self.offset is None else f"{self.url}: {self.key}"

    def read(self) -> bytes:
        """Fetch the file's bytes; FlipnetError names it when the store still refuses at the last attempt.

        A refusal that may pass (an overloaded store, a lost connection) is tried again after 1, 2 and 4 seconds.
        """
        end = None if self.offset is None or self.length is None else self.offset + self.length
        for attempt in range(_ATTEMPTS):
            try:
                # A new process must not use its parent's connections, so no file system is kept here.
                files, path = url_to_fs(self.url)
                data = files.cat_file(path, self.offset, end)
                break
            except NETWORK_ERRORS as error:
                final = isinstance(error, FileNotFoundError | PermissionError) or attempt + 1 == _ATTEMPTS
                if final:
                    raise FlipnetError(f"{self}: cannot be read: {_cause(error)}.") from error
                time.sleep(2**attempt)
        if self.length is not None and len(data) != self.length:
            raise FlipnetError(
                f"{self}: {self.length} bytes were asked for and {len(data)} came; "
                "the shard is truncated, has changed, or its server does not serve byte ranges."
            )
        return data


def index_remote_images(locations: Locations, cache: Path | None = None) -> list[RemoteFile]:
    """List the images at the locations in the order given, sorted inside folders and globs, shards as packed.

    Args:
        locations: see the module.
        cache: folder that keeps the lists of shards, named after URL, size and date, for the next start.

    Raises FlipnetError naming a location that does not exist or cannot be read, a file system whose package is
    not installed, or all locations when they hold no image.
    """
    given = [locations] if isinstance(locations, str | Path) else list(locations)
    urls = [url for location in given for name in _numbered(str(location)) for url in _expand(name)]
    with ThreadPoolExecutor(16) as threads:
        listed = list(threads.map(lambda url: _index_url(url, cache), urls))
    entries = [entry for part in listed for entry in part]
    if not entries:
        raise FlipnetError(f"No images found in {', '.join(map(str, given)) or 'an empty list'}.")
    return entries


def open_shard(url: str) -> Any:
    """Open a shard to read its headers, a context manager; raises what is in `LISTING_ERRORS`."""
    files, path = _file_system(url)
    return files.open(path, "rb", block_size=_HEADER_BLOCK)


def list_folder(url: str) -> list[str]:
    """Return the URLs of what lies directly in a folder, sorted; raises what is in `LISTING_ERRORS`."""
    files, path = _file_system(url)
    if not files.isdir(path):
        raise FileNotFoundError(path)
    return sorted(files.unstrip_protocol(name) for name in files.ls(path, detail=False))


def _numbered(location: str) -> Iterator[str]:
    match = _NUMBERS.search(location)
    if match is None:
        yield location
        return
    first, last = match.groups()
    for number in range(int(first), int(last) + 1):
        head, tail = location[: match.start()], location[match.end() :]
        yield from _numbered(f"{head}{number:0{len(first)}}{tail}")


def _expand(location: str) -> list[str]:
    if not any(sign in location for sign in "*?["):
        return [location]
    files, path = _file_system(location)
    try:
        matches = sorted(files.glob(path))
    except NETWORK_ERRORS as error:
        raise FlipnetError(f"{location}: cannot be listed: {_cause(error)}.") from error
    if not matches:
        raise FlipnetError(f"{location}: no such file or folder.")
    return [files.unstrip_protocol(match) for match in matches]


def _file_system(url: str) -> tuple[Any, str]:
    try:
        return url_to_fs(url)
    except (ImportError, ValueError) as error:
        raise FlipnetError(f"{url}: cannot be opened: {error}.") from error


def _index_url(url: str, cache: Path | None) -> Sequence[RemoteFile]:
    files, path = _file_system(url)
    try:
        if is_image(path):
            return [RemoteFile(key_of(path.rpartition("/")[2]), url)]
        if path.endswith(".tar"):
            return _index_shard(url, files, path, cache)
        return _index_folder(files, path)
    except FileNotFoundError as error:
        raise FlipnetError(f"{url}: no such file or folder.") from error
    except LISTING_ERRORS as error:
        raise FlipnetError(
            f"{url}: not a readable folder or uncompressed tar shard: {_cause(error)}."
        ) from error


def _index_folder(files: Any, path: str) -> list[RemoteFile]:
    # Strictly by prefix: a web page that lists a folder links to other places as well.
    root = path.rstrip("/") + "/"
    if not files.isdir(path):
        raise FileNotFoundError(path)
    found = sorted(name for name in files.find(path) if name.startswith(root) and is_image(name))
    return [RemoteFile(key_of(name.removeprefix(root)), files.unstrip_protocol(name)) for name in found]


def _index_shard(url: str, files: Any, path: str, cache: Path | None) -> list[RemoteFile]:
    kept = None if cache is None else cache / f"index-{_version(url, files.info(path))}.json"
    if kept is not None and kept.exists():
        return [RemoteFile(**entry) for entry in json.loads(kept.read_text(encoding="utf-8"))]
    with open_shard(url) as shard:
        entries = [
            RemoteFile(
                key_of(member.name),
                url,
                member.offset_data,
                member.size,
                PurePosixPath(member.name).suffix,
            )
            for member in packed_images(shard)
        ]
    if kept is not None:
        kept.parent.mkdir(parents=True, exist_ok=True)
        partial = kept.with_name(f".{kept.name}.{os.getpid()}.partial")
        partial.write_text(json.dumps([asdict(entry) for entry in entries]), encoding="utf-8")
        os.replace(partial, kept)
    return entries


def _version(url: str, info: dict[str, Any]) -> str:
    """What changes when the shard does, as far as its store tells: size, and date or checksum."""
    return fingerprint(url, *(info.get(name) for name in ("size", "ETag", "etag", "LastModified", "mtime")))


def _cause(error: Exception) -> str:
    return str(error) or type(error).__name__
