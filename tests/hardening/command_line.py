"""The real command line in this process, and what tests look at afterwards."""

from __future__ import annotations

import contextlib
import hashlib
import io
import json
import os
import re
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from flipnet.cli import main


@dataclass(frozen=True)
class Run:
    """What one command line came to."""

    code: int
    stdout: str
    stderr: str

    def sentences(self) -> list[str]:
        return [line for line in self.stderr.split("\n") if line]


def flipnet(*arguments: str | Path) -> Run:
    """Run the real command line in this process, its streams as strict as a terminal's."""
    out, err = (io.TextIOWrapper(io.BytesIO(), "utf-8", errors) for errors in ("strict", "backslashreplace"))
    with contextlib.redirect_stdout(out), contextlib.redirect_stderr(err):
        try:
            main([str(argument) for argument in arguments])
        except SystemExit as stopped:
            code = int(stopped.code or 0)
    texts = []
    for stream in (out, err):
        stream.flush()
        texts.append(stream.buffer.getvalue().decode("utf-8"))
    assert "Traceback" not in texts[0] + texts[1]
    return Run(code, *texts)


def fingerprints(folder: Path) -> dict[str, str]:
    """Every file below a folder, hidden ones too, with its SHA-256, a link with its target."""
    found = {}
    for parent, _, names in os.walk(folder):
        for path in (Path(parent) / name for name in names):
            digest = os.readlink(path) if path.is_symlink() else hashlib.sha256(path.read_bytes()).hexdigest()
            found[str(path.relative_to(folder))] = digest
    return found


def report_of(path: Path) -> dict[str, dict[str, Any]]:
    """The photos of a report by input path."""
    return {photo["input"]: photo for photo in json.loads(path.read_text())["photos"]}


def is_one_sentence(cause: str) -> bool:
    """Whether a cause reads as one line without Python in it."""
    return bool(cause) and "\n" not in cause and not re.search(r"Traceback|Error\(|0x[0-9a-f]{6}", cause)
