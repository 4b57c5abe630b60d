"""Where weights come from: bundled by name, a local folder, or a hub id. Safetensors only."""

from __future__ import annotations

import hashlib
import json
from pathlib import Path
from typing import Any

from flipnet.types import FlipnetError

BUNDLED = Path(__file__).parent / "weights"
CHECKSUMS = "sha256.json"


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

    Raises CheckpointError when nothing is found or a bundled file is damaged.
    """
    text = str(name_or_path)
    if text in bundled_names():
        verify(BUNDLED / text)
        return BUNDLED / text
    folder = Path(name_or_path)
    if folder.is_dir():
        if not (folder / "model_index.json").is_file():
            raise CheckpointError(f"{folder}: not a flipnet checkpoint, it has no model_index.json")
        return folder
    if text.count("/") == 1 and not text.startswith((".", "/", "~")):
        return _from_hub(text)
    known = ", ".join(bundled_names()) or "none"
    raise CheckpointError(f"Unknown model '{text}': no such folder, and the bundled models are: {known}.")


def _from_hub(hub_id: str) -> Path:
    from huggingface_hub import snapshot_download
    from huggingface_hub.errors import HfHubHTTPError, HFValidationError, LocalEntryNotFoundError

    try:
        return Path(snapshot_download(hub_id, allow_patterns=["*.json", "*.safetensors"]))
    except (HfHubHTTPError, HFValidationError, LocalEntryNotFoundError, OSError) as error:
        reason = str(error).splitlines()[0]
        raise CheckpointError(
            f"Model '{hub_id}' is no local folder and cannot be fetched: {reason}"
        ) from error


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
    """Compare a folder with its sha256.json; CheckpointError names the first file that differs."""
    for name, expected in read_json(folder / CHECKSUMS).items():
        path = folder / name
        if not path.is_file() or file_sha256(path) != expected:
            raise CheckpointError(f"{path}: missing or damaged, reinstall flipnet or pass another --model.")


def read_json(path: Path) -> dict[str, Any]:
    """Read a JSON object; CheckpointError names the file when it is missing or not one."""
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise CheckpointError(f"{path}: cannot be read: {error.strerror}") from error
    except ValueError as error:
        raise CheckpointError(f"{path}: not valid JSON: {error}") from error
    if not isinstance(content, dict):
        raise CheckpointError(f"{path}: expected a JSON object")
    return content
