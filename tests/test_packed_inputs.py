"""Pictures inside tar shards and parquet tables: their names, their bytes, and what is refused."""

import io
import tarfile
from pathlib import Path

import pytest

from flipnet.commands.outputs import Existing, Job, OutputNaming, plan_outputs
from flipnet.commands.packed_inputs import image_of, packed_images, unpacked
from flipnet.types import FlipnetError


def write_tar(path, *names):
    with tarfile.open(path, "w") as shard:
        for name in names:
            member = tarfile.TarInfo(name)
            member.size = len(name)
            shard.addfile(member, io.BytesIO(name.encode()))
    return path


def write_table(path, **columns):
    pa = pytest.importorskip("pyarrow", reason="flipnet[ray] is not installed")
    import pyarrow.parquet as pq

    pq.write_table(pa.table(columns), path, row_group_size=2)
    return path


def test_packed_pictures_are_planned_like_a_folder_and_unpacked_under_their_names(tmp_path):
    shard = write_tar(tmp_path / "faces.tar", "a.png", "deep/b.jpg", "deep/b.json")
    table = write_table(
        tmp_path / "t.parquet", name=["x.webp", "y.png", "deep/z.gif"], bytes=[b"1", b"2", b"3"]
    )
    packed = packed_images([shard, table, tmp_path])
    names = {path: tuple(images) for path, images in packed.items()}
    plan = plan_outputs([shard, table], OutputNaming(tmp_path / "out"), Existing.FAIL, packed=names)
    targets = [job.target.relative_to(tmp_path / "out").as_posix() for job in plan.jobs]
    assert targets == ["a.png", "deep/b.jpg", "x.webp", "y.png", "deep/z.png"]
    contents = []
    for job in plan.jobs:
        with unpacked(job, image_of(job, packed)) as local:
            assert local.source.name == job.source.name
            assert local.target == job.target
            contents.append(local.source.read_bytes())
        assert not local.source.exists()
    assert contents == [b"a.png", b"deep/b.jpg", b"1", b"2", b"3"]
    plain = Job(tmp_path / "file.png", tmp_path / "out" / "file.png")
    with unpacked(plain, image_of(plain, packed)) as same:
        assert same == plain


@pytest.mark.parametrize("name", ["../a.png", "/a.png", "deep/../../a.png"])
def test_names_that_lead_out_of_the_output_folder_are_refused(tmp_path, name):
    with pytest.raises(FlipnetError, match=r"faces\.tar: the name '.*' leads out"):
        packed_images([write_tar(tmp_path / "faces.tar", "ok.png", name)])


def test_bad_tables_are_named(tmp_path):
    with pytest.raises(FlipnetError, match="has no column 'bytes'"):
        packed_images([write_table(tmp_path / "a.parquet", name=["x.png"], image=[b"1"])])
    with pytest.raises(FlipnetError, match=r"'x\.png' occurs twice"):
        packed_images([write_table(tmp_path / "b.parquet", name=["x.png"] * 2, bytes=[b"1"] * 2)])
    (tmp_path / "c.parquet").write_bytes(b"no table")
    with pytest.raises(FlipnetError, match=r"c\.parquet: cannot be read as a parquet file"):
        packed_images([tmp_path / "c.parquet"])
    empty = write_table(tmp_path / "d.parquet", name=["x.png", "y.png"], bytes=[None, b"1"])
    image = packed_images([empty])[empty]["x.png"]
    with pytest.raises(FlipnetError, match=r"d\.parquet: row 0 .* holds no bytes"):
        image.read()


def test_a_picture_of_two_files_is_refused(tmp_path):
    first, second = (write_tar(tmp_path / name, "a.png") for name in ("1.tar", "2.tar"))
    names = {Path(path): tuple(images) for path, images in packed_images([first, second]).items()}
    with pytest.raises(FlipnetError, match="would write to the same place"):
        plan_outputs([first, second], OutputNaming(tmp_path / "out"), Existing.FAIL, packed=names)
