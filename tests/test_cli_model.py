"""Whole commands with a tiny real network: what they print, return and leave on disk."""

import json
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest
import skimage.data
from PIL import Image

from flipnet.cli import main
from flipnet.provenance import NOT_EVIDENCE


@pytest.fixture
def run_cli(capsys, tiny_checkpoint):
    """Run a command line with the tiny model in this process: (exit code, stdout, stderr)."""

    def run(*arguments: object, model: object = tiny_checkpoint) -> tuple[int, str, str]:
        command = [str(argument) for argument in arguments]
        with pytest.raises(SystemExit) as leaving:
            main([*command, "--model", str(model), "--device", "cpu"])
        captured = capsys.readouterr()
        return leaving.value.code or 0, captured.out, captured.err

    return run


def save_portrait(path: Path) -> Path:
    """Write a 256x256 photo with one face."""
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(skimage.data.astronaut()[:256, 96:352]).save(path)
    return path


def files_below(folder: Path) -> list[str]:
    return sorted(path.relative_to(folder).as_posix() for path in folder.rglob("*") if path.is_file())


def test_batch_goes_past_bad_files_and_lists_them_last(run_cli, tmp_path):
    photos = tmp_path / "Fotos ü"
    save_portrait(photos / "a.png")
    save_portrait(photos / "日本" / "b.jpg")
    (photos / "text.jpg").write_text("no picture")
    Image.new("RGB", (64, 64), "gray").save(photos / "wall.png")
    options = ("--steps", 2, "--phi", 1.5, "--seed", 3, "--compare", "--report", tmp_path / "report.json")
    code, out, err = run_cli("restore", photos, "-o", tmp_path / "out", *options)
    assert code == 1
    summary = f"2 of 4 photos restored (2 faces), 0 skipped, 2 failed; results in {tmp_path / 'out'}\n"
    assert out == f"{summary}{NOT_EVIDENCE}\n"
    assert err.splitlines()[-2:] == [
        f"{photos / 'text.jpg'}: not a picture, or of a format that is not supported",
        f"{photos / 'wall.png'}: no face was found in the photo",
    ]
    assert files_below(tmp_path / "out") == ["a.png", "a_compare.png", "日本/b.jpg", "日本/b_compare.jpg"]
    report = json.loads((tmp_path / "report.json").read_text(encoding="utf-8"))
    assert report["totals"] == {"restored": 2, "partial": 0, "failed": 2, "skipped": 0}
    assert report["settings"]["steps"] == 2
    assert [(face["phi"], face["seed"]) for photo in report["photos"] for face in photo["faces"]] == [
        (1.5, 3)
    ] * 2


def test_same_seed_same_file_other_seed_other_file(run_cli, tmp_path, monkeypatch):
    monkeypatch.setenv("SOURCE_DATE_EPOCH", "1700000000")
    photo = save_portrait(tmp_path / "a.png")
    for name, seed in (("one", 1), ("again", 1), ("two", 2)):
        assert run_cli("restore", photo, "-o", tmp_path / name, "--steps", 2, "--seed", seed)[0] == 0
    contents = {name: (tmp_path / name / "a.png").read_bytes() for name in ("one", "again", "two")}
    assert contents["one"] == contents["again"]
    assert contents["one"] != contents["two"]


def test_aligned_crops_and_overwrite(run_cli, tmp_path):
    save_portrait(tmp_path / "in" / "a.webp")
    (tmp_path / "out").mkdir()
    (tmp_path / "out" / "a.png").write_bytes(b"old")
    options = ("--aligned", "--steps", 1, "--format", "png", "--overwrite")
    code, out, err = run_cli("restore", tmp_path / "in", "-o", tmp_path / "out", *options)
    assert code == 0
    assert out.startswith("1 of 1 photo restored (1 face), 0 skipped, 0 failed")
    assert "aligned crop of 256x256 pixels resized to 64x64" in err
    assert Image.open(tmp_path / "out" / "a.png").size == (64, 64)


def test_unknown_model_is_one_sentence_and_usage(run_cli, tmp_path):
    photo = save_portrait(tmp_path / "a.png")
    code, out, err = run_cli("restore", photo, "-o", tmp_path / "out", model=tmp_path / "no-such-model")
    assert (code, out) == (2, "")
    assert err.startswith("flipnet: ")
    assert err.count("\n") == 1
    assert "no-such-model" in err
    assert not (tmp_path / "out" / "a.png").exists()


def test_demo_writes_three_pictures_and_says_where(run_cli, tmp_path):
    code, out, _ = run_cli("demo", "-o", tmp_path)
    assert code == 0
    assert files_below(tmp_path) == ["after.png", "before.png", "compare.png"]
    for name in ("after", "before", "compare"):
        assert str(tmp_path / f"{name}.png") in out
    before, after = (Image.open(tmp_path / f"{name}.png") for name in ("before", "after"))
    assert before.size == (512, 512)
    assert after.size == (1024, 1024)


def test_benchmark_prints_a_table_and_writes_json_and_sheet(run_cli, tmp_path):
    crop = Image.fromarray(skimage.data.astronaut()[30:180, 150:300])
    (tmp_path / "faces").mkdir()
    crop.resize((64, 64)).save(tmp_path / "faces" / "a.png")
    options = ("--steps", 1, "-o", tmp_path / "b.json", "--sheet", tmp_path / "sheet.png")
    code, out, _ = run_cli("benchmark", tmp_path / "faces", *options)
    assert code == 0
    for word in ("mild", "medium", "severe", "PSNR"):
        assert word in out
    document = json.loads((tmp_path / "b.json").read_text())
    assert [part["name"] for part in document["parts"]] == ["mild", "medium", "severe"]
    assert document["settings"]["steps"] == [1]
    assert Image.open(tmp_path / "sheet.png").width == 7 * 256


def test_the_installed_command_says_only_what_matters(tmp_path, tiny_checkpoint):
    photo = save_portrait(tmp_path / "a.png")
    command = [sys.executable, "-m", "flipnet", "restore", str(photo), str(tmp_path / "gone.png")]
    options = ["-o", str(tmp_path / "out"), "--model", str(tiny_checkpoint), "--device", "cpu"]
    done = subprocess.run([*command, *options], capture_output=True, text=True, check=False)
    assert done.returncode == 1
    assert done.stdout.startswith("1 of 2 photos restored (1 face), 0 skipped, 1 failed")
    # A random network's face is nobody's; dlib says so where it is installed.
    lines = [line for line in done.stderr.splitlines() if "same person" not in line]
    assert len(lines) == 2
    assert lines[0].startswith(f"{photo}: face 0: face is 2.6 times larger than the model's 64 pixels")
    assert lines[1] == f"{tmp_path / 'gone.png'}: no such file or folder"


def test_ctrl_c_leaves_whole_files_only(tmp_path, tiny_checkpoint):
    first = save_portrait(tmp_path / "in" / "000.png")
    for index in range(1, 100):
        shutil.copyfile(first, first.with_stem(f"{index:03}"))
    command = [sys.executable, "-m", "flipnet", "restore", str(tmp_path / "in"), "-o", str(tmp_path / "out")]
    options = ["--model", str(tiny_checkpoint), "--device", "cpu", "--report", str(tmp_path / "report.json")]
    # A shell that runs the tests in the background makes them, and what they start, ignore SIGINT.
    with subprocess.Popen(
        [*command, *options],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL),
    ) as process:
        give_up = time.monotonic() + 120
        while not (tmp_path / "out" / "001.png").exists() and time.monotonic() < give_up:
            assert process.poll() is None, process.stderr.read().decode()
            time.sleep(0.05)
        process.send_signal(signal.SIGINT)
        _, err = process.communicate(timeout=60)
    assert process.returncode == 130
    assert b"Traceback" not in err
    written = files_below(tmp_path / "out")
    assert 2 <= len(written) < 100
    assert all(name.endswith(".png") and not name.startswith(".") for name in written)
    for name in written:
        assert np.asarray(Image.open(tmp_path / "out" / name)).shape == (256, 256, 3)
    reported = json.loads((tmp_path / "report.json").read_text())["photos"]
    assert len(written) - 1 <= len(reported) <= len(written)
