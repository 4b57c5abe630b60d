import dataclasses
import io
import json
import tarfile

import fsspec
import numpy as np
import pytest
import torch
from PIL import Image
from torch.utils.data import DataLoader

from flipnet.data.datasets import PairDataset
from flipnet.data.degradation import degrade_with, preset
from flipnet.data.shards import OfflinePairs, PairRecord, ShardWriter
from flipnet.types import FlipnetError

RECORD = PairRecord("flipnet", seed=7, phi=1.0, model="compact")


def picture(seed, height=40, width=40):
    return np.random.default_rng(seed).integers(0, 256, (height, width, 3), dtype=np.uint8)


def write(folder, numbers, per_shard=3):
    with ShardWriter(folder, per_shard) as writer:
        for number in numbers:
            record = dataclasses.replace(RECORD, seed=number)
            writer.write(f"face-{number}", picture(number), picture(100 + number), record)


def names(folder):
    return sorted(path.name for path in folder.iterdir())


def test_round_trip_is_exact(tmp_path):
    write(tmp_path, range(7))
    assert names(tmp_path) == ["pairs-000000.tar", "pairs-000001.tar", "pairs-000002.tar"]
    pairs = OfflinePairs(tmp_path)
    assert pairs.keys == tuple(f"face-{number}" for number in range(7))
    item = pairs[5]
    assert item["hq"].dtype == torch.uint8
    np.testing.assert_array_equal(item["hq"].permute(1, 2, 0).numpy(), picture(5))
    np.testing.assert_array_equal(item["lq"].permute(1, 2, 0).numpy(), picture(105))
    assert pairs.record(5) == dataclasses.replace(RECORD, seed=5)


def test_the_tar_is_what_the_layout_says(tmp_path):
    """Read with tarfile, Pillow and json alone."""
    write(tmp_path, [3])
    with tarfile.open(tmp_path / "pairs-000000.tar") as shard:
        members = {member.name: shard.extractfile(member).read() for member in shard}
    assert list(members) == ["face-3.hq.webp", "face-3.lq.png", "face-3.json"]
    for name, image_format, pixels in (
        ("face-3.hq.webp", "WEBP", picture(3)),
        ("face-3.lq.png", "PNG", picture(103)),
    ):
        image = Image.open(io.BytesIO(members[name]))
        assert image.format == image_format
        np.testing.assert_array_equal(np.asarray(image), pixels)
    assert json.loads(members["face-3.json"]) == {
        "method": "flipnet",
        "seed": 3,
        "phi": 1.0,
        "model": "compact",
        "steps": None,
        "parameters": None,
    }


def test_stored_parameters_describe_a_preset(tmp_path):
    hq = picture(0, 64, 64)
    lq, parameters = degrade_with(preset("real-esrgan"), hq, 4)
    with ShardWriter(tmp_path) as writer:
        writer.write("a", hq, lq, PairRecord("real-esrgan", 4, parameters=dataclasses.asdict(parameters)))
    record = OfflinePairs(tmp_path).record(0)
    assert record.parameters["first"]["jpeg_quality"] == parameters.first.jpeg_quality
    again, _ = degrade_with(preset(record.method), hq, record.seed)
    np.testing.assert_array_equal(OfflinePairs(tmp_path)[0]["lq"].permute(1, 2, 0).numpy(), again)


def test_same_pairs_same_bytes(tmp_path):
    write(tmp_path / "a", range(4))
    write(tmp_path / "b", range(4))
    for name in names(tmp_path / "a"):
        assert (tmp_path / "a" / name).read_bytes() == (tmp_path / "b" / name).read_bytes()


def test_unfinished_shards_have_no_final_name(tmp_path):
    writer = ShardWriter(tmp_path, 2)
    for number in range(3):
        writer.write(f"face-{number}", picture(number), picture(number), RECORD)
    # As a killed process leaves it: one whole shard, one partial file, which no reader sees.
    assert names(tmp_path) == [".pairs-000001.tar.partial", "pairs-000000.tar"]
    assert len(OfflinePairs(tmp_path)) == 2

    with ShardWriter(tmp_path, 2) as resumed:
        assert resumed.done == {"face-0", "face-1"}
        before = (tmp_path / "pairs-000000.tar").read_bytes()
        for number in (2, 3):
            resumed.write(f"face-{number}", picture(number), picture(number), RECORD)
    assert names(tmp_path) == ["pairs-000000.tar", "pairs-000001.tar"]
    assert (tmp_path / "pairs-000000.tar").read_bytes() == before
    assert len(OfflinePairs(tmp_path)) == 4


def test_an_error_elsewhere_keeps_whole_pairs(tmp_path):
    def interrupted():
        with ShardWriter(tmp_path, 100) as writer:
            writer.write("a", picture(0), picture(1), RECORD)
            raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        interrupted()
    assert OfflinePairs(tmp_path).keys == ("a",)
    with ShardWriter(tmp_path, 100) as writer:
        writer.write("b", picture(0), picture(1), RECORD)
    assert OfflinePairs(tmp_path).keys == ("a", "b")


def test_nothing_written_makes_no_shard(tmp_path):
    with ShardWriter(tmp_path / "new"):
        pass
    assert names(tmp_path / "new") == []
    with pytest.raises(FlipnetError, match=r"new: holds no shards.*pairs-000000\.tar"):
        OfflinePairs(tmp_path / "new")


@pytest.mark.parametrize("where", ["in a picture", "between members", "in the end", "not a tar", "empty"])
def test_a_truncated_shard_is_named(tmp_path, where):
    write(tmp_path, range(4), per_shard=4)
    path = tmp_path / "pairs-000000.tar"
    data = path.read_bytes()
    with tarfile.open(path) as shard:
        members = shard.getmembers()
    ends = {
        "in a picture": members[4].offset_data + 100,
        "between members": members[6].offset,
        "in the end": members[-1].offset_data + 512,
        "empty": 0,
    }
    path.write_bytes(b"x" * 2048 + bytes(1024) if where == "not a tar" else data[: ends.get(where)])
    for opened in (OfflinePairs, ShardWriter):
        with pytest.raises(FlipnetError, match=r"pairs-000000\.tar: the shard is damaged or truncated"):
            opened(tmp_path)


def test_incomplete_and_foreign_members_are_named(tmp_path):
    def tar_with(*member_names):
        with tarfile.open(tmp_path / "pairs-000000.tar", "w") as shard:
            for name in member_names:
                shard.addfile(tarfile.TarInfo(name))

    tar_with("a.hq.webp", "a.json")
    with pytest.raises(FlipnetError, match=r"'a' has no \.lq\.png"):
        OfflinePairs(tmp_path)
    tar_with("readme.txt")
    with pytest.raises(FlipnetError, match=r"'readme\.txt' is no part of a pair"):
        OfflinePairs(tmp_path)


@pytest.mark.parametrize(
    ("key", "hq", "lq", "named"),
    [
        ("a", picture(0), picture(1, 40, 41), "one size"),
        ("a", picture(0).astype(np.float32), picture(1), "uint8"),
        ("a", picture(0)[..., 0], picture(1)[..., 0], "uint8"),
        ("", picture(0), picture(1), "cannot be the key"),
        ("../a", picture(0), picture(1), "cannot be the key"),
        ("old", picture(0), picture(1), "'old' was written before"),
    ],
)
def test_bad_pairs_are_refused_and_leave_no_trace(tmp_path, key, hq, lq, named):
    with ShardWriter(tmp_path) as writer:
        writer.write("old", picture(0), picture(1), RECORD)
        with pytest.raises(FlipnetError, match=named):
            writer.write(key, hq, lq, RECORD)
        with pytest.raises(FlipnetError, match="JSON"):
            writer.write("new", picture(0), picture(1), PairRecord("x", 0, parameters={"a": object()}))
    assert OfflinePairs(tmp_path).keys == ("old",)


def test_keys_with_folders_and_dots(tmp_path):
    with ShardWriter(tmp_path) as writer:
        writer.write("deep/face.v2", picture(0), picture(1), RECORD)
    assert OfflinePairs(tmp_path).keys == ("deep/face.v2",)


def test_two_folders_and_clashing_keys(tmp_path):
    write(tmp_path / "a", [0, 1])
    write(tmp_path / "b", [2])
    assert len(OfflinePairs(tmp_path / "a", tmp_path / "b")) == 3
    write(tmp_path / "b", [1])
    with pytest.raises(FlipnetError, match=r"'face-1' is in .*a.pairs-000000\.tar as well"):
        OfflinePairs(tmp_path / "a", tmp_path / "b")


def test_shards_also_read_as_plain_pairs_and_by_workers(tmp_path):
    write(tmp_path, range(4))
    assert PairDataset(str(tmp_path / "*.tar"), size_px=40).keys == OfflinePairs(tmp_path).keys
    batches = list(DataLoader(OfflinePairs(tmp_path), batch_size=2, num_workers=1))
    assert [batch["hq"].shape for batch in batches] == [(2, 3, 40, 40)] * 2


def test_wrong_arguments(tmp_path):
    with pytest.raises(FlipnetError, match="at least one pair"):
        ShardWriter(tmp_path, 0)
    with pytest.raises(FlipnetError, match="no such folder"):
        OfflinePairs(tmp_path / "missing")
    (tmp_path / "file").write_bytes(b"")
    with pytest.raises(FlipnetError, match="cannot make the folder"):
        ShardWriter(tmp_path / "file")


def test_pairs_behind_a_url_are_those_of_the_folder(tmp_path):
    with ShardWriter(tmp_path / "pairs", per_shard=2) as writer:
        for number in range(3):
            writer.write(f"a-{number}", picture(number), picture(number + 10), RECORD)
    files = fsspec.filesystem("memory")
    files.put(str(tmp_path / "pairs"), "/offline", recursive=True)
    local, remote = OfflinePairs(tmp_path / "pairs"), OfflinePairs("memory://offline")
    assert remote.keys == local.keys == ("a-0", "a-1", "a-2")
    for index in range(3):
        assert remote.record(index) == local.record(index)
        assert all((remote[index][role] == local[index][role]).all() for role in ("hq", "lq"))
    files.rm("/offline", recursive=True)
    with pytest.raises(FlipnetError, match="memory://offline: no such folder of pair shards"):
        OfflinePairs("memory://offline")
