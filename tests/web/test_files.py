"""The temporary folder: what may come in, what is said about it, and that nothing stays."""

from __future__ import annotations

import os
import stat
import struct
import time
import zipfile
import zlib

import numpy as np
import pytest

from flipnet.types import FlipnetError
from flipnet.web.files import Workspace, write_zip
from flipnet.web.limits import Limits
from web.serving import save

GRAY = np.full((40, 50, 3), 120, np.uint8)


@pytest.fixture
def workspace():
    workspace = Workspace(Limits(upload_mb=0.1, megapixels=1, folder_mb=1))
    yield workspace
    workspace.close()


def put(workspace: Workspace, name: str, content: bytes):
    path = workspace.root / "upload" / name
    path.parent.mkdir(exist_ok=True)
    path.write_bytes(content)
    return path


def png_that_claims(width: int, height: int) -> bytes:
    """A PNG of a few bytes whose header promises many pixels."""

    def chunk(kind: bytes, data: bytes) -> bytes:
        return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))

    header = struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0)
    return (
        b"\x89PNG\r\n\x1a\n"
        + chunk(b"IHDR", header)
        + chunk(b"IDAT", zlib.compress(b""))
        + chunk(b"IEND", b"")
    )


def test_nobody_else_can_enter_the_folder(workspace):
    assert stat.S_IMODE(workspace.root.stat().st_mode) == 0o700
    assert os.environ["GRADIO_TEMP_DIR"] == str(workspace.root)


def test_a_job_keeps_its_photo_when_the_upload_goes(workspace):
    upload = save(GRAY, workspace.root / "abc" / "photo.png")
    content = upload.read_bytes()
    taken = workspace.take(upload, workspace.new_job())
    upload.unlink()
    assert taken.name == "photo.png"
    assert taken.read_bytes() == content


def test_two_files_of_one_name_stay_apart(workspace):
    job = workspace.new_job()
    names = [workspace.take(put(workspace, name, b"x"), job).name for name in ("a.png", "a.png", "a.jpg")]
    assert names == ["a.png", "a-2.png", "a-3.jpg"]


@pytest.mark.parametrize("path", ["/etc/passwd", "upload/../../etc/passwd", "link.png"])
def test_files_outside_are_refused(workspace, path):
    (workspace.root / "link.png").symlink_to("/etc/passwd")
    with pytest.raises(FlipnetError, match="not an uploaded file"):
        workspace.take(workspace.root / path, workspace.new_job())


def test_no_upload_and_one_that_is_gone_are_said_so(workspace):
    job = workspace.new_job()
    with pytest.raises(FlipnetError, match="choose a photo first"):
        workspace.take(None, job)
    with pytest.raises(FlipnetError, match="no longer here"):
        workspace.take(workspace.root / "gone.png", job)


def test_a_file_above_the_size_limit_is_refused(workspace):
    with pytest.raises(FlipnetError, match=r"big\.png: larger than 0\.1 MB"):
        workspace.take(put(workspace, "big.png", bytes(100_001)), workspace.new_job())


@pytest.mark.parametrize(("width", "height"), [(1001, 1000), (20_000, 20_000), (100_000, 100_000)])
def test_pixels_are_counted_before_they_are_decoded(workspace, width, height):
    bomb = put(workspace, "bomb.png", png_that_claims(width, height))
    started = time.perf_counter()
    with pytest.raises(FlipnetError, match=r"bomb\.png: more than 1 megapixels"):
        workspace.take(bomb, workspace.new_job())
    assert time.perf_counter() - started < 1


def test_room_is_what_all_files_leave(workspace):
    assert workspace.has_room(900_000)
    put(workspace, "a", bytes(500_000))
    assert not workspace.has_room(900_000)
    os.link(workspace.root / "upload" / "a", workspace.root / "upload" / "b")
    assert workspace.has_room(450_000)


def test_old_files_and_folders_are_swept_and_new_ones_stay(workspace):
    job = workspace.new_job()
    workspace.take(put(workspace, "a.png", b"x"), job)
    workspace.sweep()
    assert (job / "in" / "a.png").exists()
    later = time.time() + workspace.limits.keep_seconds + 60
    workspace.sweep(later)
    workspace.sweep(later)
    assert sorted(path.name for path in workspace.root.rglob("*")) == ["jobs"]
    assert workspace.new_job().is_dir()


def test_nothing_is_left_after_closing(workspace):
    put(workspace, "a.png", b"x")
    workspace.close()
    assert not workspace.root.exists()


def test_messages_lose_the_servers_folders(workspace):
    text = f"{workspace.root}/jobs/tmp12/in/my photo.png: the picture is damaged (at 3/4)"
    assert workspace.for_visitor(text) == "my photo.png: the picture is damaged (at 3/4)"


def test_a_zip_holds_the_files_by_name(workspace, tmp_path):
    files = [put(workspace, name, name.encode()) for name in ("a.png", "b.json")]
    with zipfile.ZipFile(write_zip(tmp_path / "all.zip", files)) as archive:
        assert {name: archive.read(name) for name in archive.namelist()} == {
            "a.png": b"a.png",
            "b.json": b"b.json",
        }


def test_limits_must_be_above_zero():
    with pytest.raises(FlipnetError, match="upload mb 0 is not above zero"):
        Limits(upload_mb=0)
