"""Where weights come from: bundled by name, a local folder, or a hub id. Safetensors only.

A checkpoint is data from a stranger: nothing in it is run, no path in it leads out of it, and what does not fit is
refused by name before memory is taken for it.
"""

from __future__ import annotations

import hashlib
import json
import os
import re
import stat
from collections.abc import Mapping, Sequence
from pathlib import Path, PurePosixPath
from typing import TYPE_CHECKING, Any

from safetensors import SafetensorError, safe_open

from flipnet.types import FlipnetError

if TYPE_CHECKING:
    from torch import Tensor

BUNDLED = Path(__file__).parent / "weights"
CHECKSUMS = "sha256.json"

PICKLE_SUFFIXES = frozenset({".bin", ".ckpt", ".dill", ".joblib", ".pickle", ".pkl", ".pt", ".pth"})
"""Suffixes of files that are, or are used as, Python pickles, which run code when they are loaded."""

STORED_TYPES = ("F16", "BF16", "F32", "F64")
"""Types of tensors that are read; others are no weights, or quantized ones."""

_PLAIN_NAME = re.compile(r"\w[\w-]*", re.ASCII)


class CheckpointError(FlipnetError):
    """A checkpoint that cannot be used; the message names it and the cause."""


def bundled_names() -> list[str]:
    """Names of the models that ship inside the package."""
    return sorted(path.parent.name for path in BUNDLED.glob("*/model_index.json"))


def resolve(name_or_path: str | Path) -> Path:
    """Return the folder of a checkpoint.

    Args:
        name_or_path: the name of a bundled model, a local folder, or a hub id "owner/name", which alone makes
            this function use the network.

    Raises CheckpointError when nothing is found, a bundled file is damaged, or the folder holds a pickle, a pipe
    or device, or a link that leads out of it.
    """
    text = str(name_or_path)
    if text in bundled_names():
        verify(BUNDLED / text)
        return BUNDLED / text
    folder = Path(name_or_path)
    if folder.is_dir():
        if not (folder / "model_index.json").is_file():
            raise CheckpointError(f"{folder}: not a flipnet checkpoint, it has no model_index.json")
        _refuse_foreign_files(folder)
        return folder
    if text.count("/") == 1 and not text.startswith((".", "/", "~")):
        return from_hub(text)
    known = ", ".join(bundled_names()) or "none"
    raise CheckpointError(f"Unknown model '{text}': no such folder, and the bundled models are: {known}.")


def from_hub(
    hub_id: str, patterns: Sequence[str] = ("*.json", "*.safetensors"), ignored: Sequence[str] = ()
) -> Path:
    """Fetch the files of a hub repository that match `patterns` and not `ignored`; return their local folder.

    Raises CheckpointError when the hub cannot be reached or has no such repository.
    """
    from huggingface_hub import snapshot_download
    from huggingface_hub.errors import HfHubHTTPError, HFValidationError, LocalEntryNotFoundError

    try:
        return Path(snapshot_download(hub_id, allow_patterns=list(patterns), ignore_patterns=list(ignored)))
    except (HfHubHTTPError, HFValidationError, LocalEntryNotFoundError, OSError) as error:
        reason = str(error).splitlines()[0]
        raise CheckpointError(
            f"Model '{hub_id}' is no local folder and cannot be fetched: {reason}"
        ) from error


def _refuse_foreign_files(folder: Path) -> None:
    """Raise CheckpointError for a pickle, a pipe or device, and a link that leads out of the folder."""
    root = folder.resolve()
    # The hub's cache keeps a snapshot's files as links into its own folder of blobs.
    blobs = root.parent.parent / "blobs" if root.parent.name == "snapshots" else root
    for path in sorted(folder.rglob("*")):
        if path.suffix.lower() in PICKLE_SUFFIXES:
            raise CheckpointError(f"{path}: a pickle, which could run any code; only safetensors are loaded")
        if path.name.endswith(".safetensors.index.json"):
            raise CheckpointError(f"{path}: weights in several files, each part must have one")
        kind = path.lstat().st_mode
        if not (stat.S_ISREG(kind) or stat.S_ISDIR(kind) or stat.S_ISLNK(kind)):
            # Opening a pipe waits for ever.
            raise CheckpointError(f"{path}: neither a file nor a folder")
        if stat.S_ISLNK(kind):
            target = Path(os.path.realpath(path))
            if not (target.is_relative_to(root) or target.is_relative_to(blobs)):
                raise CheckpointError(f"{path}: a link that leads out of the checkpoint, to {target}")


def plain_names(index: Mapping[str, Any], key: str, source: Path) -> list[str]:
    """Return a list of names from a JSON object, [] if `key` is absent; names are parts of file names.

    Raises CheckpointError naming `source` for anything but letters, digits, "_" and "-", and for a name that comes
    twice.
    """
    names = index.get(key, [])
    if not isinstance(names, list):
        raise CheckpointError(f"{source}: '{key}' is no list of names")
    for name in names:
        if not isinstance(name, str) or not _PLAIN_NAME.fullmatch(name):
            raise CheckpointError(f"{source}: '{key}' holds {name!r}, which is no plain name")
    if len(set(names)) < len(names):
        raise CheckpointError(f"{source}: '{key}' holds a name more than once")
    return names


def tensor_shapes(file: Path) -> tuple[dict[str, str], dict[str, tuple[int, ...]]]:
    """Return (metadata, shape of every tensor) of a safetensors file; only its header is read.

    Raises CheckpointError naming the file when it is missing, truncated or no safetensors file, or holds tensors of
    a type that is not in `STORED_TYPES`.
    """
    try:
        with safe_open(file, "np") as opened:
            stored = {key: opened.get_slice(key) for key in opened.keys()}  # noqa: SIM118
            for key, tensor in stored.items():
                if (dtype := tensor.get_dtype()) not in STORED_TYPES:
                    raise CheckpointError(f"{file}: tensor {key} is of type {dtype}, no plain weights")
            return opened.metadata() or {}, {key: tuple(part.get_shape()) for key, part in stored.items()}
    except (OSError, SafetensorError) as error:
        raise CheckpointError(f"{file}: no whole safetensors file ({error})") from error


def refuse_not_finite(tensors: Mapping[str, Tensor], source: Path) -> None:
    """Raise CheckpointError naming `source` and the first tensor with a value that is NaN or infinite."""
    for name, tensor in tensors.items():
        # NaN and infinity carry through a sum, which is ten times cheaper; a sum may also overflow by itself.
        if not tensor.sum().isfinite() and not tensor.isfinite().all():
            raise CheckpointError(f"{source}: tensor {name} holds values that are not finite")


def file_sha256(path: Path) -> str:
    """Hex SHA-256 of a file."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def write_checksums(folder: Path) -> None:
    """Write sha256.json over every other file of a checkpoint folder."""
    files = sorted(p for p in folder.rglob("*") if p.is_file() and p.name != CHECKSUMS)
    sums = {p.relative_to(folder).as_posix(): file_sha256(p) for p in files}
    (folder / CHECKSUMS).write_text(json.dumps(sums, indent=2) + "\n")


def verify(folder: Path) -> None:
    """Compare a folder with its sha256.json.

    Raises CheckpointError naming the first file that differs, or a listed path that leads out of the folder.
    """
    for name, expected in read_json(folder / CHECKSUMS).items():
        listed = PurePosixPath(name)
        if listed.is_absolute() or ".." in listed.parts or "\\" in name:
            raise CheckpointError(
                f"{folder / CHECKSUMS}: lists {name!r}, a path that leads out of the folder"
            )
        path = folder / name
        if not path.is_file() or file_sha256(path) != expected:
            raise CheckpointError(f"{path}: missing or damaged, reinstall flipnet or pass another --model.")


def read_json(path: Path) -> dict[str, Any]:
    """Read a JSON object; CheckpointError names the file when it is missing or not one."""
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise CheckpointError(f"{path}: cannot be read: {error.strerror}") from error
    except (ValueError, RecursionError) as error:
        raise CheckpointError(f"{path}: not valid JSON: {error}") from error
    if not isinstance(content, dict):
        raise CheckpointError(f"{path}: expected a JSON object")
    return content
