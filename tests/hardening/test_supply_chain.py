"""What gets in besides our own code: bounded versions, a lock file that fits them, and a quiet import."""

from __future__ import annotations

import re
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest
from packaging.requirements import Requirement
from packaging.version import Version

ROOT = Path(__file__).parents[2]
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
NEEDED = [Requirement(text) for text in PROJECT["dependencies"]]
EXTRA = [
    Requirement(text)
    for texts in PROJECT["optional-dependencies"].values()
    for text in texts
    if not text.startswith("flipnet")
]

QUIET = """
import os, sys
WRITES = os.O_WRONLY | os.O_RDWR | os.O_CREAT | os.O_APPEND | os.O_TRUNC

def watch(event, arguments):
    probe = event in ("socket.__new__", "socket.bind") and later  # urllib3 tries whether IPv6 is there
    if event.startswith("socket.") and event != "socket.gethostname" and not probe:
        sys.exit(f"import used the network: {event} {arguments}")
    # The standard library tries whether the folder for temporary files can be written to.
    if arguments and str(arguments[0]).startswith(os.environ["TMPDIR"]):
        return
    if event == "open" and arguments[0] != os.devnull and arguments[2] & WRITES:
        sys.exit(f"import opened a file for writing: {arguments}")
    if event in ("os.mkdir", "os.rename", "os.remove", "shutil.rmtree", "os.link", "os.symlink"):
        sys.exit(f"import changed files: {event} {arguments}")

later = False
sys.addaudithook(watch)
import flipnet, flipnet.cli
later = True
for name in flipnet.__all__:
    getattr(flipnet, name)
"""


@pytest.mark.parametrize("requirement", NEEDED + EXTRA, ids=str)
def test_every_dependency_has_a_lower_and_an_upper_bound(requirement):
    operators = {specifier.operator for specifier in requirement.specifier}
    assert operators & {">=", "==", "~="}
    assert operators & {"<", "==", "~="}


def test_the_lock_file_names_one_version_of_every_dependency_and_fits_the_bounds():
    lines = [
        line
        for line in (ROOT / "constraints.txt").read_text().splitlines()
        if line and not line.startswith("#")
    ]
    assert all(re.fullmatch(r"[\w.-]+==[\w.+!-]+", line) for line in lines)
    locked = {
        name.lower().replace("_", "-"): Version(version) for name, version in (x.split("==") for x in lines)
    }
    assert len(locked) == len(lines)
    for requirement in NEEDED:
        version = locked[requirement.name.lower().replace("_", "-")]
        assert requirement.specifier.contains(version, prereleases=True), (
            f"{requirement} is locked at {version}"
        )


def test_import_opens_no_socket_and_writes_nothing(tmp_path):
    (tmp_path / "tmp").mkdir()
    environment = {
        "HOME": str(tmp_path), "TMPDIR": str(tmp_path / "tmp"), "PATH": "/usr/bin:/bin",
        "PYTHONPATH": str(ROOT / "src"), "OMP_NUM_THREADS": "1",
    }  # fmt: skip
    done = subprocess.run(
        [sys.executable, "-B", "-c", QUIET],
        env=environment,
        cwd=tmp_path,
        capture_output=True,
        text=True,
        timeout=300,
    )
    assert done.returncode == 0, done.stderr[-500:]
    # torch leaves an empty folder for its compiler among the temporary files.
    assert [
        path
        for path in tmp_path.rglob("*")
        if path.is_file() or "tmp" not in path.parts[len(tmp_path.parts) :]
    ] == []


def test_no_checkpoint_may_bring_its_own_code():
    package = ROOT / "src/flipnet"
    readers = [
        path
        for folder in ("images", "models", "pipelines", "faces", "data")
        for path in (package / folder).glob("*.py")
    ]
    for path in [package / "checkpoints.py", *readers]:
        text = path.read_text()
        assert not re.search(r"trust_remote_code\s*=\s*True", text), path
        assert not re.search(r"\b(pickle|dill|joblib)\.loads?\(", text), path
        for call in re.findall(r"torch\.load\([^\n]*", text):
            assert "weights_only=True" in call, path
        for call in re.findall(r"np\.load\([^\n]*", text):
            assert "allow_pickle=True" not in call, path
