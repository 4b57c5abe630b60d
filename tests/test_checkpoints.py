import pytest

from flipnet import checkpoints
from flipnet.checkpoints import CheckpointError


def test_path_that_looks_like_a_path_is_never_a_hub_id(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    with pytest.raises(CheckpointError, match=r"Unknown model '\./runs'"):
        checkpoints.resolve("./runs")


def test_bundled_models_are_whole():
    for name in checkpoints.bundled_names():
        checkpoints.verify(checkpoints.BUNDLED / name)
    assert "compact" in checkpoints.bundled_names()


def test_bundled_models_hold_no_pickles_and_fit_their_budget():
    files = [path for path in checkpoints.BUNDLED.rglob("*") if path.is_file()]
    assert {path.suffix for path in files} == {".json", ".safetensors"}
    sizes = {path: path.stat().st_size for path in files}
    degradation = sum(size for path, size in sizes.items() if "degradation" in str(path))
    assert sum(sizes.values()) - degradation <= 100e6
    assert degradation <= 25e6


def test_checksums_cover_every_file(tmp_path):
    (tmp_path / "a").mkdir()
    (tmp_path / "a/x.safetensors").write_bytes(b"abc")
    checkpoints.write_checksums(tmp_path)
    # sha256("abc"), FIPS 180-2
    known = "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad"
    assert checkpoints.read_json(tmp_path / checkpoints.CHECKSUMS) == {"a/x.safetensors": known}
