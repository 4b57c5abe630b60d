"""The command line as a user meets it: messages, exit codes, and what is on disk afterwards."""

import json
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

import flipnet
from flipnet.cli import main
from flipnet.commands.comparison import GAP_PX, side_by_side
from flipnet.commands.report import PhotoRecord, PhotoStatus, run_as_json, write_json
from flipnet.images import Photo
from flipnet.types import FlipnetError


@pytest.fixture
def run_cli(capsys):
    """Run a command line in this process: (exit code, stdout, stderr)."""

    def run(*arguments: object) -> tuple[int, str, str]:
        with pytest.raises(SystemExit) as leaving:
            main([str(argument) for argument in arguments])
        captured = capsys.readouterr()
        return leaving.value.code or 0, captured.out, captured.err

    return run


def gray_picture(path: Path, size: tuple[int, int] = (64, 64)) -> Path:
    """Write a picture without any face."""
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.new("RGB", size, (90, 120, 150)).save(path)
    return path


# ------------------------------------------------------------------------------------------------- usage


@pytest.mark.parametrize("start", [["-m", "flipnet"], ["-c", "from flipnet.cli import main; main()"]])
def test_version_of_the_installed_command(start):
    done = subprocess.run([sys.executable, *start, "--version"], capture_output=True, text=True, check=True)
    assert done.stdout == f"flipnet {flipnet.__version__}\n"


def test_help_lists_the_commands(run_cli):
    code, out, _ = run_cli("--help")
    assert code == 0
    for command in ("restore", "demo", "benchmark", "train"):
        assert f"\n  {command} " in out


@pytest.mark.parametrize(
    ("options", "words"),
    [
        (["--phi", "2.5"], "--phi"),
        (["--phi", "nan"], "--phi"),
        (["--steps", "0"], "--steps"),
        (["--blend", "-0.1"], "--blend"),
        (["--faces", "both"], "'both' is not all, largest, center, or numbers"),
        (["--upscale", "0"], "--upscale"),
        (["--format", "gif"], "--format"),
        (["--quality", "101"], "--quality"),
        (["--batch-size", "0"], "--batch-size"),
        (["--device", "gpu"], "'gpu' is not auto, cpu, cuda, cuda:N or mps"),
        (["--suffix", "../x"], "path separator"),
        (["--overwrite", "--skip-existing"], "not both"),
        (["--aligned", "--faces", "largest"], "--aligned"),
        (["--aligned", "--upscale", "2"], "--aligned"),
        (["--unknown"], "--unknown"),
    ],
)
def test_bad_options_are_usage_errors(run_cli, tmp_path, options, words):
    photo = gray_picture(tmp_path / "a.png")
    code, out, err = run_cli("restore", photo, "-o", tmp_path / "out", *options)
    assert code == 2
    assert words in err
    assert "Traceback" not in err
    assert out == ""
    assert not (tmp_path / "out").exists()


def test_output_over_input_is_a_usage_error(run_cli, tmp_path):
    photo = gray_picture(tmp_path / "a.png")
    content = photo.read_bytes()
    code, _, err = run_cli("restore", photo, "-o", tmp_path, "--overwrite")
    assert code == 2
    assert err.count("\n") == 1
    assert f"{photo}: its result {photo} would overwrite an input" in err
    assert photo.read_bytes() == content


def test_output_folder_below_a_file_is_one_clear_sentence(run_cli, tmp_path):
    photo = gray_picture(tmp_path / "a.png")
    (tmp_path / "file").touch()
    code, _, err = run_cli("restore", photo, "-o", tmp_path / "file" / "out")
    assert code == 2
    assert (
        err == f"flipnet: {tmp_path / 'file' / 'out'}: this output folder cannot be made (Not a directory)\n"
    )


def test_inputs_that_cannot_be_tried_fail_without_a_model(run_cli, tmp_path):
    (tmp_path / "empty").mkdir()
    report = tmp_path / "report.json"
    inputs = [tmp_path / "gone.jpg", tmp_path / "empty"]
    code, out, err = run_cli("restore", *inputs, "-o", tmp_path / "out", "--report", report)
    assert code == 1
    assert out.startswith("0 of 2 photos restored (0 faces), 0 skipped, 2 failed")
    assert err.splitlines() == [
        f"{tmp_path / 'gone.jpg'}: no such file or folder",
        f"{tmp_path / 'empty'}: this folder holds no images",
    ]
    assert [photo["status"] for photo in json.loads(report.read_text())["photos"]] == ["failed", "failed"]


def test_existing_output_is_kept_unless_told_otherwise(run_cli, tmp_path):
    photo = gray_picture(tmp_path / "a.png")
    (tmp_path / "out").mkdir()
    (tmp_path / "out" / "a.png").write_bytes(b"mine")
    code, _, err = run_cli("restore", photo, "-o", tmp_path / "out")
    assert code == 1
    assert "exists already (--overwrite or --skip-existing)" in err
    code, out, err = run_cli("restore", photo, "-o", tmp_path / "out", "--skip-existing")
    assert (code, err) == (0, "")
    assert "1 skipped, 0 failed" in out
    assert (tmp_path / "out" / "a.png").read_bytes() == b"mine"


@pytest.mark.parametrize("report", ["a.png", "out/a.png", "folder"])
def test_report_never_replaces_a_picture(run_cli, tmp_path, report):
    photo = gray_picture(tmp_path / "a.png")
    (tmp_path / "folder").mkdir()
    content = photo.read_bytes()
    code, _, err = run_cli("restore", photo, "-o", tmp_path / "out", "--report", tmp_path / report)
    assert code == 2
    assert "--report" in err
    assert photo.read_bytes() == content


def test_train_names_the_missing_recipe(run_cli, tmp_path):
    code, _, err = run_cli("train", tmp_path / "none.toml")
    assert code == 2
    assert str(tmp_path / "none.toml") in err
    assert "Traceback" not in err
    assert run_cli("train", tmp_path / "none.toml", "--set", "steps")[0] == 2


# --------------------------------------------------------------------------- report, comparison, verdict


def test_report_is_whole_or_absent(tmp_path):
    path = tmp_path / "deep" / "report.json"
    odd_name = os.fsdecode(b"caf\xe9.jpg")  # a name that is no valid UTF-8
    record = PhotoRecord(Path(odd_name), PhotoStatus.FAILED, cause="日本")
    write_json(path, run_as_json({"phi": 1.0}, [record]))
    document = json.loads(path.read_bytes())
    assert document["photos"][0]["input"] == odd_name
    assert document["photos"][0]["cause"] == "日本"
    assert document["totals"] == {"restored": 0, "partial": 0, "failed": 1, "skipped": 0}
    with pytest.raises(ValueError, match="JSON"):
        write_json(path, {"seconds": float("nan")})
    assert json.loads(path.read_bytes()) == document
    assert os.listdir(path.parent) == ["report.json"]


def test_report_that_cannot_be_written_names_its_path(tmp_path):
    (tmp_path / "folder").mkdir()
    with pytest.raises(FlipnetError, match="folder: cannot be written"):
        write_json(tmp_path / "folder", {})
    assert os.listdir(tmp_path) == ["folder"]


def test_side_by_side_puts_before_left_and_keeps_pixels():
    rng = np.random.default_rng(0)
    before = Photo(rng.integers(0, 256, (10, 12, 3), np.uint8))
    restored = rng.integers(0, 256, (20, 24, 3), np.uint8)
    pixels = side_by_side(before, Photo(restored.astype(np.uint16) * 257)).pixels
    assert pixels.shape == (20, 24 + GAP_PX + 24, 3)
    np.testing.assert_array_equal(pixels[:, 24 + GAP_PX :], restored)
    np.testing.assert_array_equal(pixels[:, 24 : 24 + GAP_PX], 255)
    np.testing.assert_array_equal(side_by_side(before, before).pixels[:, :12], before.pixels)
