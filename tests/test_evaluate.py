"""`flipnet evaluate RESTORED` and `--compare`, as a user calls them."""

import json

import numpy as np
import pytest
from PIL import Image
from scipy import ndimage

from flipnet.cli import main

SIZE = 96


def picture(seed, sigma=0.0):
    texture = np.random.default_rng(seed).normal(128, 60, (SIZE, SIZE, 3))
    levels = ndimage.gaussian_filter(texture, (1 + sigma, 1 + sigma, 0))
    return np.rint(128 + 3 * (levels - 128)).clip(0, 255).astype(np.uint8)


@pytest.fixture(scope="module")
def folders(tmp_path_factory):
    root = tmp_path_factory.mktemp("sets")
    for name, sigma in (("hq", 0), ("lq", 3), ("ours", 1), ("theirs", 2)):
        (root / name).mkdir()
        for seed in range(4):
            Image.fromarray(picture(seed, sigma)).save(root / name / f"face {seed}.png")
    return root


@pytest.fixture
def run(capsys, monkeypatch):
    monkeypatch.setenv("COLUMNS", "200")

    def run(*arguments):
        with pytest.raises(SystemExit) as left:
            main([str(argument) for argument in arguments])
        printed = capsys.readouterr()
        return left.value.code, printed.out, printed.err

    return run


METRICS = ("--metric", "psnr_db", "--metric", "ssim", "--metric", "fid")


def test_table_json_and_page(folders, run, tmp_path):
    report = tmp_path / "new" / "report"
    code, out, _ = run(
        "evaluate", folders / "ours", "--reference", folders / "hq", "--input", folders / "lq",
        "--method", f"theirs={folders / 'theirs'}", *METRICS, "-o", report,
    )  # fmt: skip
    assert code == 0
    assert all(word in out for word in ("PSNR dB ↑", "restored - input", "better", "not measured: fid"))
    found = json.loads((report / "report.json").read_text())
    (part,) = found["parts"]
    assert list(part["columns"]) == ["input", "restored", "theirs"]
    means = [part["columns"][name]["metrics"]["psnr_db"]["mean"] for name in ("input", "theirs", "restored")]
    assert means == sorted(means)
    assert part["differences"]["theirs"]["psnr_db"]["verdict"] == "better"
    assert [row["key"] for row in part["scores"]] == [f"face {seed}" for seed in range(4)]
    assert {column["images"] for column in found["files"].values()} == {4}
    assert found["settings"]["reference"] == str(folders / "hq")
    page = (report / "report.html").read_text(encoding="utf-8")
    assert page.count("data:image/webp") == 16


def test_one_bad_picture_is_named_the_rest_measured_and_the_exit_code_is_1(folders, run, tmp_path):
    bad = tmp_path / "bad"
    bad.mkdir()
    for path in (folders / "ours").iterdir():
        (bad / path.name).write_bytes(path.read_bytes())
    (bad / "face 2.png").write_bytes(b"\x89PNG nothing")
    code, out, _ = run("evaluate", bad, "--reference", folders / "hq", *METRICS, "-o", tmp_path / "report")
    assert code == 1
    assert f"left out: {bad / 'face 2.png'}" in out
    found = json.loads((tmp_path / "report" / "report.json").read_text())
    assert found["parts"][0]["images"] == 3


def test_two_reports_are_compared(folders, run, tmp_path):
    for name in ("ours", "theirs"):
        run("evaluate", folders / name, "--reference", folders / "hq", *METRICS, "-o", tmp_path / name)
    code, out, _ = run(
        "evaluate", "--compare", tmp_path / "theirs", tmp_path / "ours", "-o", tmp_path / "both"
    )
    assert code == 0
    assert "better" in out
    found = json.loads((tmp_path / "both" / "comparison.json").read_text())
    assert found["parts"][0]["metrics"]["psnr_db"]["difference"] > 0


def test_without_reference_only_what_needs_none_is_measured(folders, run, tmp_path):
    code, out, _ = run(
        "evaluate", folders / "ours", "--metric", "psnr_db", "--metric", "niqe", "-o", tmp_path / "report"
    )
    assert code == 0
    assert "not measured: psnr_db: needs --reference" in out
    assert "niqe: NIQE needs sides of at least 192 px, got 96x96." in out


@pytest.mark.parametrize(
    ("arguments", "cause"),
    [
        (["ours"], "--output"),
        (["ours", "-o", "r", "--reference", "absent"], "absent: no such file or folder"),
        (["ours", "-o", "r", "--metric", "x"], "--metric x: is none of"),
        (["ours", "-o", "r", "--method", "x"], "--method x: expected NAME=PATH"),
        (["ours", "-o", "r", "--method", "input=lq"], "the name is taken"),
        (["ours", "-o", "r", "--weights", "arcface=absent.pth"], "absent.pth: no such file"),
        (["--compare", "hq", "lq"], "report.json"),
        (["ours", "--compare", "hq", "lq"], "no pictures"),
    ],
)
def test_wrong_usage_is_told_in_one_line(folders, run, monkeypatch, arguments, cause):
    monkeypatch.chdir(folders)
    code, _, err = run("evaluate", *arguments)
    assert code == 2
    assert cause in err
    assert not (folders / "r").exists()


def test_the_group_still_has_its_other_command(run):
    code, out, _ = run("evaluate", "--help")
    assert code == 0
    assert "restoration" in out
    assert "degradation" in out
    code, out, _ = run("evaluate", "degradation", "--help")
    assert code == 0
    assert "--method" in out
