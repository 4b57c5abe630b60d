"""A real Ray cluster of two workers on this machine: nothing lost, nothing done twice, the local engine's bytes."""

import io
import json
import os
import re
import signal
import subprocess
import sys
import tarfile
import time
from pathlib import Path
from threading import Thread

import psutil
import pytest
import skimage.data
from PIL import Image

from flipnet.cli import main
from flipnet.distributed import MAX_ATTEMPTS, Cluster, connection, map_on_cluster
from flipnet.types import FlipnetError
from two_modes import two_mode_pipeline

TWO = Cluster(workers=2, gpu=False)
TIME = re.compile(rb"\d{4}[-:]\d\d[-:]\d\d[T ]\d\d:\d\d:\d\d")


@pytest.fixture(scope="module")
def cluster():
    """One cluster for all tests of this module, as `--engine ray` starts it; nothing of it is left afterwards."""
    pytest.importorskip("ray", reason="flipnet[ray] is not installed")
    with connection(TWO) as ray:
        # Workers know the installed package only, not the folder of tests.
        ray.cloudpickle.register_pickle_by_value(sys.modules[__name__])
        yield ray
    left = [process for process in psutil.Process().children(recursive=True) if "ray" in process.name()]
    assert left == []


@pytest.fixture(scope="module")
def model(tmp_path_factory):
    folder = tmp_path_factory.mktemp("checkpoints") / "two-modes"
    two_mode_pipeline().save_pretrained(folder)
    return folder


@pytest.fixture
def flipnet(capsys):
    """Run a command line in this process: (exit code, stdout, stderr)."""

    def run(*arguments: object) -> tuple[int, str, str]:
        with pytest.raises(SystemExit) as leaving:
            main([str(argument) for argument in arguments])
        captured = capsys.readouterr()
        return leaving.value.code or 0, captured.out, captured.err

    return run


def portrait(shift: int, format: str = "JPEG") -> bytes:
    """A small photo with one face; another `shift`, another photo."""
    buffer = io.BytesIO()
    Image.fromarray(skimage.data.astronaut()[shift : 200 + shift, 112:336]).save(buffer, format)
    return buffer.getvalue()


def write(folder: Path, pictures: dict[str, bytes]) -> Path:
    for name, data in pictures.items():
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_bytes(data)
    return folder


def contents(folder: Path) -> dict[str, bytes]:
    """Every file below a folder by name, with the times in its metadata taken out."""
    files = sorted(path for path in folder.rglob("*") if path.is_file())
    return {path.relative_to(folder).as_posix(): TIME.sub(b"TIME", path.read_bytes()) for path in files}


def report(path: Path, **renamed: str) -> dict:
    """A report without what differs from run to run: durations, and the output folder's name."""
    text = re.sub(r'"seconds": [\d.]+', '"seconds": 0', path.read_text(encoding="utf-8"))
    for old, new in renamed.items():
        text = text.replace(f"/{old}/", f"/{new}/")
    return json.loads(text)


def worker_processes() -> list[psutil.Process]:
    return [p for p in psutil.Process().children(recursive=True) if "MapWorker" in " ".join(p.cmdline())]


# -------------------------------------------------------------------------------------------- units of work


class Journal:
    """Writes one line per unit to a file; unit 3 kills its process, as a picture that breaks a decoder would."""

    def __init__(self, folder: Path) -> None:
        self.path = folder / f"{os.getpid()}.txt"
        self.path.write_text("loaded\n")

    def __call__(self, unit: int) -> int:
        with self.path.open("a") as file:
            file.write(f"{unit}\n")
        if unit == 3:
            os.kill(os.getpid(), signal.SIGKILL)
        return unit * unit


class JournalIn:
    """Loads a Journal."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    def __call__(self) -> Journal:
        return Journal(self.folder)


def refuse():
    raise FlipnetError("no such model")


def test_a_unit_that_kills_every_worker_is_given_up_and_the_others_are_done_once(cluster, tmp_path):
    results = list(map_on_cluster(range(8), JournalIn(tmp_path), TWO, remember=True))
    assert results == [0, 1, 4, None, 16, 25, 36, 49]
    journals = [path.read_text().splitlines() for path in tmp_path.iterdir()]
    assert all(lines.count("loaded") == 1 for lines in journals)
    done = [int(line) for lines in journals for line in lines if line != "loaded"]
    assert sorted(done) == sorted([0, 1, 2, *[3] * MAX_ATTEMPTS, 4, 5, 6, 7])


def test_what_cannot_be_loaded_ends_the_run_with_its_own_words(cluster):
    with pytest.raises(FlipnetError, match=r"^no such model$"):
        list(map_on_cluster(range(4), refuse, TWO, remember=True))


# ------------------------------------------------------------------------------------------------- commands


def test_restoring_survives_a_killed_worker_and_equals_the_local_engine(cluster, flipnet, model, tmp_path):
    pictures = {f"{number:02}.jpg": portrait(number) for number in range(8)} | {"deep/bad.jpg": b"no picture"}
    photos, killed = write(tmp_path / "in", pictures), {}
    options = ("--model", model, "--device", "cpu", "--steps", 30, "--compare")

    def kill_one() -> None:
        while len(done := list((tmp_path / "ray").glob("??.jpg"))) < 2:
            time.sleep(0.02)
        killed.update({path: path.stat().st_mtime_ns for path in done})
        worker_processes()[0].kill()

    killer = Thread(target=kill_one, daemon=True)
    killer.start()
    run = ("restore", photos, "-o", tmp_path / "ray", *options, "--report", tmp_path / "ray.json")
    code, out, err = flipnet(*run, "--engine", "ray", "--workers", 2)
    killer.join(5)
    assert code == 1
    assert "8 of 9 photos restored (8 faces), 0 skipped, 1 failed; results in " in out
    assert len(killed) >= 2
    assert {path: path.stat().st_mtime_ns for path in killed} == killed  # finished photos were left alone

    local = ("restore", photos, "-o", tmp_path / "local", *options, "--report", tmp_path / "local.json")
    assert flipnet(*local)[0] == 1
    assert len(contents(tmp_path / "local")) == 16
    assert contents(tmp_path / "ray") == contents(tmp_path / "local")
    assert report(tmp_path / "ray.json", ray="local") == report(tmp_path / "local.json")
    assert f"{photos}/deep/bad.jpg: not a picture" in err


def test_shards_and_tables_are_degraded_to_the_local_engines_shards(cluster, flipnet, tmp_path):
    import pyarrow as pa
    import pyarrow.parquet as pq

    pictures = {f"{number}.png": portrait(number, "PNG") for number in range(3)} | {"sub/x.jpg": portrait(9)}
    rows = {"name": ["table/0.png", "table/1.png", "table/bad.png"]}
    rows["bytes"] = [portrait(20, "PNG"), portrait(21, "PNG"), b"no picture"]
    faces = write(tmp_path / "in", pictures | dict(zip(rows["name"], rows["bytes"], strict=True)))
    with tarfile.open(tmp_path / "faces.tar", "w") as shard:
        for name in pictures:
            shard.add(faces / name, name)
    pq.write_table(pa.table(rows), tmp_path / "faces.parquet", row_group_size=2)

    options = ("--method", "gfpgan", "--variants", 2, "--batch-size", 3, "--seed", 5)
    packed = (tmp_path / "faces.tar", tmp_path / "faces.parquet")
    for kind in (("--shards", 5), ()):
        where = "pairs" if kind else "files"
        ray = ("degrade", *packed, "-o", tmp_path / f"ray-{where}", *options, *kind)
        code, out, err = flipnet(*ray, "--engine", "ray", "--workers", 2, "--report", tmp_path / "ray.json")
        assert code == 1
        assert out.splitlines()[-1].startswith("12 of 14 results written, 0 skipped, 2 failed")
        assert f"{tmp_path}/faces.parquet/table/bad.png: not a picture" in err
        assert flipnet("degrade", faces, "-o", tmp_path / f"local-{where}", *options, *kind)[0] == 1
        assert contents(tmp_path / f"ray-{where}") == contents(tmp_path / f"local-{where}")
        results = json.loads((tmp_path / "ray.json").read_text())["results"]
        assert len({result["key"] for result in results}) == 14


def test_a_killed_run_is_taken_up_without_redoing_what_is_there(cluster, flipnet, tmp_path):
    faces = write(tmp_path / "in", {f"{number:02}.png": portrait(number % 40, "PNG") for number in range(60)})
    options = ("-o", tmp_path / "lq", "--method", "real-esrgan", "--engine", "ray", "--workers", 2)
    command = [sys.executable, "-m", "flipnet", "degrade", faces, *options]
    run = subprocess.Popen([str(word) for word in command], stdout=subprocess.DEVNULL, start_new_session=True)
    while len(list((tmp_path / "lq").glob("*.png"))) < 3:
        assert run.poll() is None
        time.sleep(0.02)
    # Ray's agents wait a minute for the cluster's answer before they go as well.
    children = psutil.Process(run.pid).children(recursive=True)
    processes = [process for process in children if "Agent" not in process.name()]
    run.kill()
    run.wait()
    psutil.wait_procs(processes, timeout=20)
    assert [process for process in processes if process.is_running()] == []

    before = {path: path.stat().st_mtime_ns for path in (tmp_path / "lq").glob("*.png")}
    assert 3 <= len(before) < 60
    code, out, _ = flipnet("degrade", faces, *options, "--skip-existing")
    assert code == 0
    assert f"{60 - len(before)} of 60 results written, {len(before)} skipped, 0 failed" in out
    assert {path: path.stat().st_mtime_ns for path in before} == before


# --------------------------------------------------------------------------------------------------- errors


def test_without_ray_one_sentence_names_the_extra(flipnet, tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "ray", None)
    write(tmp_path / "in", {"a.png": portrait(0, "PNG")})
    code, out, err = flipnet(
        "degrade", tmp_path / "in", "-o", tmp_path / "lq", "--method", "mild", "--engine", "ray"
    )
    assert (code, out) == (2, "")
    assert err.startswith("flipnet: --engine ray needs Ray Data")
    assert err.endswith('pip install "flipnet[ray]"\n')
    assert len(err.splitlines()) == 1


def test_cluster_options_need_the_engine(flipnet, tmp_path):
    for option in (("--address", "auto"), ("--workers", 2)):
        code, _, err = flipnet("restore", tmp_path, "-o", tmp_path / "out", *option)
        assert code == 2
        assert "need --engine ray" in " ".join(err.split())
