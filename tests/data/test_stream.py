"""Faces from URLs: the same as from folders, every face once per epoch, and resumed where a run stopped."""

import io
import re
import tarfile
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from threading import Thread

import fsspec
import numpy as np
import pytest
from PIL import Image
from torch.utils.data import DataLoader, Dataset

from flipnet.data.datasets import FaceDataset
from flipnet.data.remote import index_remote_images
from flipnet.data.sampling import SeededBatches, ShuffledEpochs
from flipnet.data.stream import StreamedFaces
from flipnet.types import FlipnetError

pytestmark = pytest.mark.filterwarnings("ignore:This DataLoader will create:UserWarning")

SIZE = 16
SHARD_SIZES = (5, 1, 7)


def picture(seed, size=(SIZE, SIZE)):
    return np.random.default_rng(seed).integers(0, 256, (*size, 3), np.uint8)


def encoded(seed, size=(SIZE, SIZE)):
    buffer = io.BytesIO()
    Image.fromarray(picture(seed, size)).save(buffer, "PNG")
    return buffer.getvalue()


def packed(names):
    """The bytes of a tar of pictures, one per name, seeds from 0."""
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w") as shard:
        for seed, name in enumerate(names):
            data = encoded(seed)
            member = tarfile.TarInfo(name)
            member.size = len(data)
            shard.addfile(member, io.BytesIO(data))
    return buffer.getvalue()


def shard_files():
    """Three uneven shards, keys s0-0 ... s2-6."""
    return {
        f"train-{number:03d}.tar": packed([f"s{number}-{i}.png" for i in range(size)])
        for number, size in enumerate(SHARD_SIZES)
    }


KEYS = [f"s{number}-{i}" for number, size in enumerate(SHARD_SIZES) for i in range(size)]


class RangeHandler(SimpleHTTPRequestHandler):
    """The standard library's file server with byte ranges, which object stores have."""

    def do_GET(self):
        wanted = re.fullmatch(r"bytes=(\d+)-(\d*)", self.headers.get("Range", ""))
        if not self.server.ranges or wanted is None:
            super().do_GET()
            return
        data = self._file()
        if data is None:
            return
        first = int(wanted[1])
        part = data[first : int(wanted[2]) + 1 if wanted[2] else None]
        self.send_response(206)
        self.send_header("Content-Range", f"bytes {first}-{first + len(part) - 1}/{len(data)}")
        self.send_header("Content-Length", str(len(part)))
        self.end_headers()
        self.wfile.write(part)

    def _file(self):
        if self.server.failures:
            self.server.failures.pop()
            self.send_error(503)
            return None
        with open(self.translate_path(self.path), "rb") as file:
            return file.read()

    def end_headers(self):
        if self.server.ranges:
            self.send_header("Accept-Ranges", "bytes")
        super().end_headers()

    def log_message(self, *_):
        pass


@pytest.fixture
def web(tmp_path):
    """A local web server over tmp_path: its URL, and the server, whose behaviour tests change."""
    pytest.importorskip("aiohttp", reason="fsspec's http extra is not installed")
    server = ThreadingHTTPServer(
        ("127.0.0.1", 0), lambda *a, **k: RangeHandler(*a, directory=str(tmp_path), **k)
    )
    server.ranges, server.failures = True, []
    Thread(target=server.serve_forever, daemon=True).start()
    yield f"http://127.0.0.1:{server.server_port}", server
    server.shutdown()
    server.server_close()


@pytest.fixture(params=["path", "file", "memory", "http"])
def root(request, tmp_path):
    """Where the three shards lie: the location's start, for every kind of store."""
    if request.param == "memory":
        files = fsspec.filesystem("memory")
        for name, data in shard_files().items():
            files.pipe(f"/faces/{name}", data)
        yield "memory://faces"
        files.rm("/faces", recursive=True)
        return
    for name, data in shard_files().items():
        (tmp_path / name).write_bytes(data)
    if request.param == "http":
        yield request.getfixturevalue("web")[0]
    else:
        yield f"file://{tmp_path}" if request.param == "file" else str(tmp_path)


def test_shards_of_every_store_give_the_packed_faces(root):
    faces = StreamedFaces(f"{root}/train-{{000..002}}.tar", SIZE)
    assert list(faces.keys) == KEYS
    for index in (0, 5, 12):
        number = int(KEYS[index].partition("-")[2])
        np.testing.assert_array_equal(faces.read(index), picture(number))
    assert StreamedFaces(f"{root}/train-*.tar", SIZE).keys == faces.keys
    subset = faces.subset([12, 0])
    assert subset.keys == ("s2-6", "s0-0")
    np.testing.assert_array_equal(subset.read(0), faces.read(12))


@pytest.mark.parametrize("kind", ["file", "memory", "http"])
def test_folders_of_every_store_are_those_of_the_disk(kind, tmp_path, request):
    names = ("00000/00000.png", "00000/00001.png", "01000/01000.PNG", ".thumb.png", "LICENSE.txt")
    for seed, name in enumerate(names):
        path = tmp_path / "images1024x1024" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(encoded(seed, (32, 32)))
    url = f"file://{tmp_path}/images1024x1024"
    if kind == "http":
        url = f"{request.getfixturevalue('web')[0]}/images1024x1024"
    elif kind == "memory":
        fsspec.filesystem("memory").put(f"{tmp_path}/images1024x1024", "/ffhq", recursive=True)
        url = "memory://ffhq"
    streamed, local = StreamedFaces(url, SIZE), FaceDataset(tmp_path / "images1024x1024", SIZE)
    assert streamed.keys == local.keys == ("00000/00000", "00000/00001", "01000/01000")
    for index in range(3):
        np.testing.assert_array_equal(streamed.read(index), local.read(index))


def test_shards_that_webdataset_wrote_are_read(tmp_path):
    webdataset = pytest.importorskip("webdataset", reason="webdataset is not installed")
    with webdataset.ShardWriter(str(tmp_path / "w-%03d.tar"), maxcount=4, verbose=0) as writer:
        for seed in range(6):
            writer.write({"__key__": f"face{seed}", "png": encoded(seed), "json": {"age": seed}})
    faces = StreamedFaces(f"{tmp_path}/w-{{000..001}}.tar", SIZE)
    assert list(faces.keys) == [f"face{seed}" for seed in range(6)]
    np.testing.assert_array_equal(faces.read(5), picture(5))


# ------------------------------------------------------------------------------------------ every face once


class Indices(Dataset):
    """Items that are only their own index and seed."""

    def __getitem__(self, item):
        return item


def seen(shards, *, batch_size, steps, buffer=4, start=0, world_size=1, rank=0, workers=0, seed=3):
    """(index, item seed) in the order in which one process's data loader gives them."""
    batches = SeededBatches(
        ShuffledEpochs(shards, buffer),
        batch_size,
        steps,
        start=start,
        seed=seed,
        rank=rank,
        world_size=world_size,
    )
    loader = DataLoader(Indices(), batch_sampler=batches, num_workers=workers, collate_fn=list)
    return [item for batch in loader for item in batch]


SHARDS = [key.partition("-")[0] for key in KEYS]  # 13 items: no batch and no world divides them


@pytest.mark.parametrize("workers", [0, 1, 3])
@pytest.mark.parametrize("world_size", [1, 2, 3, 5])
def test_ranks_and_workers_share_every_epoch_without_duplicates_or_drops(world_size, workers):
    batch_size, steps = 2, 26  # 52 * world_size positions: a whole number of epochs of 13
    ranks = [
        seen(SHARDS, batch_size=batch_size, steps=steps, world_size=world_size, rank=rank, workers=workers)
        for rank in range(world_size)
    ]
    # Put the ranks' slices of every step one after another again: the one order of the run.
    order = [
        index
        for step in range(steps)
        for rank in ranks
        for index, _ in rank[step * batch_size : (step + 1) * batch_size]
    ]
    epochs = np.array(order).reshape(-1, len(SHARDS))
    assert (np.sort(epochs, axis=1) == np.arange(len(SHARDS))).all()
    assert len({tuple(epoch) for epoch in epochs}) == len(epochs)
    # Whatever the number of processes and workers, the order is the same.
    assert order == [i for i, _ in seen(SHARDS, batch_size=1, steps=len(order))]


@pytest.mark.parametrize("workers", [0, 2])
@pytest.mark.parametrize("stop", [1, 6, 7, 19])
def test_a_resumed_stream_goes_on_with_exactly_what_an_unbroken_one_would_see(stop, workers):
    whole = seen(SHARDS, batch_size=2, steps=20, workers=workers)
    assert seen(SHARDS, batch_size=2, steps=20, start=stop, workers=workers) == whole[2 * stop :]
    assert seen(SHARDS, batch_size=2, steps=20, seed=4) != whole
    assert len({seed for _, seed in whole}) == len(whole)


def test_the_buffer_keeps_reading_in_few_shards_and_still_mixes():
    shards = [f"{i // 100:02d}" for i in range(1000)]
    order = ShuffledEpochs(shards, buffer=50).order(seed=0, epoch=0)
    assert sorted(order.tolist()) == list(range(1000))
    touched = [len(set((order[i : i + 50] // 100).tolist())) for i in range(0, 1000, 50)]
    assert np.mean(touched) < 5  # a plain permutation touches all ten
    assert np.mean(touched) > 1.5
    assert np.abs(np.diff(order)).mean() > 20  # the packed order has 1
    plain = ShuffledEpochs(shards, buffer=1).order(0, 0).reshape(10, 100)
    assert (np.diff(plain) == 1).all()  # shards shuffled, their items as packed


class Read(Dataset):
    """Faces by (index, item seed)."""

    def __init__(self, faces):
        self.faces = faces

    def __getitem__(self, item):
        return self.faces.read(item[0])


def test_worker_processes_read_from_the_web_after_their_parent_did(web, tmp_path):
    for name, data in shard_files().items():
        (tmp_path / name).write_bytes(data)
    faces = StreamedFaces(f"{web[0]}/train-{{000..002}}.tar", SIZE)
    faces.read(0)
    batches = SeededBatches(faces.shuffled(4), 4, 5)
    loader = DataLoader(Read(faces), batch_sampler=batches, num_workers=2)
    for batch, items in zip(loader, batches, strict=True):
        np.testing.assert_array_equal(batch, np.stack([faces.read(index) for index, _ in items]))


# ------------------------------------------------------------------------------------------------- mishaps


def test_a_store_that_is_busy_is_asked_again(web, tmp_path, monkeypatch):
    url, server = web
    (tmp_path / "a.tar").write_bytes(packed(["x.png"]))
    faces = StreamedFaces(f"{url}/a.tar", SIZE)
    monkeypatch.setattr("time.sleep", lambda seconds: None)
    server.failures += [1, 1]
    np.testing.assert_array_equal(faces.read(0), picture(0))
    server.failures += [1] * 9
    with pytest.raises(FlipnetError, match=r"a\.tar: x: cannot be read: .*503"):
        faces.read(0)


def test_a_server_without_byte_ranges_is_named(web, tmp_path):
    url, server = web
    (tmp_path / "a.tar").write_bytes(packed(["x.png", "y.png"]))
    faces = StreamedFaces(f"{url}/a.tar", SIZE)
    server.ranges = False
    with pytest.raises(FlipnetError, match=r"a\.tar: y: .* bytes were asked for .* byte ranges"):
        faces.read(1)


def test_lists_of_shards_are_kept_until_the_shard_changes(tmp_path, monkeypatch):
    shard, cache = tmp_path / "a.tar", tmp_path / "cache"
    shard.write_bytes(packed(["x.png"]))
    first = index_remote_images(str(shard), cache)
    with monkeypatch.context() as patch:
        patch.setattr("flipnet.data.remote.packed_images", None)  # would raise if a shard were listed again
        assert index_remote_images(str(shard), cache) == first
    shard.write_bytes(packed(["x.png", "y.png"]))
    assert [entry.key for entry in index_remote_images(str(shard), cache)] == ["x", "y"]


@pytest.mark.parametrize(
    ("location", "words"),
    [
        ("memory://nowhere/a.tar", r"memory://nowhere/a\.tar: no such file"),
        ("memory://nowhere", "memory://nowhere: no such file or folder"),
        ("memory://nowhere/*.tar", "no such file or folder"),
        ("nosuch://a/b.tar", "nosuch://a/b.tar: cannot be opened: .*nosuch"),
    ],
)
def test_locations_that_cannot_be_had_are_named(location, words):
    with pytest.raises(FlipnetError, match=words):
        index_remote_images(location)


@pytest.mark.parametrize("size", [900, 1024 + len(encoded(0)), 2048])
def test_a_shard_cut_off_anywhere_is_named_rather_than_read_short(tmp_path, size):
    (tmp_path / "a.tar").write_bytes(packed(["x.png", "y.png"])[:size])
    for dataset in (StreamedFaces, FaceDataset):
        with pytest.raises(FlipnetError, match=r"a\.tar: not a readable .* end of the archive"):
            dataset(str(tmp_path / "a.tar"), SIZE)
